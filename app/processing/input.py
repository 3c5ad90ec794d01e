"""What an attempt works on: the document, its file, and results that others made of it."""

import gzip
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from app.database import Database
from app.documents.schemas import Document, Metadata
from app.documents.service import owned
from app.files.models import File
from app.jobs.models import Job
from app.limiter import Threads
from app.processing import results
from app.processing.results import StoredResult
from app.processors.base import Source
from app.storage.base import Storage


class InputFile(BaseModel):
    """The file that a job reads: where it is stored, and what it was when the job was accepted."""

    model_config = ConfigDict(from_attributes=True)

    key: str
    content_type: str
    size: int
    sha256: str


class Inputs:
    """Finds what processors ask for."""

    def __init__(self, db: Database, storage: Storage) -> None:
        self._db = db
        self._storage = storage
        self._threads = Threads(1, "inputs")

    async def source(self, job: Job, file: InputFile, path: Path) -> Source:
        """Return what a processor is given for an attempt at the job. Raises NotFound."""
        document = await self._db.read(partial(_document, job))
        return Source(
            path,
            file.content_type,
            file.size,
            file.sha256,
            job.tries,
            document_id=document.id,
            owner_id=document.owner_id,
            job_id=job.id,
            filename=document.filename,
            metadata=document.model_dump(include=set(Metadata.model_fields)),
            find_result=partial(self._result, job),
        )

    async def _result(self, job: Job, processor: str) -> dict[str, Any] | None:
        """Return the data of the last good result that a processor made of the job's document, or None."""

        def read(conn: Connection) -> StoredResult | None:
            return results.of_processor(conn, _document(job, conn).id, processor)

        found = await self._db.read(read)
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


def _document(job: Job, conn: Connection) -> Document:
    """Return the document of the owner of the job. Raises NotFound."""
    assert job.document_id is not None, "a job of this kind has a document"
    return owned(conn, job.owner_id, job.document_id)


def _in_file(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(gzip.decompress(path.read_bytes()))
    return said
