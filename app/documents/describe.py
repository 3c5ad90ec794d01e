"""What the OpenAPI says of a document in the answers of several routes."""

from typing import Any

from app import errors
from app.files.names import disposition
from app.files.sniffing import DOCX, PDF
from app.web.describe import header, links

LOCATION = {"Location": header("The document.", "/documents/01939f3e-5c00-7000-8000-000000000001")}
LINKS: dict[str, Any] = links(
    "getDocument",
    "editDocument",
    "getDocumentContent",
    "getDocumentTimeline",
    "processDocument",
    "deleteDocument",
    document_id="$response.body#/id",
)

_BYTES = {"schema": {"type": "string", "format": "binary"}}
# The last for generators of clients, which know bytes by that name.
_TYPES = {"content": {PDF: _BYTES, DOCX: _BYTES, "application/octet-stream": _BYTES}}
PICTURE: dict[str, Any] = {"content": {"image/png": _BYTES, "application/octet-stream": _BYTES}}
_FILE_HEADERS = {
    "ETag": header("The file's SHA-256.", f'"{"0" * 64}"'),
    "Accept-Ranges": header("Range requests are supported.", "bytes"),
    "Content-Disposition": header("Never shown inline.", disposition("report.pdf")),
}
_CONTENT_RANGE = {"Content-Range": header("The bytes sent, and the size of the file.", "bytes 0-99/1000")}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file.", "headers": _FILE_HEADERS, **_TYPES},
    206: {"description": "The requested range.", "headers": _FILE_HEADERS | _CONTENT_RANGE, **_TYPES},
    304: {"description": "Unchanged."},
}
READING = (errors.FileMissing, errors.FileDamaged, errors.StorageUnavailable)
SENDING = (
    errors.ValidationFailed,
    errors.NotFound,
    errors.UploadIncomplete,
    errors.RangeNotSatisfiable,
    errors.TooBusy,
    *READING,
)
CONTENT_REQUEST = {
    "Range": "`bytes=` with one range; other forms are ignored.",
    "If_Range": "The ETag that Range refers to: the whole file is sent if it has another.",
    "If_None_Match": "ETags that the client has: 304 if the file has one of them.",
}
RECEIVING = (
    errors.RequestTimeout,
    errors.PayloadTooLarge,
    errors.TooBusy,
    errors.StorageUnavailable,
    errors.StorageFull,
    errors.StorageQuotaExceeded,
)
REFUSING = (
    errors.MalformedMultipart,
    errors.UnsupportedDocument,
    errors.MacrosNotAllowed,
    errors.ActiveContent,
    errors.ExternalReference,
    errors.PolyglotFile,
)
