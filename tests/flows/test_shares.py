"""What is scarce is dealt by owner: whatever one account does, another is served at once."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import Uuid, bindparam, text
from uuid_utils.compat import uuid7

from app.database import UTCDateTime
from tests.api.test_errors import assert_problem
from tests.api.test_uploads import LARGE
from tests.flows.test_direct_upload_faults import begin_put
from tests.flows.test_memory import MEGABYTE, PdfOf, upload
from tests.flows.test_slow_clients import reader, stalled
from tests.support import databases
from tests.support.direct_uploads import announce, complete, put
from tests.support.factories import PDF_TYPE
from tests.support.server import Server
from tests.support.user import PASSWORD, User

UPLOADS, DOWNLOADS = 16, 64  # the defaults of UPLOAD_SLOTS and DOWNLOAD_SLOTS
DOCUMENTS = 10_000  # are searched for 0.2 to 0.5 s


def seconds(call: Callable[[], httpx2.Response]) -> float:
    """How long it takes to be answered well."""
    asked_at = time.perf_counter()
    assert call().is_success
    return time.perf_counter() - asked_at


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "var") as server:
        yield server


@contextmanager
def repeated(calls: Sequence[Callable[[], object]], pause: float = 0) -> Iterator[None]:
    """Repeats each call in a thread of its own for as long as the block lasts."""
    left = threading.Event()

    def repeat(call: Callable[[], object]) -> None:
        while not left.wait(pause):
            call()

    with ThreadPoolExecutor(len(calls)) as threads:
        for call in calls:
            threads.submit(repeat, call)
        try:
            yield
        finally:
            left.set()


def trickling(connections: list[socket.socket]) -> AbstractContextManager[None]:
    """Sends 1.2 kB a second over each, which is above the minimum rate."""

    def trickle() -> None:
        for connection in connections:
            with suppress(OSError):
                connection.send(b"x" * 600)

    return repeated([trickle], 0.5)


def test_slow_uploads_of_one_account_do_not_keep_another_waiting(server: Server) -> None:
    mallory, alice = server.register(), server.register()
    with ExitStack() as slow:
        connections = [slow.enter_context(stalled(mallory, 0.1)) for _ in range(2 * UPLOADS)]

        slow.enter_context(trickling([connection.sock for connection in connections]))
        assert max(seconds(lambda: alice.post_file(LARGE)) for _ in range(5)) < 1


def test_slow_direct_uploads_of_one_account_do_not_keep_another_waiting(server: Server) -> None:
    mallory, alice = server.register(), server.register()
    with ExitStack() as slow:
        connections = []
        for _ in range(2 * UPLOADS):
            request = begin_put(announce(mallory, LARGE), len(LARGE)) + LARGE[:1000]
            connections.append(slow.enter_context(closing(socket.create_connection(("127.0.0.1", server.port)))))
            connections[-1].sendall(request)
        slow.enter_context(trickling(connections))
        upload = announce(alice, LARGE)
        asked_at = time.perf_counter()
        assert put(upload, LARGE) == 200
        assert complete(alice, upload).status_code == 200
        assert time.perf_counter() - asked_at < 1


def test_slow_downloads_of_one_account_do_not_keep_another_waiting(server: Server) -> None:
    mallory, alice = server.register(), server.register()
    large, small = upload(mallory, PdfOf(12 * MEGABYTE)), alice.upload()["id"]
    with ExitStack() as slow:
        connections = [slow.enter_context(reader(mallory, large)) for _ in range(2 * DOWNLOADS)]
        assert all(connection.recv(1, socket.MSG_PEEK) for connection in connections[: DOWNLOADS * 3 // 4])
        assert max(seconds(lambda: alice.http.get(f"/documents/{small}/content")) for _ in range(5)) < 2


TEXT = ("lorem ipsum dolor \u00e9 " * 99)[:2000]


def fill(server: Server, user: User, documents: int) -> None:
    """Give somebody as many documents, with long descriptions."""
    columns = "(id, owner_id, filename, content_type, size, status, version, description, tags, created_at, updated_at)"
    values = f"(:id, :owner, 'a.pdf', '{PDF_TYPE}', 100, 'UPLOADED', 1, :text, '[]', :at, :at)"
    owner, at = UUID(user.http.get("/auth/me").json()["id"]), datetime.now(UTC)
    types = [bindparam("id", type_=Uuid), bindparam("owner", type_=Uuid), bindparam("at", type_=UTCDateTime)]
    rows = [{"id": uuid7(), "owner": owner, "text": TEXT, "at": at} for _ in range(documents)]
    with databases.engine(server.data_dir).begin() as conn:
        conn.execute(text(f"INSERT INTO documents {columns} VALUES {values}").bindparams(*types), rows)  # noqa: S608


def test_searches_of_one_account_delay_nobody_else(server: Server) -> None:
    mallory, alice = server.register(), server.register()
    fill(server, mallory, DOCUMENTS)
    document, login = alice.upload()["id"], {"email": alice.email, "password": PASSWORD}
    alone = median([seconds(lambda: alice.http.get(f"/documents/{document}")) for _ in range(20)])
    with repeated([partial(mallory.at(server).http.get, "/documents?q=zq") for _ in range(8)]):
        time.sleep(0.5)
        meanwhile = [seconds(lambda: alice.http.get(f"/documents/{document}")) for _ in range(20)]
        assert median(meanwhile) < alone + 0.05
        assert seconds(lambda: server.client().post("/auth/login", json=login)) < 2
        assert seconds(lambda: alice.http.get("/documents?q=report")) < 2


def test_a_search_that_takes_too_long_is_told_how_to_take_less(tmp_path: Path) -> None:
    with Server(tmp_path / "var", module="tests.support.impatient") as server:
        user = server.register()
        fill(server, user, DOCUMENTS)
        assert_problem(user.http.get("/documents?q=zq"), 422, "search-too-broad")
        assert user.http.get("/documents?limit=1").status_code == 200
