"""The table of jobs, and a job as the code sees it.

A job is one piece of durable work. It knows neither documents nor HTTP: its kind says what running it means.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Uuid,
    and_,
    literal_column,
    text,
)

from app.database import UTCDateTime, metadata
from app.events.failure import Failure


class JobState(StrEnum):
    """Where a job stands. `QUEUED`, `RUNNING` and `WAITING` are live; the others are final."""

    QUEUED = "QUEUED"
    """Accepted, or to be tried again. A claim moves it on once `run_at` has come, or a cancellation."""

    RUNNING = "RUNNING"
    """Leased to a worker. Its outcome moves it on, the end of its lease, a shutdown, or a cancellation."""

    WAITING = "WAITING"
    """Somebody outside works on it and will call back. They renew the lease, and move it on as a worker does."""

    SUCCEEDED = "SUCCEEDED"
    """It did what it was to do. Final."""

    FAILED = "FAILED"
    """It gave up; `error` says why, and `dead` whether it used up its tries. Final."""

    CANCELLED = "CANCELLED"
    """Its owner ended it. Final."""

    @property
    def live(self) -> bool:
        """Whether the job can still change."""
        return self in LIVE


LIVE = (JobState.QUEUED, JobState.RUNNING, JobState.WAITING)
HELD = (JobState.RUNNING, JobState.WAITING)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
UNSUCCESSFUL = (JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row of the table, as of one moment."""

    id: UUID
    kind: str
    queue: str
    key: str | None
    args: dict[str, Any]
    owner_id: UUID
    document_id: UUID | None
    state: JobState
    fence: int
    tries: int
    max_tries: int
    run_at: datetime
    locked_by: str | None
    locked_at: datetime | None
    progress: float
    error: Failure | None
    dead: bool
    request_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def processor(self) -> str:
        """What the job is to run: the processor that its args name, or else what its kind does."""
        return str(self.args.get("processor", self.kind))

    @property
    def on_timeline(self) -> bool:
        """Whether its events are recorded, as those of its document, and counted. If not, they are only logged: its
        kind records and counts what comes of it."""
        return self.document_id is not None

    @classmethod
    def of(cls, row: Any) -> Self:
        """The job in a mapping of column names to values."""
        values = {name: row[name] for name in cls.__slots__}
        error = Failure.model_validate(values["error"]) if values["error"] else None
        return cls(**values | {"state": JobState(values["state"]), "error": error})


def _states(states: tuple[JobState, ...]) -> str:
    return "state IN ({})".format(", ".join(f"'{state}'" for state in states))


_QUEUED = text("state = 'QUEUED'")
_HELD = text(_states(HELD))
_ENDED = text(_states(ENDED))
_UNSUCCESSFUL = text(_states(UNSUCCESSFUL))
_DEAD: dict[str, Any] = {"sqlite_where": text("dead IS 1"), "postgresql_where": text("dead IS true")}
_LIVE = text("finished_at IS NULL")
_UNCLAIMED = text("finished_at IS NULL AND locked_until IS NULL")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", String(50), nullable=False, server_default="process"),
    # A process claims from the queues that it can serve: those of the kinds, and of the versions of code, that it has.
    Column("queue", String(120), nullable=False, server_default=""),
    # What at most one live job may be about, such as `document:<id>`. NULL: any number.
    Column("key", String(100)),
    Column("args", JSON, nullable=False, server_default="{}"),
    Column("owner_id", Uuid, nullable=False),
    # The document whose timeline the job's events belong to.
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE")),
    Column("state", String(9), nullable=False),
    # Rises with every claim and never falls: a worker with an older one has lost the job.
    Column("fence", Integer, nullable=False),
    # The claim whose outcome was written last. Tells a holder whose commit got no answer that it happened.
    Column("settled_fence", Integer),
    # The retry budget used so far; a graceful shutdown gives its try back.
    Column("tries", Integer, nullable=False),
    Column("max_tries", Integer, nullable=False),
    Column("locked_by", String(100)),
    # The lease: when it was taken or renewed, and when it ends.
    Column("locked_at", UTCDateTime),
    Column("locked_until", UTCDateTime),
    # Not to be claimed before `run_at`, which was set at `queued_at`.
    Column("run_at", UTCDateTime, nullable=False),
    Column("queued_at", UTCDateTime),
    # Its place in the order of its queue, see `turns.py`. NULL: it is not due yet, or the next poll assigns it.
    Column("turn", Float),
    Column("progress", Float, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("dead", Boolean, nullable=False),
    Column("request_id", String(64)),
    Column("created_at", UTCDateTime, nullable=False),
    Column("started_at", UTCDateTime),
    Column("finished_at", UTCDateTime),
    CheckConstraint(_states(tuple(JobState)), name="state"),
    # Not by state: PostgreSQL would take it for an index of the queued, and read all their dead versions.
    Index("uq_jobs_key", "key", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
    Index("ix_jobs_due", "queue", "run_at", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
    # Not by state either: with statistics of an empty queue, PostgreSQL would take the one above, and sort all of it.
    Index("ix_jobs_turn", "queue", "turn", "run_at", sqlite_where=_UNCLAIMED, postgresql_where=_UNCLAIMED),
    Index("ix_jobs_live", "owner_id", "queue", "turn", sqlite_where=_LIVE, postgresql_where=_LIVE),
    Index("ix_jobs_held", "locked_until", sqlite_where=_HELD, postgresql_where=_HELD),
    Index(None, "document_id", "created_at", "id"),
    Index(None, "owner_id", "created_at", "id"),
    Index(None, "owner_id", "state", "created_at", "id"),
    Index("ix_jobs_ended", "state", sqlite_where=_ENDED, postgresql_where=_ENDED),
    Index("ix_jobs_dead", "owner_id", "created_at", "id", **_DEAD),
    # For operators, who see the jobs of all.
    Index(None, "created_at", "id"),
    Index("ix_jobs_all_dead", "created_at", "id", **_DEAD),
    Index(
        "ix_jobs_unsuccessful",
        "state",
        "created_at",
        "id",
        sqlite_where=_UNSUCCESSFUL,
        postgresql_where=_UNSUCCESSFUL,
    ),
)

# Literals, not parameters: with those PostgreSQL could not know which of the indexes above have all such rows.
IS_QUEUED = jobs.c.state == literal_column("'QUEUED'")
IS_LIVE = jobs.c.finished_at.is_(None)
IS_UNSUCCESSFUL = jobs.c.state.in_([literal_column(f"'{state}'") for state in UNSUCCESSFUL])
IS_ENDED = jobs.c.state.in_([literal_column(f"'{state}'") for state in ENDED])
HELD_STATES: list[ColumnElement[str]] = [literal_column(f"'{state}'") for state in HELD]
IS_HELD = jobs.c.state.in_(HELD_STATES)
# As IS_QUEUED, but for the index of turns.
IS_UNCLAIMED = and_(jobs.c.finished_at.is_(None), jobs.c.locked_until.is_(None))
