"""What a kind of job must say, and how an attempt can end.

`jobs/` owns everything that is the same for all durable work: the queue, the lease, the fence, retries and their
budget. A kind adds what running means, and what follows from the end in the same transaction.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection

from app.events.failure import Failure
from app.jobs.models import Job, JobState

Report = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The work is done. `value` is what the kind publishes, and `settled` is told whether it was, once that is certain.

    `alone`: nothing else may be added for the owner meanwhile, because of quotas.
    """

    value: Any
    settled: Callable[[bool], Awaitable[None]] | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The work failed for good, whatever tries are left. `value` is what the kind records of the attempt."""

    error: Failure
    value: Any = None


@dataclass(frozen=True, slots=True)
class Retryable:
    """This attempt failed; another one may not. It begins after `delay` seconds; None: after the kind's `backoff`.

    `value` is what the kind records of the attempt.
    """

    error: Failure
    delay: float | None = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class Released:
    """A shutdown ended the attempt. The job goes back to the queue, and its try is refunded."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody outside goes on with the work, under this fence. The lease lasts `seconds` unless they renew it."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Postponed:
    """The work could not begin. The job goes back to the queue for `seconds`, and its try is refunded."""

    seconds: float


Outcome = Succeeded | Failed | Retryable | Released | Waiting | Postponed


class Refused(Exception):
    """Raised by `ended`: what an attempt has made cannot be published. It comes to another outcome instead."""

    def __init__(self, outcome: Failed | Retryable) -> None:
        super().__init__(outcome.error.detail)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended: its final state, with the value of a success or the error of anything else.

    `dead`: it used up its tries.
    """

    state: JobState
    value: Any = None
    error: Failure | None = None
    dead: bool = False

    @property
    def outcome(self) -> str:
        """The end in a word, for metrics."""
        return "dead" if self.dead else self.state.lower()


class Kind(Protocol):
    """One kind of durable work.

    Obligations: `run` does not block the event loop, and ends promptly when it is cancelled. It may be run more than
    once for one job, so whatever it does elsewhere must be idempotent.
    """

    @property
    def name(self) -> str:
        """What the column `kind` holds."""

    @property
    def queues(self) -> Mapping[str, int | None]:
        """The queues that this process can serve, each with the number of attempts that it makes at once.

        None: as many as JOB_CONCURRENCY. A queue names everything that a process must have to run its jobs, such as
        the version of a processor. Jobs in other queues are left to other processes.
        """

    @property
    def timeout(self) -> float:
        """Seconds that one attempt may take."""

    def backoff(self, attempt: int) -> float:
        """Seconds from the failure of an attempt, which counts from 1, to the next one."""

    async def run(self, job: Job, report: Report) -> Outcome:
        """Make one attempt. `report` takes its progress, from 0 to 1.

        Whatever is raised counts as Retryable; SystemExit and KeyboardInterrupt count as Failed.
        """

    def settled(self, conn: Connection, job: Job, outcome: Outcome) -> None:
        """Do what follows from an attempt, in the transaction that settles it; `ended` follows if it was the last.

        An attempt whose lease was lost is Retryable, and settled by whoever rescues the job.
        """

    def ended(self, conn: Connection, job: Job, end: End) -> None:
        """Do what follows from the end of a job, in the transaction that ends it. Raises Refused for a success."""


Kinds = Mapping[str, Kind]
"""The kinds of job that this process knows, by name."""
