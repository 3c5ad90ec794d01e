"""What workers elsewhere do with the jobs that they hold: read, keep, send files, and settle. All of it is fenced.

What they make is published as what a local attempt makes: by the same sink, product, publication and settlement.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import orjson
from pydantic import ValidationError
from sqlalchemy import Connection

from app.database import Database
from app.errors import (
    BadRequest,
    LeaseLost,
    NotFound,
    OutcomeUnknown,
    OutputTooLarge,
)
from app.events.failure import Failure
from app.files.downloads import Downloads
from app.files.receive import Receiver
from app.files.removal import Removal
from app.files.stored import StoredFiles
from app.jobs import repository as jobs, settlement
from app.jobs.kinds import Failed, Kind, Outcome, Refused, Released, Retryable, Succeeded
from app.jobs.models import Job, JobState
from app.jobs.watch import JobWatch
from app.processing.failures import INVALID_PARAMS, outcome_of
from app.processing.input import InputFile, Inputs
from app.processing.jobs import numbered
from app.processing.output import Limits, ResultWriter
from app.processing.publication import Product
from app.processing.results import Made
from app.processing.schemas import Provenance
from app.processing.sink import Misnamed, Sinks
from app.processing.work import Work
from app.processors.base import Permanent, Transient
from app.remote import held, outputs
from app.remote.claiming import Claiming
from app.remote.outputs import Staged
from app.remote.processors import RemoteProcessor
from app.remote.publishing import invalid, misnamed, refusal, to_publish
from app.remote.schemas import Completion, Heartbeat, Held, JobFailure, Settled, StagedOutput
from app.remote.tokens import Claim
from app.telemetry import context, faults

_TOO_LATE = Failed(Failure(code="lease-lost", detail="The job was somebody else's when it was completed."))
_PIECE = 256 * 1024  # bytes of a result that are sent at once


@dataclass(frozen=True, slots=True)
class Sent:
    """A file on its way here: what its worker says of it. `declared` is its Content-Length, or 0."""

    number: int
    name: str
    content_type: str
    is_document: bool
    declared: int


class _Done(NamedTuple):
    """How the job stands; None: it was not the claim's. `published`: by this very call. `left` may be removed."""

    state: JobState | None
    published: bool = False
    left: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class RemoteJobs:
    """Serves the holders of claims. Each method raises LeaseLost once the job is not the claim's any more."""

    db: Database
    kind: Kind
    claiming: Claiming
    inputs: Inputs
    writer: ResultWriter
    sinks: Sinks
    limits: Limits
    stored: StoredFiles
    receiver: Receiver
    downloads: Downloads
    removal: Removal
    watch: JobWatch

    async def heartbeat(self, claim: Claim, said: Heartbeat, base_url: str) -> Held:
        """Renew the lease, and say whether the owner has cancelled the job."""
        job, lease = await self.db.write(partial(held.renew, claim=claim, progress=said.progress), urgent=True)
        if not lease:
            return Held(lease_seconds=0, cancelled=True, inputs=[])
        inputs = await self.claiming.input_urls.of(Work.model_validate(job.args), claim, base_url)
        return Held(lease_seconds=lease, cancelled=False, inputs=inputs)

    async def input(self, claim: Claim, number: int) -> tuple[InputFile, AsyncIterator[bytes]]:
        """A file that the job reads, and its bytes. Raises NotFound, TooBusy, Unavailable, FileMissing, FileDamaged."""
        job = await self._held(claim)
        files = Work.model_validate(job.args).files
        if number >= len(files):
            raise NotFound("The job has fewer inputs than that; they count from 0.")
        file = files[number]
        return file, await self.downloads.send(claim.account_id, self.stored.read(file, 0, file.size))

    async def result(self, claim: Claim, processor: str) -> AsyncIterator[bytes]:
        """The data of the last good result that a processor made of the document, as JSON. Raises NotFound, TooBusy,
        Unavailable."""
        job = await self._held(claim)
        assert job.document_id is not None, "a job of this kind has a document"
        return await self.downloads.send(claim.account_id, self._result(job, processor))

    async def _result(self, job: Job, processor: str) -> AsyncIterator[bytes]:
        assert job.document_id is not None
        data = await self.inputs.result(job.document_id, processor)
        if data is None:
            raise NotFound("There is no result of that processor for the document of the job.")
        said = orjson.dumps(data)
        for start in range(0, len(said), _PIECE):
            yield said[start : start + _PIECE]

    async def stage(self, claim: Claim, sent: Sent, stream: AsyncIterator[bytes]) -> StagedOutput:
        """Store a file that the worker has made, in the place of one that it has sent under the same number.

        Raises ValidationFailed, OutputRejected, OutputTooLarge, StorageQuotaExceeded, DocumentQuotaExceeded,
        BadRequest, RequestTimeout, TooBusy, StorageFull, Unavailable.
        """
        job, before = await self.db.read(partial(_with_outputs, claim=claim))
        if sent.is_document and not self._processor(job).makes_documents:
            raise invalid("/query/document", "The processor makes no documents.")
        if sent.declared > self.sinks.max_bytes:
            raise OutputTooLarge(f"A file may have at most {self.sinks.max_bytes} bytes.")
        chunks = _whole(self.receiver.chunks(claim.account_id, stream), sent.declared)
        others = [each.output for each in before if each.number != sent.number]
        work = Work.model_validate(job.args)
        async with self.sinks.sink(job, work, others) as sink:
            try:
                if sent.is_document:
                    await sink.add_document(sent.name, chunks)
                else:
                    await sink.add(sent.name, sent.content_type, chunks)
            except Permanent as error:
                raise refusal(error) from None
            except Misnamed:
                raise misnamed() from None
        (made,) = sink.made

        staged = Staged.of(sent.number, made)
        try:
            replaced = await self.db.write(partial(_stage, claim=claim, staged=staged, kept=self.sinks.longest))
        except OutcomeUnknown:  # perhaps it was recorded
            raise
        except BaseException:
            await sink.discard()
            raise
        if replaced:
            await self.removal.discarded(replaced)
        return StagedOutput.of(sent.number, made)

    async def complete(self, claim: Claim, said: Completion) -> Settled:
        """Publish what the worker has made. Again under the same claim, nothing changes.

        Raises ValidationFailed, ResultInvalid, OutputRejected, OutputTooLarge, TooBusy, StorageFull, Unavailable.
        """
        try:
            job, staged = await self.db.read(partial(_to_complete, claim=claim))
        except LeaseLost:
            return await self._settled(claim, _TOO_LATE)
        if isinstance(job, JobState):
            return Settled(state=job)
        processor, work = self._processor(job), Work.model_validate(job.args)
        try:
            params = processor.params.model_validate(work.params)
        except ValidationError:  # accepted under other settings
            return await self._settled(claim, outcome_of(INVALID_PARAMS))
        files = to_publish(said.outputs, staged, work)
        try:
            bound = self.limits.bytes_of(processor)
            output = await self.writer.prepare(job, said.data, processor.result, bound)
        except Permanent as error:
            raise refusal(error) from None
        product = Product.of([Made(Provenance.of(job), output)], files, params)
        return await self._settled(claim, Succeeded(product, alone=bool(files)))

    async def fail(self, claim: Claim, said: JobFailure) -> Settled:
        """Record that the attempt failed. Again under the same claim, nothing changes."""
        kind = Transient if said.transient else Permanent
        outcome = outcome_of(kind(said.code, said.detail))
        if isinstance(outcome, Retryable):
            outcome = replace(outcome, delay=said.retry_after)
        return await self._settled(claim, outcome)

    async def release(self, claim: Claim) -> Settled:
        """Put the job back into its queue, and refund its try. Again under the same claim, nothing changes."""
        return await self._settled(claim, Released())

    async def _settled(self, claim: Claim, outcome: Outcome) -> Settled:
        """Write what came of the attempt, as attempts in this process do."""
        job = await self.db.read(partial(jobs.get, job_id=claim.job_id))
        alone_with = job.owner_id if job and isinstance(outcome, Succeeded) and outcome.alone else None
        product = outcome.value if isinstance(outcome, Succeeded) else None
        done = _Done(None)
        try:
            settle = partial(self._settle, claim=claim, outcome=outcome)
            done = await self.db.write(settle, urgent=alone_with is None, alone_with=alone_with)
        except Refused as refusal:
            done = await self.db.write(partial(self._settle, claim=claim, outcome=refusal.outcome), urgent=True)
        except OutcomeUnknown:  # perhaps it was published
            product = None
            raise
        finally:
            if product and not done.published:
                await self.writer.discard(*(each.output for each in product.results))
        faults.hit("finish.after_commit")
        self.watch.notify(claim.job_id)
        if left := [*done.left, *(product.deleted if product and done.published else ())]:
            await self.removal.discarded(left)
        if done.state is None:
            raise LeaseLost
        return Settled(state=done.state)

    def _settle(self, conn: Connection, claim: Claim, outcome: Outcome) -> _Done:
        """Raises Refused, and LeaseLost for a claim that has expired."""
        if state := held.settled_before(conn, claim):
            return _Done(state)
        job, seconds = held.claimed(conn, claim, self.kind.timeout)
        with context.acting(request=job.request_id):
            if not settlement.settle(conn, self.kind, job, outcome, seconds=seconds):
                return _Done(None, left=outputs.forget(conn, claim.job_id, claim.fence))
        published = outcome.value.files if isinstance(outcome, Succeeded) else ()
        left = outputs.forget(conn, claim.job_id, claim.fence, [each.file.id for each in published])
        settled = jobs.get(conn, claim.job_id)
        # A document that its job deletes takes that with it.
        return _Done(settled.state if settled else JobState.SUCCEEDED, isinstance(outcome, Succeeded), left)

    async def _held(self, claim: Claim) -> Job:
        return (await self.db.read(partial(held.held, claim=claim))).job

    def _processor(self, job: Job) -> RemoteProcessor:
        """Raises NotFound: the settings of this process are others than those that the job was claimed under."""
        with suppress(KeyError):
            return self.claiming.queues.processors[job.queue]
        raise NotFound("This process does not know the processor of the job, or another version of it.")


def _with_outputs(conn: Connection, claim: Claim) -> tuple[Job, list[Staged]]:
    return held.held(conn, claim).job, outputs.find(conn, claim)


def _stage(conn: Connection, claim: Claim, staged: Staged, kept: float) -> list[str]:
    """Raises LeaseLost, and ValidationFailed if a file of its name has arrived meanwhile."""
    held.require(conn, claim)
    if not staged.is_document and staged.name in outputs.names(conn, claim, staged.number):
        raise misnamed()
    return outputs.stage(conn, claim, staged, kept)


def _to_complete(conn: Connection, claim: Claim) -> tuple[Job | JobState, list[Staged]]:
    """The job and what was sent, or its state if that very claim was settled before."""
    if state := held.settled_before(conn, claim):
        return state, []
    job, staged = _with_outputs(conn, claim)
    return numbered(conn, job), staged


async def _whole(chunks: AsyncIterator[bytes], declared: int) -> AsyncIterator[bytes]:
    """Pass on a body. Raises BadRequest at its end if a part is missing."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        yield chunk
    if declared and size != declared:
        raise BadRequest("The body is shorter than its Content-Length.")
