"""What workers elsewhere send, and what they are answered."""

import re
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.documents.schemas import StatedMetadata
from app.jobs.models import JobState
from app.jobs.schemas import JobParams
from app.processing.sink import MAX_FILES, OutputFile
from app.web.fields import LINE, PROSE

MAX_COMPLETION = 8 * 1024**2  # bytes: what is larger takes many seconds to check and to write

_STRICT = ConfigDict(extra="forbid")

_NAME = "^[!-~]{1,80}$"


def _printable(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError("1 to 80 printable characters without spaces")
    return value


WorkerName = Annotated[
    str,
    AfterValidator(_printable),
    Field(description="What operators see it by.", examples=["gpu-1"], json_schema_extra={"pattern": _NAME}),
]
Number = Annotated[int, Field(ge=0, lt=MAX_FILES)]


class ClaimRequest(BaseModel):
    """The worker that claims."""

    model_config = _STRICT

    worker: WorkerName


class ClaimNext(ClaimRequest):
    """The worker that claims, and how long it waits."""

    wait: float = Field(0, ge=0, le=30, description="Seconds until the answer that there is nothing to do.")
    version: str | None = Field(
        None,
        max_length=50,
        pattern=LINE,
        description="The version of the processor that the worker has. If the service has another: 404, and no "
        "attempt is used up.",
    )


class Input(BaseModel):
    """A file to read: GET the `url`, with the `headers`."""

    url: str
    headers: dict[str, str] = Field(
        examples=[{"Authorization": "Bearer jt_…"}], description="All of them, and no other Authorization."
    )
    expires_at: datetime = Field(description="Until then the URL is good. Each heartbeat brings a new one.")
    content_type: str
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="In hex. The worker checks it.")


class ClaimedJob(BaseModel):
    """A job, for the worker that holds it now."""

    job_id: UUID
    document_id: UUID
    owner_id: UUID = Field(description="The account whose document it is.")
    processor: str
    version: str
    params: JobParams = Field(description="Complete with defaults.")
    attempt: int = Field(description="Counts from 1.")
    token: str = Field(description="Bearer token of all calls about this job.", examples=["jt_…"])
    lease_seconds: float = Field(description="Without a heartbeat for so long, the job is somebody else's.")
    deadline: datetime = Field(description="No heartbeat holds it for longer than until then.")
    filename: str
    content_type: str
    metadata: StatedMetadata = Field(description="As its owner has stated it.")
    inputs: list[Input] = Field(description="The document's own file first.")


class Heartbeat(BaseModel):
    """How far the work is."""

    model_config = _STRICT

    progress: float = Field(0, ge=0, le=1, description="It never goes back.")


class Held(BaseModel):
    """The lease, renewed."""

    lease_seconds: float = Field(description="0 if it was cancelled.")
    cancelled: bool = Field(description="Its owner has ended the job: stop the work.")
    inputs: list[Input] = Field(description="With URLs that are good again.")


class StagedOutput(BaseModel):
    """A file that has arrived. It is published by the call that completes the job."""

    number: int
    id: UUID = Field(description="The id of the file, and of the document that it becomes.")
    name: str
    content_type: str
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="In hex.")

    @classmethod
    def of(cls, number: int, made: OutputFile) -> "StagedOutput":
        """The file that was stored."""
        file, sha256 = made.file, str(made.file.sha256)
        return cls(
            number=number, id=file.id, name=made.name, content_type=file.content_type, size=file.size, sha256=sha256
        )


class PublishedOutput(BaseModel):
    """A file to publish."""

    model_config = _STRICT

    number: Number = Field(description="That it was sent under.")
    filename: str | None = Field(
        None, max_length=255, pattern=LINE, description="A document's, in the place of the `name` that it was sent by."
    )
    metadata: StatedMetadata | None = Field(
        None, description="A document's: each part of it in the place of that of the document that it was made of."
    )


class Completion(BaseModel):
    """What came of the job."""

    model_config = _STRICT

    data: dict[str, Any] = Field(description="The result's, as the processor's schema describes it.")
    outputs: list[PublishedOutput] = Field(
        [], max_length=MAX_FILES, description="In this order. What was sent and is not named here is thrown away."
    )


class JobFailure(BaseModel):
    """Why there is no result. The owner of the document sees it: it should repeat nothing from the file."""

    model_config = _STRICT

    code: str = Field(pattern=r"^[a-z0-9-]{1,100}$", examples=["out-of-memory"])
    detail: str = Field(min_length=1, max_length=2000, pattern=PROSE)
    transient: bool = Field(False, description="Another attempt may succeed.")
    retry_after: float | None = Field(
        None, ge=0, le=86400, description="Seconds until that, in the place of the usual backoff."
    )


class Settled(BaseModel):
    """The job, now that it is no longer the worker's."""

    state: JobState = Field(description="QUEUED: it is tried again.")
