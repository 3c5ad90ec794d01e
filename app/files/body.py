"""The bytes of a file as they arrive, refused as soon as they show that the file will be."""

from app.errors import BadRequest, PayloadTooLarge
from app.files.receive import Batch
from app.files.sniffing import HEAD, plausible, unlike


class FileBody:
    """A Body that is one file of at most `max_file` bytes, and nothing else. `confirm` it when it has been fed."""

    def __init__(self, max_file: int) -> None:
        self._max_file = max_file
        self._size = 0
        self._head = bytearray()
        self._batch = Batch()

    @property
    def pending(self) -> int:
        return self._batch.pending

    def feed(self, data: bytes | memoryview) -> None:
        """Take in more bytes. Raises PayloadTooLarge, UnsupportedDocument."""
        before, self._size = self._size, self._size + len(data)
        if self._size > self._max_file:
            raise too_large(self._max_file)
        if before < HEAD:
            self._head += data[: HEAD - before]
            if self._size >= HEAD and not plausible(head := bytes(self._head)):
                raise unlike(head)
        self._batch.feed(data)

    def take(self) -> list[memoryview]:
        return self._batch.take()

    def confirm(self) -> None:
        """Raise UnsupportedDocument if the whole file is too short to be a document."""
        if self._size <= HEAD and not plausible(head := bytes(self._head)):
            raise unlike(head)


class WholeBody(FileBody):
    """A FileBody that is the whole body of a request, which was declared to have so many bytes; 0: it was not."""

    def __init__(self, filename: str, declared: int, max_file: int) -> None:
        super().__init__(max_file)
        if declared > max_file:
            raise too_large(max_file)
        self.filename = filename
        self._declared = declared

    def finish(self) -> dict[str, bytes]:
        """Return that nothing came beside the file. Raises UnsupportedDocument, and BadRequest if a part is missing."""
        if self._declared and self._size != self._declared:
            raise BadRequest("The body is shorter than its Content-Length.")
        self.confirm()
        return {}


def too_large(max_file: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The file may have at most {max_file} bytes.")
