"""Progress of a long transfer, for the operator."""

import time
from collections.abc import Callable

INTERVAL = 5.0  # seconds between two lines


class Progress:
    """Passes lines on to `report`, at most one per INTERVAL."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._reported_at = time.monotonic()

    def at(self, line: str) -> None:
        """Report a line, unless the last one was reported only just now."""
        if time.monotonic() - self._reported_at > INTERVAL:
            self._report(line)
            self._reported_at = time.monotonic()
