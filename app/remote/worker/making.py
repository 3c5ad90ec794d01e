"""What an attempt elsewhere makes: files, which are sent as they are made, and the result's data."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson
from pydantic import BaseModel

from app.client.calls import Answer
from app.documents.schemas import StatedMetadata
from app.errors import LeaseLost
from app.files.models import File
from app.jobs.models import Job
from app.limiter import Threads
from app.processing.input import InputDocument
from app.processing.output import long_json, short_json
from app.processing.publication import Product
from app.processing.sink import MAX_FILES, OutputFile, shown_name, stated_metadata
from app.processors.base import MadeFile, Outputs, Permanent
from app.remote.schemas import MAX_COMPLETION, StagedOutput
from app.remote.worker.api import HeldJob

_CHUNK = 256 * 1024  # bytes


class JsonWriter:
    """Turns what processors return into JSON."""

    def __init__(self) -> None:
        self._threads = Threads(1, "results")  # not the default pool, whose threads processors may keep busy

    async def prepare(self, job: Job, data: object, model: type[BaseModel], max_bytes: int) -> str:
        """Return the JSON of `data`. Raises as `short_json` and `long_json` do."""
        bound = min(max_bytes, MAX_COMPLETION)
        short = short_json(data, model, bound)
        if short is not None:
            return short
        return (await self._threads.run(b"".join, long_json(data, model, bound))).decode()


def completion(product: Product) -> bytes:
    """What completes a job: the data, and the files by their numbers."""
    outputs = [
        {"number": number} | ({"metadata": each.metadata.model_dump(mode="json")} if each.metadata else {})
        for number, each in enumerate(product.files)
    ]
    [result] = product.results
    assert isinstance(result.output, str), "JsonWriter has made it"
    return b'{"data":%b,"outputs":%b}' % (result.output.encode(), orjson.dumps(outputs))


class _Upload(NamedTuple):
    """A file on the disk, as the body of a call."""

    path: Path
    length: int
    content_type: str

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    async def chunks(self, file: BinaryIO) -> AsyncIterator[bytes]:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


class HeldSinks:
    """Sends files of up to `max_bytes` that an attempt makes. They pass through the folder, one by one."""

    def __init__(self, held: HeldJob, folder: Path, max_bytes: int) -> None:
        self.held = held
        self.folder = folder
        self.max_bytes = max_bytes

    @asynccontextmanager
    async def sink(self, job: Job, document: InputDocument) -> AsyncIterator["HeldSink"]:
        """For the files of an attempt. The service throws away what no completion names."""
        yield HeldSink(self, document)


class HeldSink(Outputs):
    """Sends the files of one attempt, one after the other: each is numbered as it is in `made`."""

    def __init__(self, of: HeldSinks, document: InputDocument) -> None:
        self.made: list[OutputFile] = []
        self._of = of
        self._document = document
        self._sending = asyncio.Lock()  # processors may add several at once

    async def add(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> MadeFile:
        return await self._send(name, content_type, chunks, None)

    async def add_document(
        self, filename: str, chunks: AsyncIterable[bytes], metadata: Mapping[str, Any] | None = None
    ) -> MadeFile:
        name, stated = shown_name(filename), stated_metadata(self._document, metadata)
        return await self._send(name, "application/octet-stream", chunks, stated)

    async def _send(
        self, name: str, content_type: str, chunks: AsyncIterable[bytes], metadata: StatedMetadata | None
    ) -> MadeFile:
        async with self._sending:
            number = len(self.made)
            if number >= MAX_FILES:
                raise Permanent("too-many-outputs", f"More than {MAX_FILES} files were made of one document.")
            path = self._of.folder / "output"
            try:
                upload = _Upload(path, await self._keep(path, chunks), content_type)
                answer = await self._of.held.send(number, upload, name, is_document=metadata is not None)
            finally:
                path.unlink(missing_ok=True)
            if answer.status != 200:
                raise _refusal(answer)
            sent = StagedOutput.model_validate(answer.content)
            self.made.append(
                OutputFile(File(sent.id, "", sent.content_type, sent.size, sent.sha256), sent.name, metadata)
            )
            return MadeFile(sent.id, sent.name, sent.content_type, sent.size, sent.sha256)

    async def _keep(self, path: Path, chunks: AsyncIterable[bytes]) -> int:
        """Write a file, and return its size. Raises Permanent `output-too-large`."""
        size, limit = 0, self._of.max_bytes
        with path.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise Permanent("output-too-large", f"A file that was made is larger than {limit} bytes.")
                await asyncio.to_thread(file.write, chunk)
        return size


def _refusal(answer: Answer) -> Exception:
    """What a local attempt would raise."""
    if answer.status in {401, 404, 409}:
        return LeaseLost()
    told = answer.content.get("error") or answer.content
    problem = answer._replace(content=told).problem
    if problem.code == "validation-failed":  # of the name, or of the media type
        return ValueError(problem.detail)
    return Permanent(problem.code, problem.detail)
