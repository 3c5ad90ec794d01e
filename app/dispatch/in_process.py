"""Jobs run in the process that sends the hint: in the BackgroundTask of a request, or in a sweep."""

from collections.abc import Awaitable, Callable
from uuid import UUID


class InProcessDispatcher:
    """Adapter of the Dispatcher port that needs no broker: sending a hint is running the job."""

    ready = True
    alarm = None

    def __init__(self, run: Callable[[UUID], Awaitable[None]]) -> None:
        self._run = run

    async def open(self) -> None:
        pass

    async def run(self) -> None:
        pass

    async def send(self, job_id: UUID) -> None:
        await self._run(job_id)

    def stop(self) -> None:
        pass

    async def close(self) -> None:
        pass
