"""CONVERSION_URL: the service that converts documents."""

from typing import Annotated

from pydantic import Field

from app.settings.urls import SERVER, Target, matching, split

_FORM = "http://host:port or https://…, with user:password@ and a path if it has them, and nothing else"


class ConversionService(Target):
    """A service that speaks Gotenberg's form. The URL may hold a password."""

    url: Annotated[str, matching(rf"https?://(?=[^?#]*$){SERVER}(/.*)?", _FORM), Field(repr=False)]


def parse(url: str) -> ConversionService:
    """Return the service that a URL names. Raises ValueError."""
    split(url)
    return ConversionService(url=url.rstrip("/"))
