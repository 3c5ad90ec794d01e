"""What the processing calls take and give."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema, model_validator
from typing_extensions import TypeAliasType

from app.documents.schemas import Document, ProcessorChoice, Selection
from app.files.models import ContentType
from app.jobs import models as jobs
from app.jobs.models import JobState
from app.jobs.schemas import Job, JobParams, result_url
from app.processing.contract import content_types
from app.processing.models import ResultFile
from app.processing.queues import queue_of
from app.processors.base import Processor
from app.web.fields import LINE
from app.web.pagination import CountedPage

MAX_BATCH = 1000  # documents

# As a union of both, a value that is neither would be pointed at once for each.
Force = TypeAliasType(
    "Force",
    Annotated[
        Literal[True, False, "last"],
        WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "const": "last"}]}),
    ],
)


class ProcessRequest(ProcessorChoice):
    """Which work to do. An empty body means the defaults."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"processor": "simulated", "params": {"seconds": 2}, "force": False}},
    )

    force: Force = Field(
        False,
        description="Run again although there is a current result; `last`: of a pipeline only its last stage, whatever "
        "results the others have. To a processor alone that is the same as `true`.",
    )


class Offered(BaseModel):
    """A processor, as POST /documents/{id}/process takes it."""

    name: str = Field(examples=["text"])
    version: str = Field(examples=["2"])
    description: str
    default: bool = Field(description="It is used when a request names none.")
    content_types: list[ContentType] = Field(description="What it reads.")
    at_once: int | None = Field(description="Jobs that one process has it do at once; `null`: as many as of all kinds.")
    params: dict[str, Any] = Field(description="JSON Schema of its params, all of which have defaults.")
    result: dict[str, Any] = Field(description="JSON Schema of the `data` of its results.")
    stages: list[str] | None = Field(None, description="Those of a pipeline, as a request would spell them.")
    paused: bool = Field(False, description="An operator has paused it: jobs are accepted, and wait.")


class ProcessorList(BaseModel):
    """The processors of this service, the default one first."""

    items: list[Offered]

    @classmethod
    def of(cls, processors: Collection[Processor]) -> Self:
        """Those that are offered."""
        offered = [
            Offered(
                name=each.name,
                version=each.version,
                description=each.description,
                default=number == 0,
                content_types=content_types(each),
                at_once=each.at_once,
                params=each.params.model_json_schema(),
                result=each.result.model_json_schema(mode="serialization"),
                stages=getattr(each, "spelled", None),
            )
            for number, each in enumerate(processors)
        ]
        return cls(items=offered)


class JobPage(CountedPage[Job]):
    """One page of a list of jobs."""


class JobFilters(BaseModel):
    """Query parameters of the list."""

    state: JobState | None = None
    dead: bool | None = Field(None, description="`true`: only jobs that used up their attempts.")
    document_id: UUID | None = None
    processor: str | None = Field(None, min_length=1, max_length=50, pattern=LINE)

    @property
    def conditions(self) -> dict[str, Any]:
        """What `jobs.listing.matching` takes."""
        given = self.model_dump(exclude={"processor"})
        return given | {"queue_prefix": queue_of(self.processor) if self.processor else None}


class ProcessResponse(BaseModel):
    """The answer to a process call."""

    document: Document
    job: Job
    started: bool = Field(description="False: this very work is running or done already.")


class BatchFilter(Selection):
    """Which of the caller's documents: those that match all that is given, the oldest first."""

    model_config = ConfigDict(extra="forbid")


def _one_of_both(schema: dict[str, Any]) -> None:
    """Describe that a batch has either ids or a filter, and that neither has a default."""
    schema["example"] = {"filter": {"folder": "invoices/2026", "status": "UPLOADED"}, "processor": "text"}
    schema["oneOf"] = [{"required": ["document_ids"]}, {"required": ["filter"]}]
    for name in ("document_ids", "filter"):
        schema["properties"][name].pop("default", None)


class BatchRequest(ProcessRequest):
    """Which work to do on which documents: those with these ids, or those that match a filter."""

    model_config = ConfigDict(json_schema_extra=_one_of_both)

    document_ids: list[UUID] = Field([], min_length=1, max_length=MAX_BATCH)
    filter: BatchFilter = BatchFilter()
    cursor: str | None = Field(None, max_length=2048, description="With `filter`: `next_cursor` of the batch before.")

    @property
    def by_filter(self) -> bool:
        """Whether the documents are those that match the filter."""
        return "filter" in self.model_fields_set

    @model_validator(mode="after")
    def _has_ids_or_filter(self) -> Self:
        if len(self.model_fields_set & {"document_ids", "filter"}) != 1:
            raise ValueError("Give either document_ids or filter, and not both")
        if self.cursor and not self.by_filter:
            raise ValueError("A cursor belongs to a filter")
        return self


class BatchAccepted(BaseModel):
    """A document of a batch that is being processed, or was."""

    document_id: UUID
    job_id: UUID
    started: bool = Field(description="False: this very work is running or done already.")


class BatchSkipped(BaseModel):
    """A document of a batch that is not processed, and why."""

    document_id: UUID
    code: str = Field(description="As of the problem that POST /documents/{id}/process answers with.")
    detail: str


class BatchResponse(BaseModel):
    """What became of each document of a batch."""

    accepted: list[BatchAccepted]
    skipped: list[BatchSkipped]
    next_cursor: str | None = Field(
        description="If more documents match the filter than a batch may have: pass as `cursor` for the next of them."
    )

    @property
    def started(self) -> bool:
        """Whether a job was created for any of them."""
        return any(each.started for each in self.accepted)


_MOMENT = TypeAdapter(datetime)


class Provenance(BaseModel):
    """What a result was made by, and of."""

    document_id: UUID
    job_id: UUID
    processor: str = Field(examples=["text"])
    processor_version: str = Field(description="The version of the processor that ran.", examples=["1"])
    input_sha256: str = Field(description="SHA-256 of the file that was read, in hex.")
    params: JobParams = Field(
        examples=[{"format": "text", "chunks": None, "max_characters": 1_000_000, "max_pages": 10_000}]
    )
    file_number: int = Field(1, description="Which of the document's files was read.")

    @classmethod
    def of(cls, job: jobs.Job) -> Self:
        """Those of what the job makes."""
        return cls(**cls.values(job))

    @staticmethod
    def values(job: jobs.Job) -> dict[str, Any]:
        """The same by name."""
        return {
            "document_id": job.document_id,
            "job_id": job.id,
            "processor": job.args["processor"],
            "processor_version": job.args["version"],
            "input_sha256": job.args["file"]["sha256"],
            "params": job.args["params"],
            "file_number": job.args.get("file_number", 1),
        }

    def around(self, created_at: datetime) -> tuple[bytes, bytes]:
        """What comes before and after the data in the JSON of a Result, so that the data need not be decoded.

        The file's number comes after it: stored answers of the release before have none, and the same before the data.
        """
        head = self.model_dump_json(exclude={"file_number"}).encode()[:-1] + b',"data":'
        tail = b',"file_number":%d,"created_at":%b}' % (self.file_number, _MOMENT.dump_json(created_at))
        return head, tail


class Result(Provenance):
    """What a processor made of a document: the data, and what it was made by and of."""

    data: dict[str, Any] = Field(
        examples=[{"simulated": True, "size": 1024, "sha256": "9f86d0…", "content_type": "application/pdf"}]
    )
    created_at: datetime


class ListedResult(Result):
    """A result in a list, with its address. The data of a large one is only there."""

    data: dict[str, Any] | None = Field(  # type: ignore[assignment]
        description="`null` if its JSON is larger than 64 KiB: fetch it from `url`.",
        examples=[{"simulated": True, "size": 1024, "sha256": "9f86d0…", "content_type": "application/pdf"}],
    )
    size: int = Field(description="Bytes of the JSON at `url`.")
    url: str = Field(examples=["/documents/01939f3e-5c00-7000-8000-000000000001/results/text"])


class ListedFile(BaseModel):
    """A file that belongs to a result."""

    name: str = Field(examples=["page-1.png"])
    content_type: str = Field(examples=["image/png"])
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="In hex.")
    url: str = Field(examples=["/documents/01939f3e-5c00-7000-8000-000000000001/results/ocr/files/page-1.png"])


class ResultFileList(BaseModel):
    """The files of a result, in the order in which they were made."""

    items: list[ListedFile]

    @classmethod
    def of(cls, document_id: UUID, processor: str, found: Iterable[ResultFile], query: str = "") -> Self:
        """Those that were found. The query belongs to the address of each."""
        here = f"{result_url(document_id, processor)}/files"
        return cls(
            items=[
                ListedFile(
                    name=name,
                    content_type=file.content_type,
                    size=file.size,
                    sha256=str(file.sha256),
                    url=f"{here}/{name}{query}",
                )
                for name, file in found
            ]
        )


class ResultList(BaseModel):
    """The last good result of each processor, the latest first."""

    items: list[ListedResult]
