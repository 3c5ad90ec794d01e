"""Copies the file of every document, and verifies its SHA-256 at the target.

The file of a direct upload that was sent but not completed is copied too. It has no verified SHA-256, so it is compared
with the file at the source.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, func, select

from app.database import Database
from app.documents.lifecycle import Status
from app.documents.models import documents
from app.errors import AppError, NotFound
from app.files.models import key_of
from app.storage.base import Storage
from app.telemetry import faults
from app.transfer.errors import TransferError
from app.transfer.progress import Progress

CONCURRENCY = 4  # files; each takes the memory of one upload
PAGE = 500  # documents


class _File(NamedTuple):
    """A document's file as its row describes it. A file that is not verified yet has no `sha256` and may be missing."""

    document_id: UUID
    size: int
    sha256: str | None

    @property
    def key(self) -> str:
        return key_of(self.document_id)


class _Damaged(Exception):
    """The file at the source differs from the SHA-256 in the document's row."""


@dataclass(slots=True)
class Files:
    """Copies the files of the documents in `db`, except those that the target already has and that are correct."""

    db: Database
    source: Storage
    target: Storage
    report: Callable[[str], None]
    copied: int = 0
    found: int = 0
    size: int = 0  # bytes, copied or found
    faulty: int = 0
    _limiter: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENCY))

    async def copy(self) -> bool:
        """Copy all files. Returns False if some are missing or damaged at the source; each of them is reported."""
        total = await self.db.read(_count)
        progress = Progress(self.report)
        seen, after = 0, None
        while page := await self.db.read(partial(_page, after=after)):
            await self._all(page)
            seen += len(page)
            progress.at(f"files: those of {seen} documents of {total}, {self.size} bytes so far")
            after = page[-1].document_id
        self.report(
            f"files: {self.copied} copied, {self.found} found there, {self.faulty} missing or damaged; "
            f"{self.size} bytes read back and verified by their SHA-256"
        )
        return not self.faulty

    async def _all(self, page: list[_File]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for file in page:
                    tasks.create_task(self._one(file))
        except* (AppError, TransferError) as group:
            raise group.exceptions[0] from None

    async def _one(self, file: _File) -> None:
        async with self._limiter:
            sha256 = file.sha256 or await _sha256(self.source, file)
            if sha256 is None:
                return
            try:
                if await _sha256(self.target, file) == sha256:
                    await self.target.sync(file.key)  # an earlier transfer may have been killed before it was synced
                    self.found += 1
                else:
                    await self._copy(file, sha256)
                    self.copied += 1
                self.size += file.size
            except NotFound:
                self._report_fault(file, "is missing at the source")
            except _Damaged:
                self._report_fault(file, "is damaged at the source: its SHA-256 is another")

    async def _copy(self, file: _File, expected: str) -> None:
        """Copy and verify one file. Raises NotFound, _Damaged, TransferError."""
        sha256 = hashlib.sha256()
        async with self.target.create(file.key) as staged:
            async for chunk in self.source.read(file.key, 0, file.size + 1):
                sha256.update(chunk)
                await staged.write([chunk])
            if sha256.hexdigest() != expected:
                raise _Damaged
            await self.target.delete(file.key)  # a wrong file under this key would not be overwritten
            await staged.commit()
        faults.hit("transfer.after_file")
        if await _sha256(self.target, file) != expected:
            raise TransferError(f"document {file.document_id}: the target does not give back what was written to it")

    def _report_fault(self, file: _File, why: str) -> None:
        self.faulty += 1
        self.report(f"document {file.document_id}: its file {why}")


async def _sha256(storage: Storage, file: _File) -> str | None:
    """Return the SHA-256 (hex) of a stored file, or None if it is missing.

    Reads one byte past its expected size, so that a longer file differs.
    """
    sha256 = hashlib.sha256()
    try:
        async for chunk in storage.read(file.key, 0, file.size + 1):
            sha256.update(chunk)
    except NotFound:
        return None
    return sha256.hexdigest()


def _count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(documents)).scalar_one()


def _page(conn: Connection, after: UUID | None) -> list[_File]:
    columns = (documents.c.id, documents.c.size, documents.c.sha256, documents.c.status)
    query = select(*columns).order_by(documents.c.id).limit(PAGE)
    found = conn.execute(query if after is None else query.where(documents.c.id > after))
    return [_File(row.id, row.size, None if row.status == Status.INITIATED else row.sha256) for row in found]
