"""The files that an attempt makes, stored under ids of its own until they are published.

add ──> reserve a row, for a while ──> stage, examine, commit ──> made ──> published with the result, or swept
"""

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import Connection
from uuid_utils.compat import uuid7

from app.database import Database
from app.documents.schemas import StatedMetadata
from app.errors import Forbidden
from app.files import repository as files
from app.files.models import File, key_of
from app.files.names import display_name, with_extension
from app.files.receive import BATCH, REJECTIONS, Batch, Receiver
from app.files.removal import Removal
from app.jobs.models import Job
from app.processing.input import InputDocument
from app.processors.base import MadeFile, Outputs, Permanent
from app.quotas import Quotas
from app.storage.base import Staged, Storage
from app.telemetry import faults

MAX_FILES = 1000  # that one attempt may make
_RESERVED = 50  # rows that are inserted at once
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+(; ?[a-z0-9-]+=[A-Za-z0-9_.-]+)*")
_MAX_MEDIA_TYPE = 100  # characters


class Misnamed(ValueError):
    """A file of a result was given a name or a media type that it cannot have."""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that is stored: one of the result's, or with `metadata` a document to be."""

    file: File
    name: str
    metadata: StatedMetadata | None


@dataclass(frozen=True, slots=True)
class Sinks:
    """What sinks need of the service. A file has at most `max_bytes`, and is published within `longest` seconds."""

    db: Database
    storage: Storage
    receiver: Receiver
    removal: Removal
    quotas: Quotas
    max_bytes: int
    longest: float

    @asynccontextmanager
    async def sink(self, job: Job, document: InputDocument, before: Sequence[OutputFile] = ()) -> AsyncIterator["Sink"]:
        """For the files that an attempt at the job makes of the document, beside those that it has made before. If the
        block fails, none of them is left."""
        sink = Sink(self, job, document, before)
        try:
            yield sink
        except BaseException:
            await sink.discard()
            raise


class Sink(Outputs):
    """Stores the files of one attempt, one after the other. `made` are those that are stored."""

    def __init__(self, of: Sinks, job: Job, document: InputDocument, before: Sequence[OutputFile] = ()) -> None:
        self.made: list[OutputFile] = []
        self._of = of
        self._job = job
        self._document = document
        self._before = before
        self._bytes = sum(each.file.size for each in before)
        self._checked = self._bytes  # when the quota was looked at
        self._reserved: list[UUID] = []
        self._storing = asyncio.Lock()  # processors may add several at once

    async def add(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> MadeFile:
        if not _NAME.fullmatch(name):
            raise Misnamed(f"{name!r:.120} is no name for a file of a result")
        if not _MEDIA_TYPE.fullmatch(content_type) or len(content_type) > _MAX_MEDIA_TYPE:
            raise Misnamed(f"{content_type!r:.120} is no media type")

        async def stated(_: Staged) -> str:
            return content_type

        async with self._storing:
            if any(each.name == name for each in self._all if each.metadata is None):
                raise Misnamed(f"{name!r:.120} is taken")
            return self._add(await self._store(chunks, stated), name, None)

    async def add_document(
        self, filename: str, chunks: AsyncIterable[bytes], metadata: Mapping[str, Any] | None = None
    ) -> MadeFile:
        name, stated = shown_name(filename), stated_metadata(self._document, metadata)
        async with self._storing:
            file = await self._store(chunks, partial(self._of.receiver.examined, self._job.owner_id))
            return self._add(file, with_extension(name, file.content_type), stated)

    async def discard(self) -> None:
        """Remove what is not going to be published. Where that fails, it is swept."""
        while self.made:
            await self._of.removal.unrecorded(self.made.pop().file.key)

    @property
    def _all(self) -> list[OutputFile]:
        return [*self._before, *self.made]

    def _add(self, file: File, name: str, metadata: StatedMetadata | None) -> MadeFile:
        assert file.sha256 is not None, "it is stored"
        self.made.append(OutputFile(file, name, metadata))
        faults.hit("output.after_store")
        return MadeFile(file.id, name, file.content_type, file.size, file.sha256)

    async def _store(self, chunks: AsyncIterable[bytes], examine: Callable[[Staged], Awaitable[str]]) -> File:
        """Raises Permanent, TooBusy, StorageFull, Unavailable."""
        file_id, batch, size = await self._next_id(), Batch(), 0
        async with self._of.storage.create(key_of(file_id)) as staged:
            async for chunk in chunks:
                batch.feed(chunk)
                size += len(chunk)
                if size > self._of.max_bytes:
                    detail = f"A file that was made is larger than {self._of.max_bytes} bytes."
                    raise Permanent("output-too-large", detail)
                if batch.pending >= BATCH:
                    await staged.write(batch.take())
            await staged.write(batch.take())
            try:
                content_type = await examine(staged)
            except REJECTIONS as error:
                raise Permanent("output-not-accepted", f"A document that was made: {error.detail}") from None
            stored = await staged.commit()
        self._bytes += stored.size
        return File(file_id, key_of(file_id), content_type, stored.size, stored.sha256)

    async def _next_id(self) -> UUID:
        """Return the id of a file whose row is reserved, and some more with it. Raises as `_store` does."""
        self._of.quotas.reserve.require()
        if len(self._all) >= MAX_FILES:
            raise Permanent("too-many-outputs", f"More than {MAX_FILES} files were made of one document.")
        new: list[UUID] = []
        if not self._reserved:
            # The first is the only one of most attempts.
            number = min(_RESERVED if self.made else 1, MAX_FILES - len(self._all))
            self._reserved = new = [uuid7() for _ in range(number)][::-1]
        if new or self._bytes - self._checked > self._of.max_bytes:
            try:
                await self._of.db.write(partial(self._reserve, new))
            except Forbidden as error:
                raise Permanent(error.code, error.detail) from None
            self._checked = self._bytes
        return self._reserved.pop()

    def _reserve(self, new: list[UUID], conn: Connection) -> None:
        """Raises StorageQuotaExceeded or DocumentQuotaExceeded if what is stored is too much already."""
        more = 1 + sum(each.metadata is not None for each in self._all)
        self._of.quotas.check(conn, self._job.owner_id, more_bytes=self._bytes, more_documents=more)
        if new:
            files.reserve(conn, new, self._of.longest)


def shown_name(filename: str) -> str:
    """What of a filename can be shown. Raises Permanent `invalid-filename` if that is nothing."""
    name = display_name(filename)
    if name is None:
        raise Permanent("invalid-filename", "Nothing of the filename of a document that was made can be shown.")
    return name


def stated_metadata(document: InputDocument, metadata: Mapping[str, Any] | None) -> StatedMetadata:
    """The metadata of a document that was made of another: that one's, but for what is stated. Raises Permanent
    `invalid-metadata`."""
    try:
        return StatedMetadata.model_validate({**document.metadata, **(metadata or {})})
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]
        raise Permanent("invalid-metadata", f"The metadata of a document: {reason['msg']}.") from None
