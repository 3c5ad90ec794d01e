"""Streams of events: complete and in order under many writers, resumed without a gap, and ended when they must be."""

import asyncio
import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import event

from app import events
from app.auth import credentials, sessions, users
from app.auth.principal import SCOPES_OF, Principal, Role, Scope
from app.database import Database
from app.documents import feed as module
from app.documents.feed import Feed
from app.errors import InvalidCursor, ShuttingDown, TooBusy
from app.events.catalogue.documents import DocumentInitiated
from app.files import downloads
from app.settings import Settings
from app.telemetry import context
from tests.support import databases
from tests.support.server import Server
from tests.support.user import User

CURL = shutil.which("curl") or "curl"


class Reader(threading.Thread):
    """Reads a stream until it ends."""

    def __init__(self, user: User, **options: Any) -> None:
        super().__init__(daemon=True)
        self.user, self.options = user, options
        self.messages: list[dict[str, str]] = []
        self.complete = False
        self.began = threading.Event()
        self.start()
        assert self.began.wait(20)

    def run(self) -> None:
        with suppress(httpx2.TransportError):  # the server is gone
            self.read()
            self.complete = True

    def read(self) -> None:
        message: dict[str, str] = {}
        token = {"Authorization": self.user.http.headers["Authorization"]}
        with (
            httpx2.Client(base_url=self.user.server.url, headers=token, timeout=30) as http,
            http.stream("GET", "/events", **self.options) as response,
        ):
            self.headers = response.headers
            for line in response.iter_lines():
                self.began.set()
                name, _, value = line.partition(": ")
                if value:
                    message[name] = value
                elif "data" in message:
                    self.messages.append(message)
                    message = {}
        self.began.set()

    def told(self) -> list[tuple[str, str]]:
        """Each document and what happened to it."""
        data = [json.loads(message["data"]) for message in self.messages]
        return [(each["document_id"], each["event"]) for each in data]


def until_told(reader: Reader, event: str, times: int = 1) -> None:
    deadline = time.monotonic() + 20
    while [name for _, name in reader.told()].count(event) < times:
        assert time.monotonic() < deadline, reader.told()
        time.sleep(0.05)


def test_what_a_stream_tells_and_how_it_goes_on(user: User, stranger: User) -> None:
    reader = Reader(user)
    assert reader.headers["content-type"].startswith("text/event-stream")
    assert (reader.headers["cache-control"], reader.headers["x-accel-buffering"]) == ("no-store", "no")
    stranger.upload()
    first, second = user.upload()["id"], user.upload()["id"]
    user.http.delete(f"/documents/{first}")
    until_told(reader, "document.deleted")
    assert reader.told() == [
        (first, "document.uploaded"),
        (second, "document.uploaded"),
        (first, "document.deleted"),
    ]
    items = user.http.get(f"/documents/{second}/timeline").json()["items"]
    assert json.loads(reader.messages[1]["data"]) == items[0] | {"document_id": second}
    user.http.delete(f"/documents/{second}")
    for options in (
        {"headers": {"Last-Event-ID": reader.messages[0]["id"]}},
        {"params": {"after": reader.messages[0]["id"]}},
    ):
        resumed = Reader(user, **options)
        until_told(resumed, "document.deleted", 2)
        assert resumed.told() == [*reader.told()[1:3], (second, "document.deleted")]
    for wrong in ("x", reader.messages[0]["id"][:-4]):
        refused = user.http.get("/events", params={"after": wrong}).json()
        assert (refused["code"], refused["errors"][0]["pointer"]) == ("invalid-cursor", "/query/after")
        refused = user.http.get("/events", headers={"Last-Event-ID": wrong}).json()
        assert (refused["code"], refused["errors"][0]["pointer"]) == ("invalid-cursor", "/header/Last-Event-ID")
    theirs = stranger.http.get("/events", params={"after": reader.messages[0]["id"]})
    assert (theirs.status_code, theirs.json()["code"]) == (422, "invalid-cursor")
    assert user.http.head("/events").headers["content-type"].startswith("text/event-stream")


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_a_stream_ends_with_its_session_and_with_the_server(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"EVENT_STREAMS": "4"}) as server:
        ada, bob = server.register(), server.register()
        readers = [Reader(ada), Reader(bob)]
        token = bob.http.headers["Authorization"]
        command = [CURL, "-sSN", "-H", f"Authorization: {token}", f"{server.url}/events"]
        curl = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert curl.stdout is not None
        assert curl.stdout.readline() == "retry: 1000\n"
        ada.http.post("/auth/logout", json={"refresh_token": ada.tokens["refresh_token"]})
        readers[0].join(5)
        assert readers[0].complete
        document_id = bob.upload()["id"]
        until_told(readers[1], "document.uploaded")
        asked_at = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - asked_at < 3
        readers[1].join(1)
        assert readers[1].complete
        rest, _ = curl.communicate(timeout=5)
        assert curl.returncode == 0, "the answer is complete"
        assert f'"document_id":"{document_id}"' in rest


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def principal(owner_id: UUID) -> Principal:
    return Principal(owner_id, context.user(owner_id), SCOPES_OF[Role.USER], via="jwt")


def messages(chunk: bytes) -> list[tuple[str, int]]:
    """The id of each message, and the number that the test has given its event."""
    parts = [
        dict(line.split(": ", 1) for line in part.split("\n")) for part in chunk.decode().split("\n\n") if ": " in part
    ]
    return [(part["id"], json.loads(part["data"])["data"]["size"]) for part in parts if "data" in part]


class Listening:
    """A feed on a database of its own, all of whose sessions are alive."""

    def __init__(self, db: Database) -> None:
        self.db, self.feed = db, Feed(db, 256)
        self.owner = uuid4()

    async def write(self, number: int, pause: float = 0, owner: UUID | None = None) -> None:
        def unit(conn: Any) -> None:
            event = DocumentInitiated(size=number, sha256=None, content_type="x")
            events.append(conn, event, user_id=owner or self.owner, document_id=uuid4())
            if pause and conn.dialect.name == "postgresql":
                conn.exec_driver_sql(f"SELECT pg_sleep({pause})")

        with context.acting("user:x"):
            await self.db.write(unit)

    async def read(self, count: int, after: str | None = None) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        stream = await self.feed.stream(principal(self.owner), after)
        async for chunk in stream:
            found += messages(chunk)
            if len(found) >= count:
                break
        await stream.aclose()
        return found


@pytest.fixture
async def listening(tmp_path: Path) -> Any:
    data_dir = tmp_path / "var"
    databases.prepare(data_dir)
    db = databases.database(data_dir, pool_size=12)
    listening = Listening(db)
    with patch.object(module, "POLL", 0.05), patch.object(credentials, "good", lambda _, given: set(given)):
        reading = asyncio.create_task(listening.feed.run())
        yield listening
        reading.cancel()
        await asyncio.wait([reading])
    await db.close()


async def test_nothing_is_lost_under_many_writers_and_nothing_comes_twice(listening: Listening) -> None:
    """Also events that are committed long after others with a higher number."""
    numbers = range(1, 201)
    readers = [asyncio.create_task(listening.read(len(numbers))) for _ in range(3)]
    await until(lambda: listening.feed.usage.used == len(readers))
    await asyncio.gather(*(listening.write(number, pause=0.4 if number % 50 == 0 else 0) for number in numbers))
    await asyncio.gather(*(listening.write(0, owner=uuid4()) for _ in range(10)))
    told = await asyncio.wait_for(asyncio.gather(*readers), 60)
    for each in told:
        assert sorted(number for _, number in each) == list(numbers)
        assert each == told[0], "all see the same order"
    middle = told[0][len(numbers) // 2][0]
    rest = await asyncio.wait_for(listening.read(99, middle), 10)
    assert rest == told[0][len(numbers) // 2 + 1 :], "whatever was written last, it goes on where it was"


async def test_streams_are_bounded_and_alive(listening: Listening) -> None:
    with patch.object(module, "HEARTBEAT", 0.01), patch.object(downloads, "DOWNLOAD_TIMEOUT", 0.1):
        listening.feed = Feed(listening.db, 2)
        stream = await listening.feed.stream(principal(uuid4()), None)
        assert [await anext(stream) for _ in range(3)] == [b"retry: 1000\n\n", b":\n\n", b":\n\n"]
        other = await listening.feed.stream(principal(uuid4()), None)
        with pytest.raises(TooBusy):
            await listening.feed.stream(principal(uuid4()), None)
        await other.aclose()
        await until(lambda: listening.feed.usage.used == 1)
        with patch.object(module, "LIFETIME", 0):
            brief = await listening.feed.stream(principal(uuid4()), None)
            assert [each async for each in brief] == [b"retry: 1000\n\n"]
    for wrong in ("x", "WyJldmVudHMiLDEsIjAxOTM5ZjNlLTVjMDAtNzAwMC04MDAwLTAwMDAwMDAwMDAwMyJd"):
        with pytest.raises(InvalidCursor):
            await listening.feed.stream(principal(uuid4()), wrong)
    listening.feed.close()
    assert [each async for each in stream] == []
    with pytest.raises(ShuttingDown):
        await listening.feed.stream(principal(uuid4()), None)


async def test_sessions_of_all_streams_are_looked_at_by_one_statement(tmp_path: Path) -> None:
    databases.prepare(tmp_path / "var")
    db, settings = databases.database(tmp_path / "var"), Settings(_env_file=None)
    feed, said = Feed(db, 256), list[str]()

    def sign_in(conn: Any) -> list[Principal]:
        with context.acting("user:x"):
            owners = [users.add(conn, f"{number}@example.com", "x").id for number in range(100)]
        begun = [sessions.begin(conn, owner, settings) for owner in owners]
        return [replace(principal(each.user_id), credential_id=each.session_id) for each in begun]

    def look(conn: Any) -> Any:
        said.clear()
        if conn.dialect.name == "sqlite":  # some of what is said to its driver does not go through SQLAlchemy
            conn.connection.driver_connection.set_trace_callback(said.append)
        else:
            event.listen(conn, "before_cursor_execute", lambda *given: said.append(given[2]))
        return set(signed_in) - credentials.good(conn, signed_in)

    signed_in = await db.write(sign_in)
    streams = [await feed.hints(each) for each in signed_in]
    for stream in streams:
        await anext(stream)
    assert await db.read(look) == set()
    assert len([each for each in said if "token_families" in each]) == 1
    ended, disabled, demoted = signed_in[:3]
    await db.write(lambda conn: sessions.end(conn, sessions.by_id(ended.credential_id)))
    await db.write(lambda conn: users.change(conn, disabled.owner_id, active=False))
    signed_in[2] = demoted = replace(demoted, needed=Scope.OPERATOR)
    stolen = replace(signed_in[3], owner_id=signed_in[4].owner_id)
    signed_in.append(stolen)
    assert await db.read(look) == {ended, disabled, demoted, stolen}
    with patch.object(module, "POLL", 0.05):
        reading = asyncio.create_task(feed.run())
        for each in streams[:2]:
            assert b"changed" not in b"".join([message async for message in each])
        reading.cancel()
    assert feed.usage.used == 98
    for stream in streams:
        await stream.aclose()
    await db.close()


async def test_pages_are_told_to_look_again(listening: Listening) -> None:
    """Those of the owner and of operators. A hundred to which nothing happens cost one read whenever the feed looks."""
    owners = [await listening.feed.hints(principal(listening.owner)) for _ in range(100)]
    stranger = await listening.feed.hints(principal(uuid4()))
    operator = await listening.feed.hints(replace(principal(uuid4()), needed=Scope.OPERATOR))
    for each in (*owners, stranger, operator):
        assert await anext(each) == b"retry: 1000\n\nevent: changed\ndata:\n\n"
    told: Counter[str] = Counter()

    async def listen(name: str, stream: Any) -> None:
        async for message in stream:
            told[name] += message == b"event: changed\ndata:\n\n"

    listeners = [asyncio.create_task(listen("owner", each)) for each in owners]
    listeners += [asyncio.create_task(listen("stranger", stranger)), asyncio.create_task(listen("operator", operator))]
    with patch.object(listening.db, "read", wraps=listening.db.read) as read:
        await asyncio.sleep(20 * module.POLL)
        assert read.call_count <= 20
    await listening.write(1)
    await until(lambda: told["owner"] == 100 and told["operator"] == 1)
    await listening.write(1, owner=uuid4())
    await until(lambda: told["operator"] == 2)
    await asyncio.sleep(5 * module.POLL)
    assert told == {"owner": 100, "operator": 2, "stranger": 0}
    with patch.object(module, "HEARTBEAT", 0.01):
        beating = await listening.feed.hints(principal(uuid4()))
        assert [await anext(beating) for _ in range(2)][1] == b"event: beat\ndata:\n\n"
    listening.feed.close()
    await asyncio.wait_for(asyncio.gather(*listeners), 1)
    with pytest.raises(ShuttingDown):
        await listening.feed.hints(principal(uuid4()))
