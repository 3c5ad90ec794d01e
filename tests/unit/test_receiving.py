"""Receiving files: the pace, the memory, and the commits that an upload costs."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert

from app.auth.models import users
from app.auth.principal import ALL_SCOPES, Principal
from app.database import now
from app.database.sqlite import SqliteDatabase
from app.documents.service import DocumentService
from app.errors import RequestTimeout, StorageUnavailable
from app.files.claim import Claim
from app.files.multipart import Form
from app.files.pace import paced
from app.files.receive import Receiver
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
SIZE = 200_000


def most_held(piece: int) -> int:
    """The most bytes that are held of a form, beside those of the file, while it arrives in pieces of this size."""
    form, body = Form(b"x", SIZE), HEAD + bytes(SIZE - 20)
    tracemalloc.start()
    try:
        for at in range(0, len(body), piece):
            form.feed(body[at : at + piece])
        assert sum(map(len, form.take())) == form.size
        return tracemalloc.get_traced_memory()[1] - SIZE
    finally:
        tracemalloc.stop()


def test_one_byte_pieces_hold_no_more_memory_than_large_ones() -> None:
    assert most_held(1) < SIZE
    assert most_held(1) < most_held(64 * 1024) + SIZE


class Counting:
    """A database that counts its commits."""

    def __init__(self, db: SqliteDatabase) -> None:
        self._db = db
        self.commits = 0

    async def write(self, unit: Any) -> Any:
        self.commits += 1
        return await self._db.write(unit)


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
    claim = Claim(db, storage)
    service = DocumentService(counting, storage, Receiver(storage, settings), claim, settings)  # type: ignore[arg-type]
    principal = Principal(owner["id"], "user:x", ALL_SCOPES, "jwt")
    for commits, replayed in ((1, False), (2, True)):
        with context.acting(principal.actor):
            answer = await service.upload(principal, Form(b"x", 10_000), body(), "key")
        assert (counting.commits, answer.replayed) == (commits, replayed)
    await db.close()
