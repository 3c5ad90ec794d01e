"""For a process that runs no jobs: what the broker does not take is lost, and a sweep of another process finds it."""

from uuid import UUID


class Nowhere:
    """A Dispatcher that has nobody to run a job."""

    room = 0
    plenty = False

    async def send(self, job_id: UUID) -> None:
        pass
