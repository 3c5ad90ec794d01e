"""Without a broker: a job is run by the process that accepted it, or by another one at its next look."""

from uuid import UUID

from app.jobs.dispatch.base import Puller


class InProcessDispatcher:
    """Adapter of the Dispatcher port that needs no broker: to send a wake-up is to pull."""

    alarm = None

    def __init__(self, puller: Puller) -> None:
        self._puller = puller

    async def open(self) -> None:
        """There is nothing to connect to."""

    async def run(self) -> None:
        """There is nothing to receive."""

    async def send(self, job_id: UUID) -> None:
        self._puller.wake(job_id)

    def stop(self) -> None:
        """There is nothing to receive."""

    async def close(self) -> None:
        """There is nothing to release."""
