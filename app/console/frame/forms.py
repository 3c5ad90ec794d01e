"""What forms send, as the models that the API's JSON makes."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.auth.schemas import Credentials
from app.documents.file_versions.schemas import FileChanges
from app.documents.schemas import MetadataChanges
from app.errors import UnsupportedMediaType, ValidationFailed
from app.processing.schemas import BatchFilter, BatchRequest, ProcessRequest
from app.web.body import media_type
from app.web.problems import invalid

_Model = TypeVar("_Model", bound=BaseModel)

_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 200  # a page of a list has 100 that may be chosen
_PARAMS = TypeAdapter(dict[str, Any])


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of the form that are not empty. Raises UnsupportedMediaType, ValidationFailed, PayloadTooLarge,
    RequestTimeout."""
    return dict(await _sent(request))


async def chosen(request: Request) -> list[UUID]:
    """The documents that were chosen in a list. Raises ValidationFailed, also for none, and what `fields_of` does."""
    ids = [value for name, value in await _sent(request) if name == "document"]
    if not ids:
        raise ValidationFailed("Choose documents first.")
    try:
        return list(dict.fromkeys(map(UUID, ids)))
    except ValueError:
        raise ValidationFailed(errors=[{"detail": "Not an id", "pointer": "/document"}]) from None


def credentials(fields: Mapping[str, str]) -> Credentials:
    """Email and password. Raises ValidationFailed."""
    return valid(Credentials, {name: fields.get(name, "") for name in ("email", "password")})


def metadata_changes(fields: Mapping[str, str]) -> dict[str, Any]:
    """The changes that a form with all metadata makes: what it leaves empty is cleared. Raises ValidationFailed."""
    changes = stated(fields)
    if fields.get("expires_at") != fields.get("expires_at_before"):
        changes["expires_at"] = in_utc(fields["expires_at"]) if "expires_at" in fields else None
    return valid(MetadataChanges, changes).model_dump(exclude_unset=True)


def file_changes(fields: Mapping[str, str]) -> dict[str, Any]:
    """The changes that a form with all that is stated about a file makes. Raises ValidationFailed."""
    changes = {"label": fields.get("label"), "keep": "keep" in fields}
    return valid(FileChanges, changes).model_dump()


def process_request(fields: Mapping[str, str], typed: Mapping[str, Any] | None = None) -> ProcessRequest:
    """What is to be done with a document: with the params that were `typed`, beside those that the form has as JSON.

    Raises ValidationFailed.
    """
    try:
        params = _PARAMS.validate_json(fields.get("params", "{}"))
    except ValidationError as error:
        raise invalid(error, "params") from None
    asked = {"params": params | dict(typed or {}), "force": "force" in fields}
    return valid(ProcessRequest, asked | _processor(fields))


def batch_request(fields: Mapping[str, str], ids: list[UUID]) -> BatchRequest:
    """What is to be done with these documents. Raises ValidationFailed."""
    return valid(BatchRequest, {"document_ids": ids, **_processor(fields)})


def filtered_request(fields: Mapping[str, str]) -> BatchRequest:
    """What is to be done with all documents that match the filter of a list. Raises ValidationFailed."""
    given = {name: fields[name] for name in BatchFilter.model_fields if name in fields}
    more = {"cursor": fields["cursor"]} if "cursor" in fields else {}
    return valid(BatchRequest, {"filter": given, **more, **_processor(fields)})


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
    return int(text) * times if text and text.isdecimal() and len(text) < 10 else text


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


def stated(fields: Mapping[str, str]) -> dict[str, Any]:
    """Description, folder and tags, of which each line is one; what is empty is None."""
    tags = [tag.strip() for tag in fields.get("tags", "").splitlines()]
    return {
        "description": fields.get("description"),
        "folder": fields.get("folder"),
        "tags": [tag for tag in tags if tag],
    }


def unix(text: str) -> str:
    """Text with the line breaks that were typed: forms send others."""
    return text.replace("\r\n", "\n")


async def _sent(request: Request) -> list[tuple[str, str]]:
    if media_type(request) != _FORM:
        raise UnsupportedMediaType
    try:
        sent = parse_qsl((await request.body()).decode(), errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise ValidationFailed("The body is not a valid form.") from None
    return [(name, unix(value)) for name, value in sent]


def _processor(fields: Mapping[str, str]) -> dict[str, str]:
    return {"processor": fields["processor"]} if "processor" in fields else {}
