"""What an attempt made, on its way to being published: checked and, if it is large, stored as a file."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

import structlog
from pydantic import BaseModel
from sqlalchemy import Connection, select
from uuid_utils.compat import uuid7

from app.database import Database, now
from app.files.models import File, key_of
from app.files.removal import Removal
from app.jobs.models import Job
from app.limiter import Threads
from app.processing.encoding import MAX_DEPTH, compress, encode, encode_short, is_deep, limited
from app.processing.fitting import fitting, require_fit
from app.processing.schemas import Provenance
from app.processors.base import Permanent, Processor
from app.storage.base import Storage
from app.telemetry import faults

log = structlog.get_logger()

INLINE = 64 * 1024  # bytes of JSON that are kept in the row, and encoded on the event loop: a thread hop takes longer
GZIP = "application/gzip"


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer: the JSON that `GET …/result` answers with, `size` bytes of it, compressed in a file.

    `created_at` is part of it. `stored_at`: when the file was complete, by this process's clock (`time.time`).
    """

    file: File
    size: int
    created_at: datetime
    stored_at: float


class ResultWriter:
    """Turns what processors return into what can be published."""

    def __init__(self, db: Database, storage: Storage, removal: Removal) -> None:
        self._db = db
        self._storage = storage
        self._removal = removal
        self._threads = Threads(1, "results")  # not the default pool, whose threads processors may keep busy

    async def prepare(self, job: Job, data: object, model: type[BaseModel], max_bytes: int) -> str | Answer:
        """Return the JSON of `data`, or the stored answer if that is longer than INLINE.

        Raises as `short_json` and `long_json` do, StorageUnavailable, StorageFull.
        """
        json = await self.encoded(data, model, max_bytes)
        return json if isinstance(json, str) else await self.answer(Provenance.of(job), json)

    async def encoded(self, data: object, model: type[BaseModel], max_bytes: int) -> str | Iterator[bytes]:
        """Return the JSON of `data`, in pieces if it is longer than INLINE.

        Raises as `short_json` and `long_json` do; the latter also while the pieces are taken.
        """
        short = short_json(data, model, max_bytes)
        if short is not None:
            return short
        pieces = long_json(data, model, max_bytes)
        begun, is_all = await self._threads.run(_beginning, pieces)
        return begun.decode() if is_all else chain([begun], pieces)

    async def discard(self, *answers: str | Answer) -> None:
        """Remove what is not going to be published. Where that fails, it is swept as an orphan."""
        for answer in answers:
            if isinstance(answer, Answer):
                await self._removal.unrecorded(answer.file.key)

    async def answer(self, provenance: Provenance, json: Iterator[bytes], created_at: datetime | None = None) -> Answer:
        """Store an answer: the JSON of data in its frame. Raises StorageUnavailable, StorageFull."""
        created_at = created_at or await self.moment()
        head, tail = provenance.around(created_at)
        return await self.store(chain([head], json, [tail]), created_at)

    async def moment(self) -> datetime:
        """The time by the database's clock."""
        return await self._db.read(_now)

    async def store(self, json: Iterator[bytes], created_at: datetime) -> Answer:
        """Store JSON as it is. Raises StorageUnavailable, StorageFull, and what its pieces raise."""
        file_id, counted = uuid7(), _Counted(json)
        compressed = compress(counted)
        async with self._storage.create(key_of(file_id)) as staged:
            while (piece := await self._threads.run(next, compressed, None)) is not None:
                await staged.write([piece])
            stored = await staged.commit()
        faults.hit("result.after_store")
        file = File(file_id, key_of(file_id), GZIP, stored.size, stored.sha256)
        return Answer(file, counted.size, created_at, time.time())


class _Counted(Iterator[bytes]):
    """Passes pieces on; `size` is how many bytes they were."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.size = 0
        self._pieces = pieces

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self.size += len(piece)
        return piece


class Limits(NamedTuple):
    """Bytes of a result, and seconds after which a file that nothing refers to may be swept."""

    max_result_bytes: int
    orphan_grace: float

    def bytes_of(self, processor: Processor) -> int:
        """Bytes of a result of this processor."""
        own: int | None = getattr(processor, "max_result_bytes", None)
        return min(own or self.max_result_bytes, self.max_result_bytes)


def short_json(data: object, model: type[BaseModel], max_bytes: int) -> str | None:
    """Return the JSON of `data` if it is certainly short, else None.

    Raises Permanent for what is no JSON object, longer than `max_bytes` or does not fit the model.
    """
    with _refusing_what_is_no_json():
        if not isinstance(data, dict):
            raise TypeError(type(data).__name__)
        short = encode_short(data)
        if short is not None:
            require_fit(model, next(limited(iter([short]), max_bytes)))
    return short


def long_json(data: Any, model: type[BaseModel], max_bytes: int) -> Iterator[bytes]:
    """Yield the JSON of an object in UTF-8, in pieces. Raises as `short_json` does."""
    with _refusing_what_is_no_json():
        if is_deep(data):
            raise RecursionError(f"more than {MAX_DEPTH} levels")
        yield from limited(encode(fitting(model, data, max_bytes)), max_bytes)


def _beginning(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """Return more than INLINE bytes of the pieces, or all that there are, and whether these are all."""
    begun = bytearray()
    for piece in pieces:
        begun += piece
        if len(begun) > INLINE:
            return bytes(begun), False
    return bytes(begun), True


@contextmanager
def _refusing_what_is_no_json() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError, RecursionError) as error:
        log.warning("job.invalid_output", reason=f"{type(error).__name__}: {error}"[:200])
        raise Permanent("invalid-output", "The processor returned what is no JSON object.") from None


def _now(conn: Connection) -> datetime:
    moment: datetime = conn.scalar(select(now()))
    return moment
