"""How word of a due job reaches somebody who can run it."""

from typing import Protocol
from uuid import UUID


class Puller(Protocol):
    """What pulls due jobs from the database, as a dispatcher knows it."""

    async def until_free(self) -> None:
        """Return when this process has capacity for one more job. With no capacity at all it never does."""

    def wake(self, job_id: UUID) -> None:
        """Look for due jobs now. Returns at once, and raises nothing."""


class Dispatcher(Protocol):
    """Carries wake-ups: a job's id and nothing else.

    The database knows which jobs are due, and every process with capacity looks there once a second. So a wake-up that
    is lost, late or doubled changes nothing but the time until a job begins.
    """

    @property
    def alarm(self) -> str | None:
        """What an operator should look after, in one line; None: nothing. The process serves all the same."""

    async def open(self) -> None:
        """Connect, in the running event loop. Raises ConfigurationError for what only another setting can mend; `run`
        goes on trying to reach a broker that is merely away."""

    async def run(self) -> None:
        """Stay connected, receive wake-ups and hand them to the puller, until cancelled."""

    async def send(self, job_id: UUID) -> None:
        """Wake somebody. Called after the answer was sent: it may take a moment, and it raises nothing."""

    def stop(self) -> None:
        """Hand on no more wake-ups: the process is about to stop."""

    async def close(self) -> None:
        """Release every connection, after `run` was cancelled."""
