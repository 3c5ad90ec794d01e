"""The promise of the product without a database: what every operation, in any order, must answer and change."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from app.jobs import models

LEASE, MAX_TRIES, KEPT = 30, 2, 86400  # seconds, attempts, seconds that a key is remembered
URL_TTL, GRACE, TRASH = 900, 3600, 600  # seconds
FILES, FILES_TTL = 2, 1200  # previous files of a document that are kept, and for how many seconds
KEPT_URL = URL_TTL - 1  # seconds that the key of an announcement is remembered


@dataclass(eq=False)
class File:
    """A file of a document: its id, and what its text says. `published` are the results of one that it had before."""

    id: UUID
    text: str
    keep: bool = False
    replaced_at: datetime | None = None
    published: "dict[str, Attempt]" = field(default_factory=dict)  # by processor


@dataclass(eq=False, repr=False)
class Document:
    id: UUID
    number: int
    status: str = "UPLOADED"
    version: int = 1
    job: "Job | None" = None
    published: dict[str, "Attempt"] = field(default_factory=dict)  # by processor
    before: "tuple[str, Job | None]" = ("UPLOADED", None)  # the state and the job that a cancellation restores
    deleted: bool = False  # for good
    expired_upload: bool = False
    deleted_at: datetime | None = None
    expires_at: datetime | None = None
    hold: str | None = None
    upload: "Upload | None" = None
    file_number: int = 1
    file: File = field(init=False)
    previous: dict[int, File] = field(default_factory=dict)  # by number
    touched: bool = False  # a job was accepted for it

    def __post_init__(self) -> None:
        self.file = File(self.id, "")

    def __repr__(self) -> str:
        return f"<document {self.number}, {self.status}>"

    @property
    def job_id(self) -> UUID | None:
        return self.job.id if self.job else None

    @property
    def seen(self) -> bool:
        """Whether its owner gets to see it."""
        return not self.deleted and self.deleted_at is None

    @property
    def only_sent(self) -> bool:
        """Whether it came by a direct upload, and nothing was done with it since."""
        new = self.upload is not None and self.status == "UPLOADED" and not self.touched
        return new and self.file_number == 1 and self.seen and not self.hold

    def file_of(self, number: int) -> File | None:
        return self.file if number == self.file_number else self.previous.get(number)

    def on_replace(self) -> int:
        return 409 if self.status in {"INITIATED", "PROCESSING"} else 200

    def on_delete(self) -> int:
        return 409 if self.hold or self.status == "PROCESSING" else 204

    def on_process(self, work: str, *, force: bool) -> int:
        """The status that a request to process it is answered with; 202 starts a job."""
        if self.status == "INITIATED":
            return 409
        if self.status == "PROCESSING":
            return 200 if self.job and self.job.work == work else 409
        return 200 if self.status == "COMPLETED" and self.made_by(work) and not force else 202

    def made_by(self, work: str) -> "Job | None":
        """The job that made a result by this very work, if that is still the processor's last good one."""
        attempt = self.published.get(processor(work))
        return attempt.job if attempt and attempt.job.work == work else None


@dataclass(eq=False)
class Upload:
    """Where the file of a document is to be sent, and whether it was."""

    url: str
    expires: datetime
    sent: bool = False


@dataclass(eq=False, repr=False)
class Job:
    id: UUID
    number: int
    document: Document
    work: str
    run_at: datetime
    state: str = "QUEUED"
    fence: int = 0
    tries: int = 0
    dead: bool = False
    locked_until: datetime | None = None

    def __repr__(self) -> str:
        return f"<job {self.number} of {self.document}, {self.state}>"

    @property
    def live(self) -> bool:
        return self.state in {"QUEUED", "RUNNING"}


@dataclass(eq=False, repr=False)
class Attempt:
    """A claim of a job, as its worker remembers it, however long ago that was."""

    job: Job
    claimed: models.Job

    def __repr__(self) -> str:
        return f"<attempt with fence {self.fence} at {self.job}>"

    @property
    def fence(self) -> int:
        return self.claimed.fence

    @property
    def held(self) -> bool:
        return (self.job.state, self.job.fence) == ("RUNNING", self.fence)


class Sent(NamedTuple):
    """A request under an Idempotency-Key, and the answer that is kept for it."""

    path: str
    body: dict[str, Any]
    document: Document
    answer: Any
    until: datetime


def processor(work: str) -> str:
    """The name of the processor that does the work."""
    return "text" if work == "text" else "simulated"


class Model:
    """Documents and jobs as they must be, and in `told` the events that must have been written."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.documents: list[Document] = []
        self.jobs: list[Job] = []
        self.attempts: list[Attempt] = []
        self.sent: dict[str, Sent] = {}
        self.told: Counter[Any] = Counter()

    @property
    def kept(self) -> list[Document]:
        return [document for document in self.documents if not document.deleted]

    @property
    def seen(self) -> list[Document]:
        return [document for document in self.documents if document.seen]

    @property
    def stored(self) -> set[UUID]:
        """The files that are here."""
        before = {file.id for each in self.kept for file in each.previous.values()}
        return before | {each.file.id for each in self.kept if each.upload is None or each.upload.sent}

    @property
    def busy(self) -> bool:
        return any(job.live for job in self.jobs)

    def after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def remember(
        self, key: str | None, path: str, body: dict[str, Any], document: Document, answer: Any, seconds: float = KEPT
    ) -> None:
        if key:
            self.sent[key] = Sent(path, body, document, answer, self.after(seconds))

    def remembered(self, key: str | None) -> Sent | None:
        first = self.sent.get(key or "")
        return first if first and first.until > self.now else None

    def upload(self, document_id: UUID, text: str) -> Document:
        document = Document(document_id, len(self.documents) + 1)
        document.file.text = text
        self.documents.append(document)
        self._tell("document.uploaded", document)
        return document

    def initiate(self, document_id: UUID, url: str) -> Document:
        document = Document(document_id, len(self.documents) + 1, "INITIATED")
        document.upload = Upload(url, self.after(URL_TTL))
        self.documents.append(document)
        self._tell("document.initiated", document)
        return document

    def complete(self, document: Document) -> None:
        self._move(document, "UPLOADED")
        self._tell("document.uploaded", document)

    def start(self, document: Document, job_id: UUID, work: str) -> Job:
        job = Job(job_id, len(self.jobs) + 1, document, work, run_at=self.now)
        self.jobs.append(job)
        self._tell("job.queued", document, job)
        document.touched = True
        document.before, document.job = (document.status, document.job), job
        self._move(document, "PROCESSING")
        return job

    def delete(self, document: Document, *, permanent: bool) -> None:
        if permanent or document.status == "INITIATED":
            self._purge(document)
        else:
            self._trash(document)

    def restore(self, document: Document) -> None:
        if document.deleted_at is not None:
            document.deleted_at = None
            if document.expires_at and document.expires_at <= self.now:
                document.expires_at = None
            self._change(document, "document.restored")

    def empty_trash(self) -> None:
        for document in self.kept:
            if document.deleted_at and not document.hold:
                self._purge(document)

    def edit(self, document: Document, expires_at: datetime) -> None:
        document.expires_at = expires_at
        self._change(document, "document.edited")

    def set_hold(self, document: Document, reason: str | None) -> None:
        if document.hold != reason:
            document.hold = reason
            self._change(document, "document.held" if reason else "document.released")

    def replace(self, document: Document, file: File) -> None:
        """Files that are too many go, but for those to keep."""
        old, document.file = document.file, file
        old.replaced_at, old.published, document.published = self.now, document.published, {}
        document.previous[document.file_number] = old
        document.file_number += 1
        document.job = None
        if document.status == "UPLOADED":
            document.version += 1
        else:
            self._move(document, "UPLOADED")
        self._tell("document.file_replaced", document)
        ordinary = [number for number in sorted(document.previous) if not document.previous[number].keep]
        for number in ordinary[:-FILES] if not document.hold else []:
            self.remove_file(document, number)

    def absorb(self, other: Document) -> None:
        """Its file is another one's, or nobody's."""
        self._purge(other)

    def keep(self, document: Document, number: int, *, keep: bool) -> None:
        file = document.file_of(number)
        assert file
        file.keep = keep
        self._tell("document.file_edited", document)

    def remove_file(self, document: Document, number: int) -> None:
        del document.previous[number]
        self._tell("document.file_removed", document)

    @property
    def due(self) -> list[Job]:
        """The jobs that can be claimed, the longest due first."""
        due = [job for job in self.jobs if job.state == "QUEUED" and job.run_at <= self.now]
        return sorted(due, key=lambda job: job.run_at)

    def claim(self, job: Job) -> None:
        job.state, job.locked_until = "RUNNING", self.after(LEASE)
        job.fence += 1
        job.tries += 1
        self._tell("job.started", job.document, job, fence=job.fence)

    def heartbeat(self, attempt: Attempt) -> bool:
        if attempt.held:
            attempt.job.locked_until = self.after(LEASE)
        return attempt.held

    def finish(self, attempt: Attempt) -> bool:
        if not attempt.held:
            return self._refuse(attempt)
        attempt.job.document.published[processor(attempt.job.work)] = attempt
        self._end(attempt.job, "SUCCEEDED", fence=attempt.fence)
        return True

    def fail(self, attempt: Attempt, *, for_good: bool) -> bool:
        job = attempt.job
        if not attempt.held:
            return self._refuse(attempt)
        if for_good or job.tries == MAX_TRIES:
            self._end(job, "FAILED", dead=not for_good, fence=job.fence)
        else:
            self._requeue(job, self.after(2**job.tries))
            self._tell("job.retried", job.document, job, fence=job.fence)
        return True

    def release(self, attempt: Attempt) -> bool:
        job = attempt.job
        if not attempt.held:
            return self._refuse(attempt)
        self._requeue(job, self.now)
        job.tries -= 1
        self._tell("job.released", job.document, job, fence=job.fence)
        return True

    def cancel(self, job: Job) -> None:
        self._end(job, "CANCELLED")

    def sweep(self) -> None:
        for job in self.jobs:
            if job.locked_until is None or job.locked_until >= self.now:
                continue
            self._tell("job.lease_lost", job.document, job, fence=job.fence)
            if job.tries == MAX_TRIES:
                self._end(job, "FAILED", dead=True)
            else:
                self._requeue(job, self.now)

    def expire(self) -> None:
        for document in self.kept:
            late = document.upload and document.upload.expires + timedelta(seconds=GRACE) <= self.now
            if late and document.status == "INITIATED" and not document.hold:
                self._remove(document)
                document.expired_upload = True
                self._tell("document.upload_expired", document)
        for document in self.seen:
            expired = document.expires_at and document.expires_at <= self.now
            if expired and document.on_delete() == 204 and document.status != "INITIATED":
                self._trash(document)
        for document in self.kept:
            overdue = document.deleted_at and document.deleted_at + timedelta(seconds=TRASH) <= self.now
            if overdue and not document.hold:
                self._purge(document)
        for document in self.kept:
            old = [number for number, file in document.previous.items() if self._is_old(file)]
            for number in old if not document.hold else []:
                self.remove_file(document, number)

    def _is_old(self, file: File) -> bool:
        assert file.replaced_at
        return not file.keep and file.replaced_at + timedelta(seconds=FILES_TTL) <= self.now

    def _trash(self, document: Document) -> None:
        document.deleted_at = self.now
        self._forget_keys(document)
        self._change(document, "document.deleted")

    def _purge(self, document: Document) -> None:
        if document.deleted_at is None:
            self._tell("document.deleted", document)
        self._tell("document.purged", document)
        self._remove(document)

    def _change(self, document: Document, event: str) -> None:
        document.version += 1
        self._tell(event, document)

    def _remove(self, document: Document) -> None:
        document.deleted = True
        self._forget_keys(document)

    def _forget_keys(self, document: Document) -> None:
        """The keys of requests for it go with it."""
        self.sent = {key: each for key, each in self.sent.items() if each.document is not document}

    def _requeue(self, job: Job, run_at: datetime) -> None:
        job.state, job.locked_until = "QUEUED", None
        job.run_at = run_at

    def _end(self, job: Job, state: str, *, dead: bool = False, **of_claim: int) -> None:
        job.state, job.dead, job.locked_until = state, dead, None
        document = job.document
        self._tell(f"job.{state.lower()}", document, job, **of_claim)
        if state == "CANCELLED":
            self._move(document, document.before[0])
            document.job = document.before[1]
        else:
            self._move(document, "COMPLETED" if state == "SUCCEEDED" else "FAILED")

    def _refuse(self, attempt: Attempt) -> bool:
        self._tell("job.fenced", attempt.job.document, attempt.job, fence=attempt.fence)
        return False

    def _move(self, document: Document, new: str) -> None:
        self._tell("document.status_changed", document, document.job, old=document.status, new=new)
        document.status = new
        document.version += 1

    def _tell(self, event: str, document: Document, job: Job | None = None, **facts: Any) -> None:
        self.told[event, document.id, job.id if job else None, frozenset(facts.items())] += 1
