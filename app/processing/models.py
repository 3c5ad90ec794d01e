"""Tables of jobs and results."""

from enum import StrEnum

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Uuid,
    text,
)

from app.database import UTCDateTime, metadata


class JobState(StrEnum):
    QUEUED = "QUEUED"
    """Accepted, or to be tried again. Moved on by a claim, or a cancellation."""

    RUNNING = "RUNNING"
    """Leased to a worker. Moved on by its outcome, by the loss of its lease, by a shutdown, or a cancellation."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def live(self) -> bool:
        return self in LIVE


LIVE = (JobState.QUEUED, JobState.RUNNING)
_STATES = ", ".join(f"'{state}'" for state in JobState)
_LIVE = text("state IN ('QUEUED', 'RUNNING')")
ENDED = text("state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')")
_QUEUED = text("state = 'QUEUED'")
_RUNNING = text("state = 'RUNNING'")

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE"), nullable=False),
    Column("owner_id", Uuid, nullable=False),
    Column("processor", String(50), nullable=False),
    Column("processor_version", String(50), nullable=False),
    Column("params", JSON, nullable=False),
    Column("state", String(9), nullable=False),
    # Rises with every claim and never falls: a worker with an older one has lost the job.
    Column("fence", Integer, nullable=False),
    # The retry budget used so far; a graceful shutdown gives its try back.
    Column("tries", Integer, nullable=False),
    Column("max_tries", Integer, nullable=False),
    Column("locked_by", String(100)),
    Column("locked_until", UTCDateTime),
    # Not to be claimed before `run_at`; to be announced (again) from `hint_at` on, which is later than `run_at` once a
    # hint was sent.
    Column("run_at", UTCDateTime, nullable=False),
    Column("hint_at", UTCDateTime, nullable=False),
    Column("progress", Float, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("dead", Boolean, nullable=False),
    Column("request_id", String(64)),
    Column("created_at", UTCDateTime, nullable=False),
    Column("started_at", UTCDateTime),
    Column("finished_at", UTCDateTime),
    CheckConstraint(f"state IN ({_STATES})", name="state"),
    Index("uq_jobs_live", "document_id", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),
    Index("ix_jobs_queued", "hint_at", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
    Index("ix_jobs_running", "locked_until", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
    Index(None, "document_id"),
    Index(None, "owner_id", "created_at", "id"),
    Index(None, "owner_id", "state", "created_at", "id"),
    Index("ix_jobs_ended", "state", sqlite_where=ENDED, postgresql_where=ENDED),
    Index(
        "ix_jobs_dead",
        "owner_id",
        "created_at",
        "id",
        sqlite_where=text("dead IS 1"),
        postgresql_where=text("dead IS true"),
    ),
)

# At most one a document: the current one.
results = Table(
    "results",
    metadata,
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
)
