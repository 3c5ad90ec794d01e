"""How word of a runnable job reaches somebody who can run it."""

from typing import Protocol
from uuid import UUID


class Dispatcher(Protocol):
    """Carries hints. The database knows which jobs are due: a hint may be lost, late or doubled, and changes nothing.

    Called after the answer was sent: it may take its time, and it raises nothing.
    """

    async def send(self, job_id: UUID) -> None:
        """Have the job run soon."""
