"""The upload form: a multipart body, parsed as it arrives. python-multipart finds the parts; nothing is spooled."""

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import (
    MalformedMultipart,
    PayloadTooLarge,
    UnsupportedDocument,
    UnsupportedMediaType,
)
from app.files.names import display_name
from app.files.receive import Batch
from app.files.sniffing import HEAD, plausible
from app.web.body import declared_length

MAX_METADATA = 64 * 1024  # bytes
OVERHEAD = MAX_METADATA + 16 * 1024  # bytes that a body may hold besides the file


def boundary_of(request: Request, max_file: int) -> bytes:
    """Return the multipart boundary, and refuse what the headers alone rule out. `max_file` is in bytes.

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
    """A Body that is the upload form. `finish` it when it has been fed.

    It expects one `file` part of at most `max_file` bytes, with a filename, and at most one `metadata` part, in any
    order. `size` is the bytes of the file so far.
    """

    def __init__(self, boundary: bytes, max_file: int) -> None:
        self.filename = ""
        self.size = 0
        self._max_file = max_file
        self._received = 0
        self._head = bytearray()
        self._batch = Batch()
        self._metadata: bytearray | None = None
        self._part = ""  # the name of the part that is being read
        self._headers: dict[str, str] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_begin": self._on_header_begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Parse a chunk of the body.

        Raises MalformedMultipart, PayloadTooLarge, UnsupportedDocument as soon as the bytes show it.
        """
        self._received += len(chunk)
        if self._received > self._max_file + OVERHEAD:
            raise PayloadTooLarge
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise MalformedMultipart from None

    @property
    def pending(self) -> int:
        return self._batch.pending

    def take(self) -> list[memoryview]:
        return self._batch.take()

    def finish(self) -> bytes:
        """Return the `metadata` part of the whole body, JSON. Raises MalformedMultipart, UnsupportedDocument."""
        if not self._complete:  # the parser's own finalize() does not notice a truncated body
            raise MalformedMultipart("The body ends before its closing boundary.")
        if not self.filename:
            raise MalformedMultipart("There is no `file` part.")
        if self.size <= HEAD and not plausible(bytes(self._head)):
            raise UnsupportedDocument
        return bytes(self._metadata or b"{}")

    def _on_header_begin(self) -> None:
        self._header_name.clear()
        self._header_value.clear()

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value.decode("latin-1")

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition"))
        name = options.get(b"name")
        if kind != b"form-data" or name not in {b"file", b"metadata"}:
            raise MalformedMultipart("Only the parts `file` and `metadata` are expected.")
        self._part = name.decode()
        if name == b"file":
            self._begin_file(options.get(b"filename", b""))
        elif self._metadata is None:
            self._metadata = bytearray()
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

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._add_file_data(memoryview(data)[start:end])
        else:
            self._add_metadata(memoryview(data)[start:end])

    def _add_metadata(self, data: memoryview) -> None:
        assert self._metadata is not None
        self._metadata += data
        if len(self._metadata) > MAX_METADATA:
            raise PayloadTooLarge("The metadata is too large.")

    def _add_file_data(self, data: memoryview) -> None:
        before, self.size = self.size, self.size + len(data)
        if self.size > self._max_file:
            raise PayloadTooLarge
        if before < HEAD:
            self._head += data[: HEAD - before]
            if self.size >= HEAD and not plausible(bytes(self._head)):
                raise UnsupportedDocument
        self._batch.feed(data)

    def _on_end(self) -> None:
        self._complete = True
