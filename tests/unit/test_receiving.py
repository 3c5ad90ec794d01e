"""Receiving files: the pace, the memory, and the commits that an upload costs."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert

from app.auth.models import users
from app.auth.principal import SCOPES_OF, Principal, Role
from app.database import now
from app.database.sqlite import SqliteDatabase
from app.documents.intake import Intake
from app.documents.service import DocumentService
from app.errors import RequestTimeout, StorageUnavailable
from app.files.claim import Claim
from app.files.downloads import Downloads
from app.files.multipart import Form
from app.files.pace import paced
from app.files.receive import Receiver
from app.files.removal import Removal
from app.files.stored import StoredFiles
from app.jobs.repository import live_count
from app.quotas import Quotas
from app.quotas.reserve import Reserve
from app.settings import Settings
from app.storage.local import LocalStorage
from app.telemetry import context
from tests.support.factories import pdf


async def test_an_upload_that_takes_too_long_is_cut_off() -> None:
    """However fast it is: only so are files of parts dated right in a bucket."""

    async def endless():
        while True:
            await asyncio.sleep(0.01)
            yield bytes(1000)

    received = 0
    with pytest.raises(RequestTimeout):  # noqa: PT012
        async for chunk in paced(endless(), idle=5, min_rate=0, longest=0.2):
            received += len(chunk)
    assert received > 0


HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-1.7\n'
METADATA = b'Content-Disposition: form-data; name="metadata"\r\n\r\n{"folder": "f"}'
SIZE = 200_000


def most_held(piece: int) -> int:
    """The most bytes that are held of a form, beside those of the file, while it arrives in pieces of this size."""
    form, body = Form(b"x", SIZE), HEAD + bytes(SIZE - 20)
    size = len(body.partition(b"\r\n\r\n")[2])
    tracemalloc.start()
    try:
        for at in range(0, len(body), piece):
            form.feed(body[at : at + piece])
        assert sum(map(len, form.take())) == size
        return tracemalloc.get_traced_memory()[1] - SIZE
    finally:
        tracemalloc.stop()


@pytest.mark.long
def test_one_byte_pieces_hold_no_more_memory_than_large_ones() -> None:
    held = most_held(1)
    assert held < SIZE
    assert held < most_held(64 * 1024) + SIZE


def seconds(filling: bytes, boundary: bytes = b"x") -> float:
    """The least CPU time that a file of 2 MB takes to parse, of three times."""
    head, chunk, times = HEAD.replace(b"--x", b"--" + boundary), filling * (65_536 // len(filling)), []
    for _ in range(3):
        form, began = Form(boundary, 3_000_000), time.process_time()
        form.feed(head)
        for _ in range(32):
            form.feed(chunk)
            form.take()
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize(
    ("filling", "boundary"),
    [
        (b"\r\n--xX", b"x"),
        (b"\r\n--x-X", b"x"),
        (b"\r\n--x\rX", b"x"),
        (b"\r\n--x" + b" " * 16 + b"X", b"x"),
        (b"\r\n--" + b"x" * 69 + b"X", b"x" * 70),
        (b"\r", b"x"),
    ],
    ids=repr,
)
def test_what_looks_like_a_boundary_is_no_burden(filling: bytes, boundary: bytes) -> None:
    """Some five times what other bytes take. It was 200 times: 15 ms of the event loop for each 64 KiB."""
    assert seconds(filling, boundary) < 40 * seconds(bytes(100))


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 10_000])
def test_a_file_of_what_looks_like_a_boundary_is_received_as_it_is(piece: int) -> None:
    tricky = b"\r\n--x-\r\n--x \t\r-\r\n--\r\n--y--\r\r\n--x" + b" " * 17 + b"\r\n--X--\r\n--x-\r\n"
    form, body = Form(b"x", 10_000), HEAD + tricky * 20 + b"\r\n--x \t\r\n" + METADATA + b"\r\n--x--\r\n--x\r\n"
    received = b""
    for at in range(0, len(body), piece):
        form.feed(body[at : at + piece])
        received += b"".join(form.take())
    assert (received, form.finish()) == (b"%PDF-1.7\n" + tricky * 20, {"metadata": b'{"folder": "f"}'})


class Counting:
    """A database that counts its commits."""

    def __init__(self, db: SqliteDatabase) -> None:
        self._db = db
        self.commits = 0

    async def write(self, unit: Any, **options: Any) -> Any:
        self.commits += 1
        return await self._db.write(unit, **options)


class KeepsAll(LocalStorage):
    """A storage that removes nothing."""

    async def delete(self, key: str) -> None:
        raise StorageUnavailable


async def test_an_upload_with_a_key_is_one_commit_and_its_replay_needs_no_storage(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield HEAD.removesuffix(b"%PDF-1.7\n") + pdf() + b"\r\n--x--\r\n"

    db, storage, settings = SqliteDatabase(tmp_path / "app.db"), KeepsAll(tmp_path / "files"), Settings()
    db.migrate()
    owner: dict[str, Any] = {"id": uuid4(), "email": "a@b.c", "password_hash": "", "active": True}
    await db.write(lambda conn: conn.execute(insert(users).values(**owner, created_at=now())))
    counting = Counting(db)
    removal = Removal(storage, Claim(db, storage))
    reserve = Reserve([], 0)
    receiver, downloads, quotas = (
        Receiver(storage, reserve, settings),
        Downloads(1),
        Quotas(live_count, reserve, settings),
    )
    service = DocumentService(
        counting,  # type: ignore[arg-type]
        StoredFiles(db, storage),
        receiver,
        Intake(counting, removal, grace=settings.orphan_grace_seconds),  # type: ignore[arg-type]
        downloads,
        quotas=quotas,
        settings=settings,
        job_for=None,  # type: ignore[arg-type]
    )
    principal = Principal(owner["id"], "user:x", SCOPES_OF[Role.USER], "jwt")
    for commits, replayed in ((1, False), (2, True)):
        with context.acting(principal.actor):
            answer, _ = await service.upload(principal, Form(b"x", 10_000), body(), "key", 0)
        assert (counting.commits, answer.replayed) == (commits, replayed)
    await db.close()
