"""How word of a runnable job reaches somebody who can run it."""

from typing import Protocol
from uuid import UUID


class Dispatcher(Protocol):
    """Carries hints. The database knows which jobs are due: that one is lost, late or doubled changes nothing."""

    @property
    def room(self) -> int:
        """How many hints would be of use if they were sent now: with none, due jobs are left to other processes. Where
        to send is to run, that is the places that are free."""

    @property
    def plenty(self) -> bool:
        """Whether so many hints wait that to repeat one would be of no use. A job that has none needs one all the
        same."""

    async def send(self, job_id: UUID) -> None:
        """Have the job run soon. Called after the answer was sent: it may take its time, and it raises nothing."""


class Carrier(Dispatcher, Protocol):
    """A Dispatcher as the process knows it that it lives in."""

    @property
    def alarm(self) -> str | None:
        """What an operator should look after, in one line. The process serves all the same."""

    async def open(self) -> None:
        """Connect, in the running event loop. Raises ConfigurationError for what only another setting can mend; a
        broker that is merely away is waited for by `run`."""

    async def run(self) -> None:
        """What goes on in the background, until cancelled."""

    def stop(self) -> None:
        """Take no more hints from others: the process is about to stop."""

    async def close(self) -> None:
        """Let go of everything, after `run` was cancelled."""
