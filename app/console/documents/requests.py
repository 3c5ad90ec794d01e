"""What forms about documents send, as the models that the API's JSON makes."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from app.console.frame.forms import in_utc, pairs_of, valid
from app.documents.file_versions.schemas import FileChanges
from app.documents.schemas import MetadataChanges
from app.errors import ValidationFailed
from app.processing.schemas import BatchFilter, BatchRequest, ProcessRequest
from app.web.problems import invalid

_PARAMS = TypeAdapter(dict[str, Any])


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


async def chosen(request: Request) -> list[UUID]:
    """The documents that were chosen in a list. Raises ValidationFailed, also for none, and what `fields_of` does."""
    ids = [value for name, value in await pairs_of(request) if name == "document"]
    if not ids:
        raise ValidationFailed("Choose documents first.")
    try:
        return list(dict.fromkeys(map(UUID, ids)))
    except ValueError:
        raise ValidationFailed(errors=[{"detail": "Not an id", "pointer": "/document"}]) from None


def stated(fields: Mapping[str, str]) -> dict[str, Any]:
    """Description, folder and tags, of which each line is one; what is empty is None."""
    tags = [tag.strip() for tag in fields.get("tags", "").splitlines()]
    return {
        "description": fields.get("description"),
        "folder": fields.get("folder"),
        "tags": [tag for tag in tags if tag],
    }


def _processor(fields: Mapping[str, str]) -> dict[str, str]:
    return {"processor": fields["processor"]} if "processor" in fields else {}
