"""What an upload form says beside the file."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.documents.schemas import ProcessorChoice, UploadMetadata
from app.errors import ValidationFailed
from app.web.problems import invalid

_PARAMS = TypeAdapter(dict[str, Any])


def metadata_of(parts: Mapping[str, bytes]) -> UploadMetadata:
    """Return the metadata of an upload by the form's parts; `process` and `process_params` become its `process`.

    Raises ValidationFailed.
    """
    try:
        metadata = UploadMetadata.model_validate_json(parts.get("metadata", b"{}") or b"{}")
    except ValidationError as error:
        raise invalid(error, "metadata") from None
    if "process" not in parts:
        if "process_params" in parts:
            raise _refusal("process_params", "There is no `process`, whose params they could be.")
        return metadata
    if metadata.process:
        raise _refusal("process", "There is a `process` in the metadata, too.")
    try:
        params = _PARAMS.validate_json(parts.get("process_params", b"{}"))
    except ValidationError as error:
        raise invalid(error, "process_params") from None
    if parts["process"] == b"false":
        return metadata
    try:
        named = {} if parts["process"] == b"true" else {"processor": parts["process"].decode()}
        asked = ProcessorChoice.model_validate({**named, "params": params})
    except ValueError:  # it is no UTF-8, or too long, or empty
        raise _refusal("process", "It is the name of a processor, or true for the default one.") from None
    return metadata.model_copy(update={"process": asked})


def _refusal(part: str, detail: str) -> ValidationFailed:
    return ValidationFailed(detail, errors=[{"detail": detail, "pointer": f"/{part}"}])
