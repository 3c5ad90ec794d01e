"""What forms send, as the models that the API's JSON makes."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.auth.schemas import Credentials
from app.documents.schemas import MetadataChanges
from app.errors import UnsupportedMediaType, ValidationFailed
from app.files.multipart import Form
from app.processing.schemas import ProcessRequest
from app.web.body import media_type
from app.web.problems import invalid

_Model = TypeVar("_Model", bound=BaseModel)

_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 50
_PARAMS = TypeAdapter(dict[str, Any])


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of the form that are not empty. Raises UnsupportedMediaType, ValidationFailed, PayloadTooLarge,
    RequestTimeout."""
    if media_type(request) != _FORM:
        raise UnsupportedMediaType
    try:
        sent = parse_qsl((await request.body()).decode(), errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise ValidationFailed("The body is not a valid form.") from None
    return {name: _unix(value) for name, value in sent}


def credentials(fields: Mapping[str, str]) -> Credentials:
    """Email and password. Raises ValidationFailed."""
    return valid(Credentials, {name: fields.get(name, "") for name in ("email", "password")})


def metadata_changes(fields: Mapping[str, str]) -> dict[str, Any]:
    """The changes that a form with all metadata makes: what it leaves empty is cleared. Raises ValidationFailed."""
    changes = _stated(fields)
    if fields.get("expires_at") != fields.get("expires_at_before"):
        changes["expires_at"] = _in_utc(fields["expires_at"]) if "expires_at" in fields else None
    return valid(MetadataChanges, changes).model_dump(exclude_unset=True)


def process_request(fields: Mapping[str, str]) -> ProcessRequest:
    """What is to be done with a document. Raises ValidationFailed."""
    try:
        params = _PARAMS.validate_json(fields.get("params", "{}"))
    except ValidationError as error:
        raise invalid(error, "params") from None
    asked = {"processor": fields["processor"]} if "processor" in fields else {}
    return valid(ProcessRequest, {**asked, "params": params, "force": "force" in fields})


def versions(fields: Mapping[str, str]) -> frozenset[int] | None:
    """The version that was shown, which is the only one that may be changed."""
    shown = fields.get("version", "")
    return frozenset({int(shown)}) if shown.isdecimal() and len(shown) < 10 else None


class UploadForm(Form):
    """The upload form of the console: what is stated about the file has a field each, and none has to be filled in."""

    fields = ("description", "folder", "tags", "process", "process_params")

    def finish(self) -> dict[str, bytes]:
        """Return the parts as the API's form has them. Raises what that raises."""
        given = {name: value for name, value in super().finish().items() if value.strip()}
        stated = _stated({name: _unix(value.decode("utf-8", "replace")) for name, value in given.items()})
        work = {name: value for name, value in given.items() if name in ("process", "process_params")}
        return {"metadata": orjson.dumps(stated), **work}


def _stated(fields: Mapping[str, str]) -> dict[str, Any]:
    tags = [tag.strip() for tag in fields.get("tags", "").splitlines()]
    return {
        "description": fields.get("description"),
        "folder": fields.get("folder"),
        "tags": [tag for tag in tags if tag],
    }


def _unix(text: str) -> str:
    """Text with the line breaks that were typed: forms send others."""
    return text.replace("\r\n", "\n")


def _in_utc(typed: str) -> str:
    """A date and time as browsers send it, which may lack the seconds, as RFC 3339."""
    return f"{typed}:00Z" if typed.count(":") == 1 else f"{typed}Z"


def valid(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """The model that the values make. Raises ValidationFailed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None
