"""Erasing an account: all that it owns goes, wherever it is; what is left of it is counted, with the reason."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from app import errors, events, idempotency
from app.auth import sessions, users
from app.auth.keys import repository as api_keys
from app.database import Database
from app.documents import holds, repository as documents, trash
from app.documents.search import index_documents
from app.events.catalogue.accounts import UserErased
from app.files import repository as files
from app.files.orphans import Orphans
from app.jobs import repository as jobs
from app.processing import previous, results
from app.processing.stages import kept
from app.webhooks import repository as webhooks

_PAGE = 500  # events, or files, that are read at once
_NAMED = 10  # documents on hold that are named

WHY_EVENTS = (
    "the audit trail: who did what, and when. An event has ids, sizes and hashes, a failed login the network "
    "that it came from, and what operators did their reasons; none has an address, a name or a text of the account"
)
WHY_COPIES = "backups, and old versions of objects in a bucket, have what they had until they are removed"


class Left(BaseModel):
    """Something that is left of an erased account, and why. `count`: None where this service cannot know it."""

    what: str
    count: int | None
    until: str
    why: str


class Erased(BaseModel):
    """What was deleted with an account, and what is left of it."""

    user_id: UUID
    documents: int
    trashed: int
    files: int
    left: list[Left] = []


class LeftEvent(BaseModel):
    """An event that is left. Its id is that of the audit trail."""

    event_id: UUID
    event: str


class Erasure:
    """Erases an account that is disabled. `events_ttl`: seconds that events are kept; 0: for ever."""

    def __init__(self, db: Database, orphans: Orphans, events_ttl: float) -> None:
        self._db = db
        self._orphans = orphans
        self._events_ttl = events_ttl

    async def require_allowed(self, user_id: UUID) -> None:
        """Raise OnHold if something must not be removed, and Skipped if the files may be another database's."""
        if held := await self._db.read(partial(holds.of_owner, owner_id=user_id, limit=_NAMED)):
            raise errors.OnHold(f"Release what is on hold first: {', '.join(map(str, held))}.")
        await self._orphans.claim.confirm()

    async def run(self, user_id: UUID) -> Erased:
        """Delete all that the account owns, and at last the account.

        May be repeated: after a failure, the rest is deleted. Raises OnHold or Conflict if a document was put on hold,
        or came, meanwhile.
        """
        more = [key for find in _KEYS for key in await self._db.read(partial(find, owner_id=user_id))]
        stored, trashed = await self._db.read(partial(trash.count, owner_id=user_id))
        erased = Erased(user_id=user_id, documents=0, trashed=trashed, files=stored + len(more))
        while keys := await self._db.write(partial(trash.purge_of_owner, owner_id=user_id)):
            await self._orphans.claim.confirm_deletion()
            await self._orphans.remove(keys)
            erased.documents += len(keys)
        await self._remove_discarded(more)
        await self._db.read(partial(_require_none, user_id=user_id))
        await index_documents(self._db)  # which forgets the names and descriptions of those that were deleted
        await self._repeat(partial(webhooks.remove_of_owner, owner_id=user_id))
        await self._repeat(partial(jobs.remove_of_owner, owner_id=user_id))
        await self._repeat(partial(idempotency.forget_user, user_id=user_id))
        await self._repeat(partial(sessions.remove_of_user, user_id=user_id))
        await self._repeat(partial(api_keys.remove_of_user, user_id=user_id))
        await self._db.write(partial(_remove, user_id=user_id))
        erased.left = [await self._events_left(user_id), Left(what="copies", count=None, until="", why=WHY_COPIES)]
        return erased

    async def _remove_discarded(self, keys: Sequence[str]) -> None:
        """Remove those of the files whose rows went: a document that was put on hold meanwhile has kept its own."""
        for some in (keys[start : start + _PAGE] for start in range(0, len(keys), _PAGE)):
            known = await self._db.read(partial(files.known, keys=some))
            await self._orphans.remove([key for key in some if known.get(key, True)])

    async def events(self, user_id: UUID) -> AsyncIterator[LeftEvent]:
        """Yield the events that are left of an account, oldest first."""
        after = 0
        while page := await self._db.read(partial(_events, user_id=user_id, after=after)):
            for after, found in page:  # noqa: B007 - the last one is where the next page begins
                yield found

    async def _events_left(self, user_id: UUID) -> Left:
        count = await self._db.read(lambda conn: sum(conn.scalar(each) or 0 for each in _counts(user_id)))
        days = self._events_ttl / 86400
        until = f"{days:.0f} days after each (EVENTS_TTL)" if days else "for ever (EVENTS_TTL is 0)"
        return Left(what="events", count=count, until=until, why=WHY_EVENTS)

    async def _repeat(self, batch: Callable[[Connection], bool]) -> None:
        while await self._db.write(batch):
            pass


_KEYS: tuple[Callable[..., list[str]], ...] = (
    results.keys_of_owner,
    previous.keys_of_owner,
    kept.keys_of_owner,
)
"""Find the keys of what an owner has besides the files of documents."""


def _of_user(user_id: UUID) -> list[ColumnElement[bool]]:
    """The conditions of the events of a user, each of which has an index: of documents, and of none."""
    own, document = events.events.c.user_id == user_id, events.events.c.document_id
    return [and_(own, document.is_not(None)), and_(own, document.is_(None))]


def _counts(user_id: UUID) -> list[Select[Any]]:
    return [select(func.count()).select_from(events.events).where(each) for each in _of_user(user_id)]


def _events(conn: Connection, user_id: UUID, after: int) -> list[tuple[int, LeftEvent]]:
    table = events.events
    found = select(table.c.seq, table.c.id, table.c.event).where(table.c.seq > after).order_by(table.c.seq).limit(_PAGE)
    rows = [row for each in _of_user(user_id) for row in conn.execute(found.where(each))]
    rows = sorted(rows, key=attrgetter("seq"))[:_PAGE]
    return [(row.seq, LeftEvent(event_id=row.id, event=row.event)) for row in rows]


def _require_none(conn: Connection, user_id: UUID) -> None:
    """Raise OnHold or Conflict if the account has a document."""
    if holds.of_owner(conn, user_id, 1):
        raise errors.OnHold("A document was put on hold just now. Release it, and run this again.")
    if documents.owns_any(conn, user_id):
        raise errors.Conflict("A document is still there: an upload or a job ended just now. Run this again.")


def _remove(conn: Connection, user_id: UUID) -> None:
    _require_none(conn, user_id)
    users.remove(conn, user_id)
    users.record(conn, UserErased(), user_id)
