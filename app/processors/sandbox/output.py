"""What a child prints: JSON lines, as `ConfinedChild` reads them."""

import io
import json
import sys
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

PIECE = 256 * 1024  # bytes of a file in one line
MAX_LINE = 512 * 1024  # bytes of such a line, at the most


def emit(line: Mapping[str, Any]) -> None:
    """Print one line of output."""
    sys.stdout.buffer.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    sys.stdout.buffer.flush()


class HandedFile(io.RawIOBase):
    """A file that is written to the parent, which is told this of it. Nothing else is emitted until `end`."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._held = bytearray()
        emit({"file": told})

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        while len(self._held) >= PIECE:
            self._emit_piece()
        return len(data)

    def end(self) -> None:
        """Emit what is left, and the end."""
        if self._held:
            self._emit_piece()
        emit({"data": ""})

    def _emit_piece(self) -> None:
        emit({"data": b64encode(self._held[:PIECE]).decode()})
        del self._held[:PIECE]
