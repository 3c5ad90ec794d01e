"""What an attempt elsewhere reads: copies of its inputs, which are what the service says they are."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from app.client.calls import NO_ANSWER, STALLED, beginning, pause, proxy, retry_after
from app.errors import FileMissing, LeaseLost, NotFound
from app.jobs.models import Job
from app.processing.input import InputDocument, InputFile, source_of
from app.processors.base import Permanent, Source, Transient
from app.remote.schemas import Input
from app.remote.worker.api import HeldJob

log = structlog.get_logger()

MAX_TRIES = 8  # of a download; with the pauses between them a minute
_LONGEST = 20.0  # seconds between two of them
_PIECE = 1024**2  # bytes


class _Failed(Exception):
    """A download that may succeed another time, after so many seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class HeldInputs:
    """Finds what a job reads that is held: files and results of so many bytes. The key of a file is its number."""

    def __init__(self, held: HeldJob, folder: Path, max_file_bytes: int, max_result_bytes: int) -> None:
        self._held = held
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._max_result_bytes = max_result_bytes

    @asynccontextmanager
    async def copy(self, file: InputFile) -> AsyncIterator[Path]:
        """Yield where the file can be read, inside the block. Raises Permanent, Transient, LeaseLost, NotFound."""
        path = self._folder / f"input-{file.key}"
        try:
            await self._download(int(file.key), path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def source(self, job: Job, document: InputDocument, path: Path, *others: Path) -> Source:
        """Return what a processor is given for an attempt at the job."""
        return source_of(job, document, self._result, path, *others)

    async def _result(self, processor: str) -> dict[str, Any] | None:
        answer = await self._held.result(processor, self._max_result_bytes)
        if answer.status == 409:
            raise LeaseLost
        return answer.content if answer.status == 200 else None

    async def _download(self, number: int, path: Path) -> None:
        for tries in range(1, MAX_TRIES + 1):
            try:
                return await self._fetch(self._held.inputs[number], path)
            except (_Failed, *NO_ANSWER) as error:
                reason, wait = str(error) or type(error).__name__, getattr(error, "wait", None)
            log.warning("remote.input_not_read", input=number, reason=reason)
            await asyncio.sleep(pause(wait, tries, _LONGEST))
            if await self._held.beat(0) is None:  # its URL may have expired: it has another now
                raise LeaseLost
        raise Transient("input-unavailable", "The file could not be fetched from the service.")

    async def _fetch(self, source: Input, path: Path) -> None:
        """Raises _Failed, Permanent `input-too-large`, NotFound, LeaseLost, and what NO_ANSWER names."""
        if source.size > self._max_file_bytes:
            raise Permanent("input-too-large", f"The worker reads files of up to {self._max_file_bytes} bytes.")
        request = self._held.session.get(
            source.url, headers=source.headers, allow_redirects=False, proxy=proxy(source.url)
        )
        digest = hashlib.sha256()
        async with asyncio.timeout(STALLED) as clock, request as response:
            if response.status == 409:
                raise LeaseLost
            if response.status != 200:
                said = await beginning(response) if response.content_type == "application/problem+json" else b""
                if f'"{FileMissing.code}"'.encode() in said:
                    raise NotFound
                raise _Failed(f"the answer is {response.status}", retry_after(response))
            with path.open("wb") as file:
                async for piece in response.content.iter_chunked(_PIECE):
                    clock.reschedule(asyncio.get_running_loop().time() + STALLED)
                    await asyncio.to_thread(_keep, piece, digest, file)
                    if file.tell() > source.size:
                        break
        if digest.hexdigest() != source.sha256:
            raise _Failed("its SHA-256 is another")


def _keep(piece: bytes, digest: Any, file: Any) -> None:
    digest.update(piece)
    file.write(piece)
