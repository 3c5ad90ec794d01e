"""The queues of remote processors: no attempt is made here, but workers elsewhere wait here for what is due."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from uuid import UUID

from app.jobs.pauses import Pauses
from app.jobs.turns import Turns
from app.processing.queues import queue_of
from app.remote.processors import RemoteProcessor


class RemoteQueues:
    """What polls tell of the queues, as they tell a runner, and those who wait for it."""

    elsewhere = True

    def __init__(self, processors: Iterable[RemoteProcessor], turns: Turns) -> None:
        self.processors = {queue_of(each.name, each.version): each for each in processors}
        self.turns = turns
        self.pauses = Pauses()
        self.closed = False
        self.in_vain: dict[str, asyncio.Event] = {}
        """The wake-up that came next, when somebody last looked into a queue and found nothing."""
        self._woken = asyncio.Event()

    @property
    def queues(self) -> Sequence[str]:
        """Those that workers elsewhere can claim from through this process."""
        return list(self.processors)

    def named(self, processor: str) -> tuple[str, RemoteProcessor] | None:
        """The queue of a processor, and the processor."""
        return next((each for each in self.processors.items() if each[1].name == processor), None)

    def wake(self, job_id: UUID | None = None) -> None:
        """Have all who wait look again: a job may be due. To lose a wake-up, or get it twice, changes nothing."""
        self._woken.set()
        self._woken = asyncio.Event()

    @property
    def woken(self) -> asyncio.Event:
        """What the next wake-up sets. Ask for it before a look: no wake-up is lost between that and `until`."""
        return self._woken

    async def until(self, woken: asyncio.Event, seconds: float) -> None:
        """Return at the wake-up, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await woken.wait()

    def close(self) -> None:
        """Let those who wait go: the process is about to stop."""
        self.closed = True
        self.wake()
