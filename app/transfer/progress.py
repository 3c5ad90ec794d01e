"""What an operator sees of a long transfer."""

import time
from collections.abc import Callable

EVERY = 5.0  # seconds between two lines


class Progress:
    """Tells how far it is, now and then."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told_at = time.monotonic()

    def at(self, line: str) -> None:
        if time.monotonic() - self._told_at > EVERY:
            self._tell(line)
            self._told_at = time.monotonic()
