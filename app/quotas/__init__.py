"""What each account uses, and how much it may: bytes, documents, announced uploads and live jobs.

Triggers of the database keep `usage` in the transaction of each change of a document, whoever makes it (migration
0010). A unit of work that adds something runs alone with its account (`Database.write`), checks the total at its end,
and is rolled back if that is too much.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple
from uuid import UUID

from pydantic import BaseModel, Field
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Integer,
    Table,
    Uuid,
    bindparam,
    literal_column,
    select,
)

from app.database import Prepared, insert_on_conflict, metadata
from app.errors import DocumentQuotaExceeded, StorageQuotaExceeded, TooManyJobs, TooManyUploads
from app.quotas.reserve import Reserve
from app.settings import Settings


def _of_user() -> Column[UUID]:
    return Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)


# An account without a row has never had a document.
usage = Table(
    "usage",
    metadata,
    _of_user(),
    # Announced files count with their announced size, rejected ones not at all, large results with their files' size.
    Column("bytes", BigInteger, nullable=False),
    Column("documents", Integer, nullable=False),
    # Direct uploads that are neither completed nor rejected.
    Column("announced", Integer, nullable=False),
    info={"derived": True},  # a copy of the documents brings it along
)

# What an operator has set for one account. NULL: as the settings say; 0: no limit.
quotas = Table(
    "quotas",
    metadata,
    _of_user(),
    Column("bytes", BigInteger),
    Column("documents", Integer),
    Column("announced", Integer),
    Column("jobs", Integer),
)

_NAMES = ("bytes", "documents", "announced", "jobs")
_ONE = select(literal_column("1").label("one")).subquery("one")
_READ = Prepared(
    select(
        *(usage.c[name] for name in _NAMES[:3]),
        *(quotas.c[name].label(f"quota_{name}") for name in _NAMES),
    ).select_from(
        _ONE.outerjoin(usage, usage.c.user_id == bindparam("user", type_=Uuid)).outerjoin(
            quotas, quotas.c.user_id == bindparam("user", type_=Uuid)
        )
    )
)

_MOST_JOBS = 1_000_000  # that are counted to be shown

CountJobs = Callable[[Connection, UUID, int], int]


class Usage(BaseModel):
    """What an account uses."""

    bytes: int = Field(
        description="Sizes of its files, as announced where they are not here yet, and of large results, compressed."
    )
    documents: int
    announced: int = Field(description="Direct uploads that are neither completed nor rejected.")
    jobs: int = Field(description="Jobs that are not finished.")


class Quota(BaseModel):
    """How much an account may use. null: no limit."""

    bytes: int | None
    documents: int | None
    announced: int | None
    jobs: int | None


class _Account(NamedTuple):
    """What an account uses but for its jobs, and its quota."""

    used: Mapping[str, int]
    quota: Mapping[str, int | None]


class Quotas:
    """Checks what accounts use. `live_jobs` counts the unfinished jobs of an owner, up to a number.

    `reserve` is what all accounts together must leave free.
    """

    def __init__(self, live_jobs: CountJobs, reserve: Reserve, settings: Settings) -> None:
        self.reserve = reserve
        self._live_jobs = live_jobs
        self._defaults = {name: getattr(settings, f"quota_{name}") for name in _NAMES}

    def check(self, conn: Connection, user_id: UUID, *, more_bytes: int = 0, more_documents: int = 0) -> None:
        """At the end of a unit that has added a document: raise StorageQuotaExceeded or DocumentQuotaExceeded if the
        account uses too much. Beforehand, `more_bytes` and `more_documents` are what will be added."""
        used, quota = self.check_bytes(conn, user_id, more_bytes)
        if _exceeds(used["documents"] + more_documents, quota["documents"]):
            raise DocumentQuotaExceeded(f"This account may have {quota['documents']} documents.")

    def check_bytes(self, conn: Connection, user_id: UUID, more_bytes: int = 0) -> _Account:
        """Do the same where no document is added: raise StorageQuotaExceeded."""
        account = self._read(conn, user_id)
        if _exceeds(account.used["bytes"] + more_bytes, account.quota["bytes"]):
            raise StorageQuotaExceeded(f"The files of this account may have {account.quota['bytes']} bytes.")
        return account

    def check_announced(self, conn: Connection, user_id: UUID) -> None:
        """At the end of a unit that has announced a document: raise as `check` does, or TooManyUploads."""
        self.check(conn, user_id)
        used, quota = self._read(conn, user_id)
        if _exceeds(used["announced"], quota["announced"]):
            raise TooManyUploads(f"This account may have {quota['announced']} announced uploads.")

    def check_jobs(self, conn: Connection, user_id: UUID, more: int = 1) -> None:
        """Before jobs are added: raise TooManyJobs if the account may not have so many more."""
        limit = self._read(conn, user_id).quota["jobs"]
        if limit is not None and self._live_jobs(conn, user_id, limit) + more > limit:
            raise TooManyJobs(f"This account may have {limit} unfinished jobs.")

    def of(self, conn: Connection, user_id: UUID) -> tuple[Usage, Quota]:
        """Return what an account uses, and its quota."""
        used, quota = self._read(conn, user_id)
        return Usage(**used, jobs=self._live_jobs(conn, user_id, _MOST_JOBS)), Quota(**quota)

    def _read(self, conn: Connection, user_id: UUID) -> _Account:
        row = _READ.one(conn, {"user": user_id})
        assert row is not None, "it is read from a constant"
        used = {name: row[name] or 0 for name in _NAMES[:3]}
        return _Account(used, {name: self._limit(name, row[f"quota_{name}"]) for name in _NAMES})

    def _limit(self, name: str, own: int | None) -> int | None:
        return (self._defaults[name] if own is None else own) or None


def own(conn: Connection, user_id: UUID) -> dict[str, int | None]:
    """What an operator has set for one account, by name. None: nothing, so it is as the settings say."""
    row = conn.execute(select(*(quotas.c[name] for name in _NAMES)).where(quotas.c.user_id == user_id)).one_or_none()
    return dict(row._asdict()) if row else dict.fromkeys(_NAMES)


def change(conn: Connection, user_id: UUID, limits: Mapping[str, int | None]) -> None:
    """Set quotas of one account, by their names. None: as the settings say; 0: no limit."""
    if limits:
        row = insert_on_conflict(conn, quotas).values(user_id=user_id, **limits)
        conn.execute(row.on_conflict_do_update(index_elements=["user_id"], set_=dict(limits)))


def _exceeds(used: int, limit: int | None) -> bool:
    return limit is not None and used > limit
