"""The events of an account's documents as they happen, as server-sent events (HTML Living Standard, section 9.2).

One reader for all streams of a process asks once a second what is new and whose session has ended.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app import events
from app.auth import credentials
from app.auth.principal import Principal
from app.database import Database
from app.errors import AppError, InsufficientScope, InvalidCursor, ShuttingDown, Unauthorized
from app.events import settled
from app.files.downloads import Downloads
from app.limiter import Usage
from app.web import pagination

log = structlog.get_logger()

POLL = 1.0  # seconds
HEARTBEAT = 15.0  # seconds; proxies close what is silent for a minute or less
LIFETIME = 3600.0  # seconds, after which a client has to connect again: one that reads nothing could stay for ever
_BEGIN = b"retry: 1000\n\n"  # milliseconds until a client connects again
_ALIVE = b":\n\n"
_PAGE = 100  # events


class _Stream:
    """One client that listens."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.ended = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self.ended = True
        self._woken.set()

    async def wait(self) -> bool:
        """Wait until there may be news; return whether there may, or False after HEARTBEAT."""
        try:
            async with asyncio.timeout(HEARTBEAT):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True


class Feed:
    """The streams of this process: at most `count`, which are shared by account as downloads are."""

    def __init__(self, db: Database, count: int) -> None:
        self._db = db
        self._limited = Downloads(count)
        self._streams: set[_Stream] = set()
        self._notes: deque[settled.Note] = deque()
        self._settled = 0
        self.closed = False

    @property
    def usage(self) -> Usage:
        """How many streams there are, and how many there can be."""
        return self._limited.usage

    async def stream(self, principal: Principal, after: str | None) -> AsyncIterator[bytes]:
        """The events after the one whose id was received last; without one, those that happen from now on.

        No event is left out and none comes twice, and those of one document come in their order. The stream ends with
        the session, with this process, and after LIFETIME. Raises InvalidCursor, TooBusy, ShuttingDown.
        """
        if self.closed:
            raise ShuttingDown
        start = await self._position(principal, after) if after else await self._now()
        return await self._limited.send(principal.owner_id, self._listen(principal, start))

    def close(self) -> None:
        """End all streams: the process is about to stop."""
        self.closed = True
        for stream in self._streams:
            stream.end()

    async def run(self) -> None:
        """Look for news while somebody listens, until cancelled."""
        while True:
            await asyncio.sleep(POLL)
            try:
                if self._streams:
                    await self._look()
            except AppError as error:
                log.warning("feed.skipped", reason=error.code)
            except Exception:
                log.exception("feed.failed")

    async def _position(self, principal: Principal, after: str) -> int:
        """The number of the event that the client has received last. Raises InvalidCursor if it is none of its own."""
        last = pagination.decode(after, "events", int)
        owner_id = await self._db.read(partial(events.owner_of, event=events.Reference(last.value, last.id)))
        if owner_id != principal.owner_id:
            raise InvalidCursor
        return int(last.value)

    async def _now(self) -> int:
        """The number that is settled once all has ended that is being written now. Later events have a higher one."""
        now = await self._db.read(settled.note)
        while True:
            if now.is_settled(await self._db.read(settled.note)):
                return now.latest
            await asyncio.sleep(POLL / 10)

    async def _listen(self, principal: Principal, position: int) -> AsyncIterator[bytes]:
        stream, loop = _Stream(principal), asyncio.get_running_loop()
        until = loop.time() + LIFETIME
        self._streams.add(stream)
        try:
            yield _BEGIN
            while not stream.ended and not self.closed and loop.time() < until:
                page = await self._db.read(partial(self._page, owner_id=principal.owner_id, after=position))
                if page:
                    position = page[-1][0]
                    yield b"".join(_message(seq, event) for seq, event in page)
                elif not await stream.wait():
                    yield _ALIVE
        except AppError as error:
            log.warning("feed.cut_off", reason=error.code)  # the client connects again
        finally:
            self._streams.discard(stream)

    def _page(self, conn: Connection, owner_id: UUID, after: int) -> list[tuple[int, events.DocumentEvent]]:
        return events.of_owner(conn, owner_id, after=after, upto=self._settled, limit=_PAGE)

    async def _look(self) -> None:
        """Wake the streams that have news, and end those of sessions that have ended."""
        now = await self._db.read(settled.note)
        self._notes.append(now)
        before = self._settled
        while self._notes and self._notes[0].is_settled(now):
            self._settled = self._notes.popleft().latest
        principals = {stream.principal for stream in self._streams}
        gone = await self._db.read(partial(_without_session, principals=principals))
        for stream in self._streams:
            if stream.principal in gone:
                stream.end()
            elif self._settled > before:
                stream.wake()


def _without_session(conn: Connection, principals: Collection[Principal]) -> set[Principal]:
    return {principal for principal in principals if not _is_valid(conn, principal)}


def _is_valid(conn: Connection, principal: Principal) -> bool:
    try:
        credentials.required(principal, lambda _: None)(conn)
    except (Unauthorized, InsufficientScope):
        return False
    return True


def _message(seq: int, event: events.DocumentEvent) -> bytes:
    cursor = pagination.encode("events", seq, event.id)
    return f"id: {cursor}\nevent: {event.event}\ndata: {event.model_dump_json()}\n\n".encode()
