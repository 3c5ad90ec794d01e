"""What the watcher remembers of the files that it has seen: since when they have not changed, and when to try again."""

import time
from dataclasses import dataclass, field

from app.inbox.base import Found

MOST = 10_000  # files that are remembered; others are taken when there is room again
LONGEST_DELAY = 600.0  # seconds between two attempts


@dataclass
class _Sighting:
    version: str
    since: float = field(default_factory=time.monotonic)
    failures: int = 0
    retry_at: float = 0
    look: int = 0


class Sightings:
    """A file is ready if it has not changed for `seconds`, as far as two looks so far apart can tell."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, _Sighting] = {}
        self._look = 0

    def is_ready(self, file: Found) -> bool:
        """Note what the file looks like now. Whether to take it."""
        seen = self._seen.get(file.name)
        if seen is None or seen.version != file.version:
            seen = _Sighting(file.version)
            if file.name in self._seen or len(self._seen) < MOST:
                self._seen[file.name] = seen
        seen.look = self._look
        now = time.monotonic()
        return now - seen.since >= self._seconds and now >= seen.retry_at

    def postpone(self, file: Found) -> None:
        """Try again later, each time after twice as long."""
        seen = self._seen.setdefault(file.name, _Sighting(file.version, look=self._look))
        seen.retry_at = time.monotonic() + delay(seen.failures, LONGEST_DELAY)
        seen.failures += 1

    def forget(self, file: Found) -> None:
        """The file is gone, or another one by now."""
        self._seen.pop(file.name, None)

    def end_look(self) -> None:
        """Forget what was not seen in this look, which was at all that there is."""
        self._seen = {name: seen for name, seen in self._seen.items() if seen.look == self._look}
        self._look += 1


def delay(failures: int, longest: float) -> float:
    """Seconds to wait after so many failures before: 1, 2, 4 and so on."""
    return min(2.0 ** min(failures, 30), longest)
