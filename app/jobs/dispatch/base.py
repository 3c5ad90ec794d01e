"""How a process is woken when there is a job to run. The database knows which jobs are due, and every process with
capacity looks there once a second: a wake-up that is lost, late or doubled changes nothing but the time to start."""

from typing import Protocol
from uuid import UUID


class Puller(Protocol):
    """The part of this process that pulls due jobs from the database and runs them."""

    async def until_free(self) -> None:
        """Return when this process has capacity for one more job. With JOB_CONCURRENCY=0 that is never.

        A wake-up counts as a job until the look that follows it has ended. Otherwise wake-ups would be received faster
        than they can be followed, and other processes would get none.
        """

    def wake(self, job_id: UUID) -> None:
        """Look for due jobs now. Returns at once and raises nothing; without capacity it does nothing."""


class Dispatcher(Protocol):
    """Carries wake-ups: the id of a job that is due, and nothing else."""

    @property
    def alarm(self) -> str | None:
        """What an operator should see to, in one line, or None. The process serves all the same."""

    async def open(self) -> None:
        """Connect, in the running event loop and for some seconds at most. Raises ConfigurationError for what only
        another setting can mend; a broker that is merely away is left to `run`."""

    async def run(self) -> None:
        """Stay connected and hand received wake-ups to the Puller, until cancelled."""

    async def send(self, job_id: UUID) -> None:
        """Wake a process that has capacity. Called after the answer was sent. Bounded by a timeout; raises nothing."""

    def stop(self) -> None:
        """Receive no more wake-ups, because the process is about to stop. Sending goes on."""

    async def close(self) -> None:
        """Disconnect, after `run` was cancelled."""
