"""What a check of many files costs: `python -m tests.benchmarks.check [FILES] [disk]`, a million by default.

It checks as many documents, each with a finished job and a result, against a listing that has all their files, in the
order of their keys: of a bucket that is made up, or of files on a disk that has them, of one byte. On SQLite, or the
server that TEST_DATABASE_URL names.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

from sqlalchemy import Engine, insert

from app import wiring
from app.auth.models import users
from app.check.service import Check
from app.database import now
from app.documents.models import documents
from app.files.models import files, key_of
from app.jobs.models import jobs
from app.processing.models import results
from app.settings import load
from app.storage.base import Listed
from app.storage.local import LocalStorage
from tests.benchmarks.servers import say
from tests.support import databases

assert wiring  # imports every module that defines a table

FILES = 1_000_000
BATCH = 10_000
OWNER = UUID(int=1)
SHA256 = "0" * 64


def id_of(number: int) -> UUID:
    """Ids in their order; their ends, by which a disk has folders, are spread."""
    return UUID(int=(0x01939F3E << 96) | (number << 40) | (number * 2654435761 % 2**40))


class Bucket:
    """What a listing of a bucket gives, a thousand keys a page."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def listing(self) -> AsyncIterator[list[Listed]]:
        for start in range(0, self._count, 1000):
            numbers = range(start, min(start + 1000, self._count))
            yield [Listed(key_of(id_of(number)), 1, 86400.0) for number in numbers]
            await asyncio.sleep(0)

    async def read_mark(self) -> str:
        return "a mark"


def fill(engine: Engine, count: int) -> None:
    """Insert documents with all that belongs to them."""
    common = {"created_at": now(), "content_type": "application/pdf", "size": 1, "sha256": SHA256}
    document = {"owner_id": OWNER, "filename": "a.pdf", "status": "COMPLETED", "version": 3, "tags": [], **common}
    job = {"kind": "process", "owner_id": OWNER, "state": "SUCCEEDED", "fence": 1, "tries": 1, "max_tries": 5}
    job |= {"run_at": now(), "finished_at": now(), "progress": 1, "dead": False, "created_at": now()}
    result = {"processor": "text", "processor_version": "1", "params": {}, "input_sha256": SHA256, "data": {}}
    with engine.begin() as conn:
        account = {"email": "a@example.com", "password_hash": "x", "active": True, "created_at": now()}
        conn.execute(insert(users).values(id=OWNER, **account))
    for start in range(0, count, BATCH):
        ids = [id_of(number) for number in range(start, min(start + BATCH, count))]
        with engine.begin() as conn:
            conn.execute(insert(files).values(**common), [{"id": each, "key": key_of(each)} for each in ids])
            ready = insert(documents).values(**document, updated_at=now())
            conn.execute(ready, [{"id": each, "file_id": each, "job_id": each} for each in ids])
            conn.execute(insert(jobs).values(**job), [{"id": each, "document_id": each} for each in ids])
            ready = insert(results).values(**result, created_at=now())
            conn.execute(ready, [{"document_id": each, "job_id": each} for each in ids])


def store(root: Path, count: int) -> None:
    """Put the files where the adapter has them."""
    for number in range(count):
        name = str(id_of(number))
        folder = root / "documents" / name[-2:]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


async def check(data_dir: Path, count: int, *, disk: bool) -> None:
    """Check it, and say how long that took, and how much memory."""
    db = databases.database(data_dir)
    storage: Any = Bucket(count)
    if disk:
        storage = LocalStorage(data_dir / "files")
        await storage.write_mark("a mark")
    began = time.monotonic()
    checked = Check(db, storage, AsyncMock(), load())
    found = [finding async for finding in checked.run()]
    say("checked", f"in {time.monotonic() - began:.0f} s: {checked.summary()}")
    assert not found, found[:10]
    await db.close()


def memory(name: str) -> float:
    """What this process has in memory, in MiB; VmHWM: the most that it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Fill a database, and check it in a process of its own."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    with TemporaryDirectory() as folder:
        data_dir = Path(folder) / "var"
        databases.prepare(data_dir)
        began = time.monotonic()
        fill(databases.engine(data_dir), count)
        if disk := "disk" in sys.argv:
            store(data_dir / "files", count)
        say("filled", f"in {time.monotonic() - began:.0f} s; {memory('VmRSS'):.0f} MiB so far")
        Path("/proc/self/clear_refs").write_text("5")
        asyncio.run(check(data_dir, count, disk=disk))
        say("memory", f"{memory('VmHWM'):.0f} MiB at the most")
        databases.drop_all()


if __name__ == "__main__":
    main()
