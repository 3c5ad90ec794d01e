"""Without a broker, a process wakes itself."""

from uuid import UUID

from app.jobs.dispatch.base import Puller


class InProcessDispatcher:
    """Adapter of the Dispatcher port that needs no broker. Other processes find a due job within a second."""

    alarm = None

    def __init__(self, puller: Puller) -> None:
        self._puller = puller

    async def open(self) -> None:
        pass

    async def run(self) -> None:
        pass

    async def send(self, job_id: UUID) -> None:
        self._puller.wake(job_id)

    def stop(self) -> None:
        pass

    async def close(self) -> None:
        pass
