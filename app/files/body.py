"""The bytes of a file as they arrive, refused as soon as they show that the file will be."""

from app.errors import PayloadTooLarge
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


def too_large(max_file: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The file may have at most {max_file} bytes.")
