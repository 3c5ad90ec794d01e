"""Jobs run in the server process itself, in the BackgroundTask of the request that accepted them."""

from collections.abc import Awaitable, Callable
from uuid import UUID


class InProcessDispatcher:
    """Adapter of the Dispatcher port that needs no broker: sending a hint is running the job."""

    def __init__(self, run: Callable[[UUID], Awaitable[None]]) -> None:
        self._run = run

    async def send(self, job_id: UUID) -> None:
        await self._run(job_id)
