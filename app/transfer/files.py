"""The file of every document, and its SHA-256 at the place it was brought to."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select

from app import faults
from app.database import Database
from app.documents.lifecycle import Status
from app.documents.models import documents
from app.documents.service import storage_key
from app.errors import AppError, NotFound
from app.storage.base import Storage
from app.transfer.errors import TransferError
from app.transfer.progress import Progress

AT_ONCE = 4  # files; each takes the memory of one upload
PAGE = 500


Rows = Sequence[Row[Any]]


class _Damaged(Exception):
    """The file at the source is not the one that the document had."""


@dataclass(slots=True)
class Files:
    """`db` says which files there must be. A file that the target has, and that is right, is not brought again."""

    db: Database
    source: Storage
    target: Storage
    tell: Callable[[str], None]
    copied: int = 0
    found: int = 0
    size: int = 0  # of those two, in bytes
    faulty: int = 0
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def copy(self) -> bool:
        """False when some are missing or damaged at the source: each is told of, and the rest is copied."""
        total = await self.db.read(_count)
        progress = Progress(self.tell)
        after: UUID | None = None
        while page := await self.db.read(partial(_page, after=after)):
            await self._all(page)
            progress.at(f"files: {self.copied + self.found} of {total}, {self.size} bytes so far")
            after = page[-1].id
        self.tell(
            f"files: {self.copied} copied, {self.found} found there, {self.faulty} missing or damaged; "
            f"{self.size} bytes read back and verified by their SHA-256"
        )
        return not self.faulty

    async def _all(self, page: Rows) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for document in page:
                    tasks.create_task(self._one(document))
        except* (AppError, TransferError) as group:
            raise group.exceptions[0] from None

    async def _one(self, document: Row[Any]) -> None:
        key = storage_key(document.id)
        async with self._places:
            try:
                if await _is_there(self.target, key, document):
                    self.found += 1
                else:
                    await self._bring(key, document)
                    self.copied += 1
                self.size += document.size
            except NotFound:
                self._regret(document, "is missing at the source")
            except _Damaged:
                self._regret(document, "is damaged at the source: its SHA-256 is another")

    async def _bring(self, key: str, document: Row[Any]) -> None:
        """Copy one file. Raises NotFound, _Damaged."""
        sha256 = hashlib.sha256()
        async with self.target.create(key) as staged:
            async for chunk in self.source.read(key, 0, document.size + 1):
                sha256.update(chunk)
                await staged.write([chunk])
            if sha256.hexdigest() != document.sha256:
                raise _Damaged
            await self.target.delete(key)  # what is there is not this file, and would not be overwritten
            await staged.commit()
        faults.hit("transfer.after_file")
        if not await _is_there(self.target, key, document):
            raise TransferError(f"document {document.id}: the target does not give back what was written to it")

    def _regret(self, document: Row[Any], why: str) -> None:
        self.faulty += 1
        self.tell(f"document {document.id}: its file {why}")


async def _is_there(storage: Storage, key: str, document: Row[Any]) -> bool:
    """Read the file: it is whole, and no byte of it is another."""
    sha256 = hashlib.sha256()
    try:
        async for chunk in storage.read(key, 0, document.size + 1):
            sha256.update(chunk)
    except NotFound:
        return False
    return bool(sha256.hexdigest() == document.sha256)


# An announced upload has no file yet.
_WITH_FILE = documents.c.status != Status.INITIATED


def _count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(documents).where(_WITH_FILE)).scalar_one()


def _page(conn: Connection, after: UUID | None) -> Rows:
    columns = (documents.c.id, documents.c.size, documents.c.sha256)
    query = select(*columns).where(_WITH_FILE).order_by(documents.c.id).limit(PAGE)
    return list(conn.execute(query if after is None else query.where(documents.c.id > after)))
