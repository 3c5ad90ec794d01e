"""What forms send."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.errors import UnsupportedMediaType, ValidationFailed
from app.web.body import media_type
from app.web.problems import invalid

_Model = TypeVar("_Model", bound=BaseModel)

_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 200  # a page of a list has 100 that may be chosen


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of the form that are not empty. Raises UnsupportedMediaType, ValidationFailed, PayloadTooLarge,
    RequestTimeout."""
    return dict(await pairs_of(request))


async def pairs_of(request: Request) -> list[tuple[str, str]]:
    """The fields of the form that are not empty, some of which may come several times. Raises as `fields_of` does."""
    if media_type(request) != _FORM:
        raise UnsupportedMediaType
    try:
        sent = parse_qsl((await request.body()).decode(), errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise ValidationFailed("The body is not a valid form.") from None
    return [(name, unix(value)) for name, value in sent]


def idempotency_key(fields: Mapping[str, str]) -> str:
    """The Idempotency-Key that came with the form: sent again, it does nothing again. Raises ValidationFailed."""
    try:
        return f"form:{UUID(fields.get('key', ''))}"
    except ValueError:
        raise ValidationFailed("The form has no key. Load its page again.") from None


def there(fields: Mapping[str, str], otherwise: str) -> str:
    """The path to go on to: the page that the form was on, if it says so. Whatever it says, it is of the console."""
    return f"/{fields['next']}" if "next" in fields else otherwise


def whole(text: str | None, times: int = 1) -> int | str | None:
    """A whole number that was typed, so many `times`. What is none stays as it is, and is refused by its model."""
    return int(text) * times if text and text.isdecimal() and len(text) < 20 else text


def in_utc(typed: str) -> str:
    """A date and time as browsers send it, which may lack the seconds, as RFC 3339."""
    return f"{typed}:00Z" if typed.count(":") == 1 else f"{typed}Z"


def valid(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """The model that the values make. Raises ValidationFailed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None


def versions(fields: Mapping[str, str]) -> frozenset[int] | None:
    """The version that was shown, which is the only one that may be changed."""
    shown = fields.get("version", "")
    return frozenset({int(shown)}) if shown.isdecimal() and len(shown) < 10 else None


def unix(text: str) -> str:
    """Text with the line breaks that were typed: forms send others."""
    return text.replace("\r\n", "\n")
