"""The way in: a multipart body, parsed as it arrives and handed on in batches.

python-multipart finds the parts; nothing is spooled, and no more than a batch of the file is ever held in memory.
"""

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.documents.schemas import Metadata, display_name
from app.documents.sniffing import plausible
from app.errors import (
    MalformedMultipart,
    PayloadTooLarge,
    UnsupportedDocument,
    UnsupportedMediaType,
)
from app.web.problems import invalid
from app.web.route import declared_length

BATCH = 512 * 1024  # bytes handed to storage at a time
HEAD = 1024  # bytes that tell whether a file can be a document at all
MAX_METADATA = 64 * 1024
OVERHEAD = MAX_METADATA + 16 * 1024  # what a body may hold besides the file


def boundary_of(request: Request, max_file: int) -> bytes:
    """The multipart boundary, after what can be refused from the headers alone.

    Raises UnsupportedMediaType, MalformedMultipart, PayloadTooLarge.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise UnsupportedMediaType
    if not 1 <= len(options.get(b"boundary", b"")) <= 70:  # RFC 2046 §5.1.1
        raise MalformedMultipart("The boundary is missing or too long.")
    if declared_length(request) > max_file + OVERHEAD:
        raise PayloadTooLarge
    return options[b"boundary"]


class Form:
    """A push parser of the upload form: `feed` it the body, `take` the file's bytes, `finish` it.

    It expects one `file` part with a filename and at most one `metadata` part, in any order.
    """

    def __init__(self, boundary: bytes, max_file: int) -> None:
        self.filename = ""
        self.size = 0
        self.pending = 0
        self._max_file = max_file
        self._received = 0
        self._head = bytearray()
        self._chunks: list[memoryview] = []
        self._metadata: bytearray | None = None
        self._headers: dict[str, str] = {}
        self._header = [bytearray(), bytearray()]
        self._on_data = self._on_file_data
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_begin": self._begin_header,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_part,
                "on_part_data": lambda data, start, end: self._on_data(memoryview(data)[start:end]),
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Raises MalformedMultipart, PayloadTooLarge, UnsupportedDocument as soon as the bytes show it."""
        self._received += len(chunk)
        if self._received > self._max_file + OVERHEAD:
            raise PayloadTooLarge
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise MalformedMultipart from None

    def take(self) -> list[memoryview]:
        """The file's bytes since the last call."""
        chunks, self._chunks, self.pending = self._chunks, [], 0
        return chunks

    def finish(self) -> Metadata:
        """The metadata, once the body is whole. Raises MalformedMultipart, UnsupportedDocument, ValidationFailed."""
        if not self._complete:  # the parser's own finalize() does not notice a truncated body
            raise MalformedMultipart("The body ends before its closing boundary.")
        if not self.filename:
            raise MalformedMultipart("There is no `file` part.")
        if self.size <= HEAD and not plausible(bytes(self._head)):
            raise UnsupportedDocument
        try:
            return Metadata.model_validate_json(bytes(self._metadata or b"{}"))
        except ValidationError as error:
            raise invalid(error, "metadata") from None

    def _begin_header(self) -> None:
        self._header = [bytearray(), bytearray()]

    def _end_header(self) -> None:
        name, value = (bytes(part).decode("latin-1") for part in self._header)
        self._headers[name.lower()] = value

    def _begin_part(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition"))
        name = options.get(b"name")
        if kind != b"form-data" or name not in {b"file", b"metadata"}:
            raise MalformedMultipart("Only the parts `file` and `metadata` are expected.")
        if name == b"file":
            self._begin_file(options.get(b"filename", b""))
        elif self._metadata is None:
            self._metadata = bytearray()
            self._on_data = self._on_metadata
        else:
            raise MalformedMultipart("There is more than one `metadata` part.")

    def _begin_file(self, sent: bytes) -> None:
        if self.filename:
            raise MalformedMultipart("There is more than one `file` part.")
        # The headers were read as Latin-1 to keep every byte; browsers and tools send UTF-8.
        name = display_name(sent.decode("utf-8", "replace"))
        if name is None:
            raise MalformedMultipart("The `file` part has no usable filename.")
        self.filename = name
        self._on_data = self._on_file_data

    def _on_metadata(self, data: memoryview) -> None:
        assert self._metadata is not None
        self._metadata += data
        if len(self._metadata) > MAX_METADATA:
            raise PayloadTooLarge("The metadata is too large.")

    def _on_file_data(self, data: memoryview) -> None:
        before, self.size = self.size, self.size + len(data)
        if self.size > self._max_file:
            raise PayloadTooLarge
        if before < HEAD:
            self._head += data[: HEAD - before]
            if self.size >= HEAD and not plausible(bytes(self._head)):
                raise UnsupportedDocument
        self._chunks.append(data)
        self.pending += len(data)

    def _end(self) -> None:
        self._complete = True
