"""The upload form: a multipart body (RFC 2046 §5.1), parsed as it arrives. Nothing is spooled."""

import re
from collections.abc import Callable, Sequence

from fastapi import Request
from python_multipart.multipart import parse_options_header

from app.errors import MalformedMultipart, PayloadTooLarge, UnsupportedMediaType
from app.files.body import FileBody, too_large
from app.files.names import display_name, sent_name
from app.web.body import declared_length

MAX_METADATA = 64 * 1024  # bytes of all parts but the file
MAX_HEADERS = 8 * 1024  # bytes of one part's headers, and of what precedes the first part
OVERHEAD = MAX_METADATA + 16 * 1024  # bytes that a body may hold besides the file

_MAX_BLANKS = 16  # that a gateway may have added to a delimiter
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*)")


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
        raise too_large(max_file)
    return options[b"boundary"]


class Delimiter:
    """What separates the parts: a line break, two hyphens, the boundary; then two hyphens, or blanks and a line break.

    It is searched for by `find` and a regular expression: a file may consist of what looks like delimiters, and to stop
    at each takes 100 times as long.
    """

    def __init__(self, boundary: bytes) -> None:
        self._begin = b"\r\n--" + boundary
        self._whole = re.compile(re.escape(self._begin) + rb"(?:--|[ \t]{0,%d}\r\n)" % _MAX_BLANKS)
        self._longest = len(self._begin) + _MAX_BLANKS + 2

    def search(self, data: bytes, start: int) -> re.Match[bytes] | None:
        """Return the first delimiter from `start` on."""
        first = data.find(self._begin, start)  # much faster than the expression where there is none
        return None if first < 0 else self._whole.search(data, first)

    def possible_start(self, data: bytes, start: int) -> int:
        """Return where a delimiter that is not whole may begin in data that has none; or the end of the data."""
        found = data.find(b"\r", max(start, len(data) - self._longest + 1))
        return len(data) if found < 0 else found


class Form:
    """A Body that is the upload form. `finish` it when it has been fed.

    It expects one `file` part of at most `max_file` bytes, with a filename, and at most one each of `metadata`,
    `process` and `process_params`, in any order; another form has other `fields`.
    """

    fields: Sequence[str] = ("metadata", "process", "process_params")

    _read: Callable[[bytes, int], int | None]

    def __init__(self, boundary: bytes, max_file: int) -> None:
        self.filename = ""
        self._max_file = max_file
        self._received = 0
        self._file = FileBody(max_file)
        self._fields: dict[str, bytearray] = {}
        self._delimiter = Delimiter(boundary)
        self._part = ""  # the name of the part that is being read; none before the first
        self._preamble = 0
        self._read = self._read_data
        self._unread = b"\r\n"  # a delimiter begins with a line break, which the first may lack

    def feed(self, chunk: bytes) -> None:
        """Parse a chunk of the body.

        Raises MalformedMultipart, PayloadTooLarge, UnsupportedDocument as soon as the bytes show it.
        """
        self._received += len(chunk)
        if self._received > self._max_file + OVERHEAD:
            raise too_large(self._max_file)
        data, self._unread = self._unread + chunk, b""
        position: int | None = 0
        while position is not None:
            position = self._read(data, position)

    @property
    def pending(self) -> int:
        return self._file.pending

    def take(self) -> list[memoryview]:
        return self._file.take()

    def finish(self) -> dict[str, bytes]:
        """Return the other parts of the whole body, by name. Raises MalformedMultipart, UnsupportedDocument."""
        if self._read != self._read_epilogue:
            raise MalformedMultipart("The body ends before its closing boundary.")
        if not self.filename:
            raise MalformedMultipart("There is no `file` part.")
        self._file.confirm()
        return {name: bytes(value) for name, value in self._fields.items()}

    def _read_data(self, data: bytes, start: int) -> int | None:
        """Read up to the end of the next delimiter, and return that position; or all but the start of a delimiter."""
        found = self._delimiter.search(data, start)
        end = found.start() if found else self._delimiter.possible_start(data, start)
        self._add_data(memoryview(data)[start:end])
        if found is None:
            self._unread = data[end:]
            return None
        self._read = self._read_epilogue if found[0].endswith(b"--") else self._read_headers
        return found.end()

    def _read_headers(self, data: bytes, start: int) -> int | None:
        """Read a part's headers, and return the position of its data, if they are whole."""
        end = data.find(b"\r\n\r\n", start, start + MAX_HEADERS)
        if end >= 0:
            self._begin_part(data[start:end])
            self._read = self._read_data
            return end + 4
        if len(data) - start >= MAX_HEADERS:
            raise MalformedMultipart("The headers of a part are too large.")
        self._unread = data[start:]
        return None

    def _read_epilogue(self, _data: bytes, _start: int) -> None:
        """Ignore what follows the last part."""

    def _begin_part(self, headers: bytes) -> None:
        lines = [_HEADER.fullmatch(line) for line in headers.split(b"\r\n")]
        if None in lines:
            raise MalformedMultipart("The headers of a part are malformed.")
        values = {line[1].lower(): line[2] for line in lines if line}
        kind, options = parse_options_header(values.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("latin-1")
        if kind != b"form-data" or name not in ("file", *self.fields):
            first, last = "`, `".join(("file", *self.fields[:-1])), self.fields[-1]
            raise MalformedMultipart(f"Only the parts `{first}` and `{last}` are expected.")
        self._part = name
        if name == "file":
            self._begin_file(sent_name(values[b"content-disposition"], options.get(b"filename", b"")))
        elif name in self._fields:
            raise MalformedMultipart(f"There is more than one `{name}` part.")
        else:
            self._fields[name] = bytearray()

    def _begin_file(self, sent: str) -> None:
        if self.filename:
            raise MalformedMultipart("There is more than one `file` part.")
        name = display_name(sent)
        if name is None:
            raise MalformedMultipart("The `file` part has no usable filename.")
        self.filename = name

    def _add_data(self, data: memoryview) -> None:
        if self._part == "file":
            self._file.feed(data)
        elif self._part:
            self._add_field_data(data)
        else:
            self._skip_preamble(data)

    def _skip_preamble(self, data: memoryview) -> None:
        self._preamble += len(data)
        if self._preamble > MAX_HEADERS:
            raise MalformedMultipart("The body does not begin with its boundary.")

    def _add_field_data(self, data: memoryview) -> None:
        self._fields[self._part] += data
        if sum(map(len, self._fields.values())) > MAX_METADATA:
            raise PayloadTooLarge(f"The metadata, and what is to be done, may have at most {MAX_METADATA} bytes.")
