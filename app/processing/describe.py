"""What the OpenAPI says of a result in the answers of several routes."""

from typing import Any

from app import errors
from app.documents import describe as documents
from app.processing.schemas import Result
from app.web.describe import header

_RESULT_HEADERS = {
    "ETag": header(
        "The job that made the result, and how the answer is encoded.", '"01939f3e-5c00-7000-8000-000000000002"'
    ),
    "Accept-Ranges": header("Range requests are supported.", "bytes"),
    "Content-Encoding": header("Large results are sent compressed to clients that accept it.", "gzip"),
}
_CONTENT_RANGE = {"Content-Range": header("The bytes sent, and the size of the JSON.", "bytes 0-99/100000")}
RESULT: dict[int | str, dict[str, Any]] = {
    # Plain text is left out, and a range is of the same type: to generated clients, any result could else be a text.
    200: {"headers": _RESULT_HEADERS},
    206: {
        "description": "The requested range of its JSON.",
        "model": Result,
        "headers": _RESULT_HEADERS | _CONTENT_RANGE,
    },
    304: {"description": "Unchanged."},
}
SENDING = (errors.RangeNotSatisfiable, errors.NotAcceptable, errors.TooBusy, *documents.READING)
RESULT_REQUEST = {
    "Accept": "`text/plain` for the text alone, if the result has one.",
    "Accept_Encoding": "With `gzip`, a result above 64 KiB is sent compressed.",
    "Range": "`bytes=` with one range, of the JSON; other forms are ignored.",
    "If_Range": "The ETag that Range refers to: the whole result is sent if it has another.",
    "If_None_Match": "ETags that the client has: 304 if the result has one of them.",
}

# A processor says what its files are: those of any type are bytes.
_BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
FILE: dict[int | str, dict[str, Any]] = {
    status: answer | (_BYTES if "content" in answer else {}) for status, answer in documents.CONTENT.items()
}
FILE_REQUEST = documents.CONTENT_REQUEST
SENDING_FILE = tuple(error for error in documents.SENDING if error is not errors.UploadIncomplete)
