"""The processor port: heavy work on a document. Your own pipeline is one more adapter."""

import zlib
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Report = Callable[[float], None]  # takes the progress, a fraction from 0 to 1

_NUMBERS = (int, float, int | None, float | None)


class Params(BaseModel):
    """Base of every processor's params. Refuses unknown ones, NaN and infinities, and what is no number for one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Pydantic would make a number of a text or a boolean, which the published schema does not allow."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, str | bool) and wanted in _NUMBERS:
            raise ValueError("Input should be a number")
        return value


class Then(BaseModel):
    """What is to be done with each document that is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    processor: str = Field(min_length=1, max_length=50)
    params: dict[str, Any] = Field(
        {}, description="The processor's own, of at most 4 KiB; those left out take its defaults."
    )


class MakingParams(Params):
    """Base of the params of processors that make documents. The service sees to both, when it publishes them."""

    then: Then | None = Field(
        None, description="Process each document that is made: they are published and accepted together, or not at all."
    )
    delete_original: bool = Field(
        False,
        strict=True,
        description="Delete the document that they are made of, with its jobs and results, when they are published.",
    )


class CombiningParams(MakingParams):
    """Base of the params of processors that read more documents than one, all of the same owner."""

    others: tuple[UUID, ...] = Field((), alias="with", max_length=100, description="Ids of more documents to read.")


class ProcessingError(Exception):
    """A failure that the client sees: a stable code, and a detail that repeats nothing from the file."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Permanent(ProcessingError):
    """Trying again cannot help: the job fails at once."""


class Transient(ProcessingError):
    """Trying again may help: the job is retried with backoff while it has tries left."""


@dataclass(frozen=True, slots=True)
class Source:
    """The document to work on, and the job that is to do it.

    `path` is a readable file on this machine, `size` is in bytes, `sha256` in hex, and `attempt` counts from 1.
    `filename` and `metadata` (`description`, `folder`, `tags`) are what the document's owner has stated, as it was when
    the job was accepted: a result is not made anew when they change. `find_result` is what `result` uses. `others` are
    the files of the documents that CombiningParams name.
    """

    path: Path
    content_type: str
    size: int
    sha256: str
    attempt: int
    document_id: UUID
    owner_id: UUID
    job_id: UUID
    filename: str
    metadata: dict[str, Any]
    find_result: Callable[[str], Awaitable[dict[str, Any] | None]]
    others: tuple[Path, ...] = ()

    async def result(self, processor: str) -> dict[str, Any] | None:
        """Return the `data` of the last good result that a processor of this name made of this document, or None.

        In a pipeline, that is what the stage of this name made before; None if it was skipped.
        All of it is in memory then. An error of the database or the storage may be raised: it has the attempt retried.
        """
        return await self.find_result(processor)


class LongText:
    """Text of a result that may be too long to be held in memory: pieces of it, each compressed.

    It may be a value of `data`, though not of anything inside it, and becomes a string there.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: characters that whoever collects it should not exceed."""
        self.limit = limit
        self.characters = 0
        self._pieces: list[bytes] = []

    def append(self, piece: str) -> None:
        """Add some 32,000 characters: many more hold up other threads. Raises ValueError for a lone surrogate."""
        self._pieces.append(zlib.compress(piece.encode(), 1))
        self.characters += len(piece)

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces."""
        return (zlib.decompress(piece).decode() for piece in self._pieces)


class LongList:
    """A list of a result that may be too long to be held in memory. Its items are made anew each time they are needed.

    It may be a value of `data`, though not of anything inside it. Its items are objects.
    """

    def __init__(self, make: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._make()


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file that an attempt has made: its id, which is also that of its document if it becomes one, its name, its
    size in bytes and its SHA-256 in hex."""

    id: UUID
    name: str
    content_type: str
    size: int
    sha256: str


class MadeDocument(BaseModel):
    """A document that was made."""

    id: UUID
    filename: str
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="In hex.")

    @staticmethod
    def of(made: MadeFile) -> dict[str, Any]:
        """Return what a result says of it."""
        return {"id": str(made.id), "filename": made.name, "size": made.size, "sha256": made.sha256}


class Outputs(Protocol):
    """Takes the files that an attempt makes. They are published together with its result, or none of them is.

    Each may have MAX_UPLOAD_BYTES, and all together no more than is left of their owner's quota. What the calls raise
    beside Permanent is not for processors to catch: it has the attempt retried.
    """

    async def add(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> MadeFile:
        """Store a file that belongs to the result, and is fetched by its name, 1 to 100 of A-Z, a-z, 0-9, `.`, `_` and
        `-`, but not a `.` first.

        Raises Permanent `output-too-large`, `too-many-outputs` or `storage-quota-exceeded`; ValueError for a name that
        is not such or is taken, or what is no media type.
        """

    async def add_document(
        self, filename: str, chunks: AsyncIterable[bytes], metadata: Mapping[str, Any] | None = None
    ) -> MadeFile:
        """Store a PDF or DOCX that becomes a document of its own: a child of this one, whose owner and metadata it has.

        `metadata` takes the place of parts of those. Raises Permanent as `add` does, `invalid-filename` if nothing of
        that can be shown, `invalid-metadata`, and `output-not-accepted` for what could not be uploaded either.
        """


class Processor(Protocol):
    """What the service needs from a processor.

    `version` changes whenever the format or the meaning of the output changes. A processor may also state
    `max_result_bytes`, a lower limit than MAX_RESULT_BYTES, and `content_types`, the media types of the documents that
    it reads; without them, it reads all.

    In a pipeline it is a stage. What it makes is kept there and used again, for the same owner, as long as its version,
    its params, the bytes of the document and the stages before it are the same: whatever the document's name, metadata
    and id. It may state its `weight`, a number above 0 (default 1): its part of the progress. Only one that has
    `async def needed(source) -> bool`, which tells whether a document needs it at all, can be conditional (`?`).

    A processor that PROCESSORS names is made without arguments, once in each process, and some that never run a job:
    what takes long to load is best loaded by the first `run`.
    """

    name: str
    version: str
    description: str
    """One sentence for clients: what it makes of a document."""

    @property
    def at_once(self) -> int | None:
        """How many attempts one process runs at the same time. None means JOB_CONCURRENCY."""

    @property
    def params(self) -> type[Any]:
        """The model of the params, all of which have defaults."""

    @property
    def result(self) -> type[BaseModel]:
        """The model of the result's `data`, which describes it in the OpenAPI."""

    @property
    def run(self) -> Callable[..., Coroutine[Any, Any, dict[str, Any]]]:
        """Do the work.

        It is `async def run(self, source: Source, params: …, report: Report)`, where `params` is of the model above. A
        processor that makes files takes `outputs: Outputs` besides.

        It returns the result's `data`, which JSON can represent; a value of it may be a LongText or a LongList. If its
        first value is a `text`, clients may fetch that alone, as plain text. Data that does not fit the model `result`
        fails the job. Types are not converted: "3" is no number.

        It must not block the event loop. When it is cancelled it ends promptly and leaves nothing running. It may run
        more than once for one document, so its effects elsewhere must be idempotent.

        Raises Permanent or Transient. Any other exception counts as transient.
        """
