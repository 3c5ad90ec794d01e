"""What commands take, checked as the API checks it: a refusal is one line that does not repeat what was typed."""

import sys
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from app.auth.schemas import Email

M = TypeVar("M", bound=BaseModel)


def address(text: str) -> str:
    """The canonical spelling of an email address."""
    return validated("email", TypeAdapter(Email), text)


def validated(name: str, adapter: TypeAdapter[str], text: str) -> str:
    """The text as the API takes it; otherwise exit."""
    try:
        return adapter.validate_python(text)
    except ValidationError as error:
        sys.exit(f"{name}: {_reason(error)}")


def model(of: type[M], **given: Any) -> M:
    """A model of what is given and not None; otherwise exit."""
    try:
        return of.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        sys.exit(f"{'.'.join(map(str, error.errors()[0]['loc']))}: {_reason(error)}")


def _reason(error: ValidationError) -> str:
    return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
