"""Jobs run in the process that sends the hint: in the BackgroundTask of a request, or in a sweep."""

from typing import Protocol
from uuid import UUID


class Places(Protocol):
    """Where jobs run in this process."""

    @property
    def free(self) -> int:
        """How many more jobs could run at once."""

    async def run(self, job_id: UUID) -> None:
        """Run the job, as soon as there is a place for it. Raises nothing."""


class InProcessDispatcher:
    """Adapter of the Dispatcher port that needs no broker: sending a hint is running the job."""

    plenty = False
    alarm = None

    def __init__(self, places: Places) -> None:
        self._places = places

    @property
    def room(self) -> int:
        return self._places.free

    async def open(self) -> None:
        pass

    async def run(self) -> None:
        pass

    async def send(self, job_id: UUID) -> None:
        await self._places.run(job_id)

    def stop(self) -> None:
        pass

    async def close(self) -> None:
        pass
