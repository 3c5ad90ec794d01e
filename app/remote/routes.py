"""/remote: workers elsewhere claim jobs with an API key, and work on each with the token of its claim."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from app import errors
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.processing.routes import JobId, ProcessorName
from app.processing.sink import MAX_FILES
from app.remote.dependencies import CurrentClaim, claim_router
from app.remote.schemas import (
    MAX_COMPLETION,
    ClaimedJob,
    ClaimNext,
    ClaimRequest,
    Completion,
    Heartbeat,
    Held,
    JobFailure,
    Settled,
    StagedOutput,
)
from app.remote.service import RemoteJobs, Sent
from app.web.body import declared_length, json_response
from app.web.dependencies import service
from app.web.describe import raises
from app.web.fields import LINE

_TAG = "remote workers"
claiming = authenticated_router(Scope.WORKER, prefix="/remote", tags=[_TAG])
holding = claim_router(tag=_TAG)
completing = claim_router(body_limit=MAX_COMPLETION, tag=_TAG)

Service = Annotated[RemoteJobs, service("remote")]
OtherProcessor = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,50}$")]
InputNumber = Annotated[int, Path(ge=0, le=MAX_FILES)]
OutputNumber = Annotated[int, Path(ge=0, lt=MAX_FILES)]
Name = Annotated[str, Query(min_length=1, max_length=255, pattern=LINE, description="Of the file, or of the document.")]
IsDocument = Annotated[bool, Query(description="It becomes a document: a PDF or DOCX.")]

_NOTHING: dict[int | str, dict[str, Any]] = {204: {"description": "There is nothing to do now."}}
_HOLDING = (errors.LeaseLost, errors.DatabaseUnavailable)
_READING = (errors.NotFound, errors.TooBusy, errors.StorageUnavailable)
_MAKING = (errors.OutputRejected, errors.StorageUnavailable, errors.StorageFull, errors.TooBusy)
_QUOTAS = (errors.StorageQuotaExceeded, errors.DocumentQuotaExceeded)
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILE = {"required": True, "description": "The file.", "content": {"application/octet-stream": _BYTES}}


def _raises(*own: type[errors.AppError], body: bool = False) -> dict[int | str, dict[str, Any]]:
    holder = (errors.Unauthorized, errors.InvalidJobToken, *_HOLDING)
    return raises(*own, *holder, authenticated=False, body=body)


def _base_url(request: Request) -> str:
    public: str = request.app.state.services.settings.public_url
    return public or str(request.base_url)


def _claimed(job: ClaimedJob | None) -> Response:
    return json_response(job) if job else Response(status_code=204)


@claiming.post(
    "/{processor}/claim",
    operation_id="claimNextJob",
    response_model=ClaimedJob,
    responses={**_NOTHING, **raises(errors.NotFound, body=True)},
)
async def claim_next(
    request: Request, processor: ProcessorName, body: ClaimNext, principal: CurrentPrincipal, service: Service
) -> Response:
    """Claim the next job of a processor that is run elsewhere, in the order that is fair to their owners.

    The answer comes when there is one, or after `wait` seconds. Each claim uses up an attempt of the job.
    """
    base_url, gone = _base_url(request), request.is_disconnected
    return _claimed(await service.claiming.next(principal, processor, body, base_url, gone))


@claiming.post(
    "/jobs/{job_id}/claim",
    operation_id="claimJob",
    response_model=ClaimedJob,
    responses={**_NOTHING, **raises(errors.NotFound, errors.AlreadyClaimed, body=True)},
)
async def claim_job(
    request: Request, job_id: JobId, body: ClaimRequest, principal: CurrentPrincipal, service: Service
) -> Response:
    """Claim this very job, of which somebody has told the worker. Such a hint may come late, twice or not at all.

    204: it is to be tried later, or its processor is paused.
    """
    return _claimed(await service.claiming.one(principal, job_id, body.worker, _base_url(request)))


@holding.post("/heartbeat", operation_id="heartbeat", response_model=Held, responses=_raises(body=True))
async def heartbeat(request: Request, body: Heartbeat, claim: CurrentClaim, service: Service) -> Response:
    """Renew the lease, say how far the work is, and learn whether it was cancelled: every third of the lease, say."""
    return json_response(await service.heartbeat(claim, body, _base_url(request)))


@holding.get(
    "/inputs/{number}",
    operation_id="getJobInput",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The file.", "content": {"application/octet-stream": _BYTES}},
        **_raises(*_READING, errors.FileMissing, errors.FileDamaged),
    },
)
async def get_input(number: InputNumber, claim: CurrentClaim, service: Service) -> Response:
    """A file that the job reads: 0 is the document's own."""
    file, chunks = await service.input(claim, number)
    headers = {"Content-Length": str(file.size), "Cache-Control": "private, no-store", "ETag": f'"{file.sha256}"'}
    return StreamingResponse(chunks, headers=headers, media_type=file.content_type)


@holding.get(
    "/results/{processor}",
    operation_id="getJobResult",
    response_model=dict[str, Any],
    responses=_raises(*_READING),
)
async def get_result(processor: OtherProcessor, claim: CurrentClaim, service: Service) -> Response:
    """The data of the last good result that another processor made of the document."""
    chunks = await service.result(claim, processor)
    return StreamingResponse(chunks, headers={"Cache-Control": "private, no-store"}, media_type="application/json")


@holding.put(
    "/outputs/{number}",
    operation_id="putJobOutput",
    response_model=StagedOutput,
    responses=_raises(
        *_MAKING,
        *_QUOTAS,
        errors.NotFound,
        errors.BadRequest,
        errors.OutputTooLarge,
        errors.RequestTimeout,
        errors.UnsupportedMediaType,
    ),
    openapi_extra={"requestBody": _FILE},
)
async def put_output(
    *,
    request: Request,
    number: OutputNumber,
    name: Name,
    document: IsDocument = False,
    claim: CurrentClaim,
    service: Service,
) -> Response:
    """Send a file that was made. It is published by the call that completes the job and names its number.

    The same number again replaces it. What is no document has the Content-Type that it is sent with.
    """
    content_type = request.headers.get("content-type", "application/octet-stream").strip().lower()
    sent = Sent(number, name, content_type, document, declared_length(request))
    return json_response(await service.stage(claim, sent, request.stream()))


@completing.post(
    "/complete",
    operation_id="completeJob",
    response_model=Settled,
    responses=_raises(*_MAKING, errors.NotFound, errors.ResultInvalid, errors.OutputTooLarge, body=True),
)
async def complete_job(body: Completion, claim: CurrentClaim, service: Service) -> Response:
    """Publish the result, and the files and documents that were made with it: all of them, or nothing.

    Safe to repeat until there is an answer: the second time changes nothing. After a 4xx but 409 the job is still held.
    The state may be FAILED or QUEUED: what was made could not be published, for a quota perhaps.
    """
    return json_response(await service.complete(claim, body))


@holding.post("/fail", operation_id="failJob", response_model=Settled, responses=_raises(body=True))
async def fail_job(body: JobFailure, claim: CurrentClaim, service: Service) -> Response:
    """Say that the attempt has failed, for good or not. Safe to repeat as completing it is."""
    return json_response(await service.fail(claim, body))


@holding.post("/release", operation_id="releaseJob", response_model=Settled, responses=_raises())
async def release_job(claim: CurrentClaim, service: Service) -> Response:
    """Give the job back, because the worker is about to stop: somebody else gets it, and no attempt is used up.

    Safe to repeat as completing it is.
    """
    return json_response(await service.release(claim))


ROUTERS: tuple[APIRouter, ...] = (claiming, holding, completing)
