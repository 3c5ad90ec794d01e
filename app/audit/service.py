"""Reading the audit trail, which is an event itself."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from pydantic_core import to_jsonable_python

from app import events
from app.audit import listing
from app.audit.listing import Found, Span
from app.audit.schemas import AuditItem, AuditPage, Filters
from app.audit.verify import Verification
from app.auth.principal import Principal
from app.database import Database
from app.events.catalogue.operators import AuditExported, AuditRead, OperatorRead
from app.files.downloads import Downloads
from app.telemetry import context
from app.web import pagination

PIECE = 2000  # numbers that an export reads at once
VERIFIED = 1000  # events that are verified while others wait, or somewhat more

FREE_TEXT = frozenset({"folder", "q", "search", "tag"})  # filters that events leave out: they hold no names

_NOBODY = UUID(int=0)  # a cursor of events is their number alone


class AuditTrail:
    """Reads the events of all accounts, and for each account its own."""

    def __init__(self, db: Database, downloads: Downloads) -> None:
        self._db = db
        self._downloads = downloads

    async def find(self, filters: Filters, limit: int, cursor: str | None) -> AuditPage:
        """A page of the events that match the filters, the latest first. Raises InvalidCursor."""
        page = await self._page("audit", cursor, partial(listing.page, filters=filters, limit=limit))
        await self._db.write(partial(events.append, event=AuditRead(filters=filters.shown)))
        return page

    async def note(self, operation: str, filters: Mapping[str, Any], about: UUID | None = None) -> None:
        """Record that an operator has read what accounts have, or `about` which one. Raises StorageFull."""
        told = {name: value for name, value in filters.items() if value is not None and name not in FREE_TEXT}
        event = OperatorRead(operation=operation, filters=to_jsonable_python(told))
        await self._db.write(partial(events.append, event=event, user_id=about))

    async def activity(self, principal: Principal, limit: int, cursor: str | None) -> AuditPage:
        """A page of what happened to the principal's account, the latest first. Raises InvalidCursor."""
        find = partial(listing.of_account, user_id=principal.owner_id, limit=limit)
        page = await self._page("activity", cursor, find)
        for item in page.items:
            if item.actor.startswith(context.OPERATOR):  # from where operators work is not the account's to know
                item.ip = item.credential_id = None
        return page

    async def verify(self) -> Verification:
        """Verify the latest VERIFIED events, and those that were sealed with the first of them."""
        verification = Verification(self._db.audit_keys, batch=100)
        await verification.run_latest(self._db, VERIFIED)
        return verification

    async def export(self, principal: Principal, filters: Filters) -> AsyncIterator[bytes]:
        """The events that match the filters and have happened by now, the oldest first: a line of JSON each.

        Raises TooBusy, Unavailable.
        """
        span = await self._db.read(partial(listing.span_of, filters=filters))
        await self._db.write(partial(events.append, event=AuditExported(filters=filters.shown)))
        return await self._downloads.send(principal.owner_id, self._lines(filters, span))

    async def _page(self, order: str, cursor: str | None, find: "partial[Found]") -> AuditPage:
        before = int(pagination.decode(cursor, order, int).value) if cursor else None
        found = await self._db.read(partial(find, before=before))
        end = None if found.before is None else pagination.encode(order, found.before, _NOBODY)
        return AuditPage(items=[AuditItem.model_validate(row) for row in found.rows], next_cursor=end)

    async def _lines(self, filters: Filters, span: Span) -> AsyncIterator[bytes]:
        """In pieces, between which nothing is held: neither a transaction nor a connection."""
        for first in range(span.first, span.last + 1, PIECE):
            piece = Span(first, min(first + PIECE - 1, span.last))
            rows = await self._db.read(partial(listing.following, filters=filters, span=piece))
            yield b"".join(AuditItem.model_validate(row).model_dump_json().encode() + b"\n" for row in rows)
