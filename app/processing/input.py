"""What an attempt works on: the document, its file, and results that others made of it."""

import gzip
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict

from app.database import Database
from app.documents.schemas import StatedMetadata
from app.files.models import File
from app.jobs.models import Job
from app.limiter import Threads
from app.processing import results
from app.processors.base import Source
from app.storage.base import Storage


class InputFile(BaseModel):
    """The file that a job reads: where it is stored, and what it was when the job was accepted."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    content_type: str
    size: int
    sha256: str


class InputDocument(BaseModel):
    """The document that a job works on, as it was when the job was accepted."""

    filename: str = ""
    metadata: dict[str, Any] = StatedMetadata().model_dump()
    file: InputFile


class Inputs:
    """Finds what processors ask for."""

    def __init__(self, db: Database, storage: Storage) -> None:
        self._db = db
        self._storage = storage
        self._threads = Threads(1, "inputs")

    def copy(self, file: InputFile | File) -> AbstractAsyncContextManager[Path]:
        """Yield where the file can be read on this machine, inside the block. Raises NotFound, StorageUnavailable."""
        return self._storage.local_copy(file.key)

    def source(self, job: Job, document: InputDocument, path: Path, *others: Path) -> Source:
        """Return what a processor is given for an attempt at the job, whose documents' files are at the paths."""
        assert job.document_id is not None, "a job of this kind has a document"
        return source_of(job, document, partial(self.result, job.document_id), path, *others)

    async def result(self, document_id: UUID, processor: str) -> dict[str, Any] | None:
        """Return the data of the last good result that a processor made of the document, or None."""
        found = await self._db.read(partial(results.of_processor, document_id=document_id, processor=processor))
        if found is None:
            return None
        data = await self.data(found.data or b"{}", found.file)
        return data["data"] if found.file else data

    async def data(self, json: str | bytes | None, file: File | None) -> dict[str, Any]:
        """Return what JSON says, or what a file of it says, compressed. Raises NotFound, StorageUnavailable."""
        if file is None:
            return await self._threads.run(orjson.loads, json or b"{}")
        async with self._storage.local_copy(file.key) as path:
            return await self._threads.run(_in_file, path)


def source_of(
    job: Job,
    document: InputDocument,
    find_result: Callable[[str], Awaitable[dict[str, Any] | None]],
    path: Path,
    *others: Path,
) -> Source:
    """Return what a processor is given for an attempt at the job, wherever that is made."""
    assert job.document_id is not None, "a job of this kind has a document"
    file = document.file
    return Source(
        path.absolute(),  # DATA_DIR may be relative, and a confined child is elsewhere
        file.content_type,
        file.size,
        file.sha256,
        job.tries,
        document_id=job.document_id,
        owner_id=job.owner_id,
        job_id=job.id,
        filename=document.filename,
        metadata=document.metadata,
        find_result=find_result,
        others=tuple(each.absolute() for each in others),
    )


def _in_file(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(gzip.decompress(path.read_bytes()))
    return said
