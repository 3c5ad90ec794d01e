"""The events of an account's documents as they happen, as server-sent events (HTML Living Standard, section 9.2).

One reader for all streams of a process asks once a second what is new and whose session has ended.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy import Connection

from app import events
from app.auth import credentials
from app.auth.principal import Principal, Scope
from app.database import Database
from app.errors import AppError, InvalidCursor, ShuttingDown
from app.events import settled
from app.files.downloads import Downloads
from app.limiter import Usage
from app.web import pagination

log = structlog.get_logger()

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would keep it back

POLL = 1.0  # seconds
HEARTBEAT = 15.0  # seconds; proxies close what is silent for a minute or less
LIFETIME = 3600.0  # seconds, after which a client has to connect again: one that reads nothing could stay for ever
_BEGIN = b"retry: 1000\n\n"  # milliseconds until a client connects again
_ALIVE = b":\n\n"
_CHANGED = b"event: changed\ndata:\n\n"
_BEAT = b"event: beat\ndata:\n\n"
_PAGE = 100  # events


def _clock() -> float:
    return asyncio.get_running_loop().time()


class _Stream:
    """One client that listens."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self._until = _clock() + LIFETIME
        self._ended = False
        self._woken = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self._ended or _clock() >= self._until

    def wake(self) -> None:
        self._woken.set()

    def end(self) -> None:
        self._ended = True
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

    async def hints(self, principal: Principal) -> AsyncIterator[bytes]:
        """`changed` when something has happened to the account's documents, to an operator to anybody's: once a second
        at most, and first of all at once. `beat` every HEARTBEAT without that, for what is no event.

        Whoever is told looks again: nothing is told of twice, or missed. The stream ends as others do. Raises TooBusy,
        ShuttingDown.
        """
        if self.closed:
            raise ShuttingDown
        return await self._limited.send(principal.owner_id, self._hint(principal))

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

    async def _hint(self, principal: Principal) -> AsyncIterator[bytes]:
        with self._listening(principal) as stream:
            position, of_all = self._settled, principal.needed is Scope.OPERATOR
            yield _BEGIN + _CHANGED
            while not stream.ended:
                is_news = await stream.wait()
                if is_news and not of_all:
                    upto = self._settled
                    read = partial(events.of_owner, owner_id=principal.owner_id, after=position, upto=upto, limit=1)
                    is_news, position = bool(await self._db.read(read)), upto
                yield _CHANGED if is_news else _BEAT

    async def _listen(self, principal: Principal, position: int) -> AsyncIterator[bytes]:
        with self._listening(principal) as stream:
            yield _BEGIN
            while not stream.ended:
                page = await self._db.read(partial(self._page, owner_id=principal.owner_id, after=position))
                if page:
                    position = page[-1][0]
                    yield b"".join(_message(seq, event) for seq, event in page)
                elif not await stream.wait():
                    yield _ALIVE

    @contextmanager
    def _listening(self, principal: Principal) -> Iterator[_Stream]:
        stream = _Stream(principal)
        self._streams.add(stream)
        try:
            yield stream
        except AppError as error:
            log.warning("feed.cut_off", reason=error.code)  # the client connects again
        finally:
            self._streams.discard(stream)

    def _page(self, conn: Connection, owner_id: UUID, after: int) -> list[tuple[int, events.DocumentEvent]]:
        return events.of_owner(conn, owner_id, after=after, upto=self._settled, limit=_PAGE)

    async def _look(self) -> None:
        """Wake the streams that have news, and end those of sessions that have ended."""
        principals = {stream.principal for stream in self._streams}
        now, gone = await self._db.read(partial(_news, principals=principals))
        self._notes.append(now)
        before = self._settled
        while self._notes and self._notes[0].is_settled(now):
            self._settled = self._notes.popleft().latest
        for stream in self._streams:
            if stream.principal in gone:
                stream.end()
            elif self._settled > before:
                stream.wake()


def _news(conn: Connection, principals: Collection[Principal]) -> tuple[settled.Note, set[Principal]]:
    """What is there now, and whose session has ended."""
    return settled.note(conn), {*principals} - credentials.good(conn, principals)


def _message(seq: int, event: events.DocumentEvent) -> bytes:
    cursor = pagination.encode("events", seq, event.id)
    return f"id: {cursor}\nevent: {event.event}\ndata: {event.model_dump_json()}\n\n".encode()
