"""/documents/{id}/process and /result, and /jobs."""

from typing import Annotated
from uuid import UUID

from fastapi import BackgroundTasks, Path, Query, Request, Response

from app import errors, idempotency
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.documents.dependencies import DocumentId, FileNumber
from app.idempotency import IdempotencyKey
from app.jobs.schemas import Job
from app.processing import describe
from app.processing.answers import Answers, list_of
from app.processing.schemas import (
    JobFilters,
    JobPage,
    ProcessorList,
    ProcessRequest,
    ProcessResponse,
    Result,
    ResultList,
)
from app.processing.service import ProcessingService
from app.web.body import RETRY_AFTER, json_response
from app.web.dependencies import bound, service
from app.web.describe import accepts, header, links, raises
from app.web.fields import LINE
from app.web.pagination import Count, Cursor, Limit, page_response

processing = authenticated_router(Scope.DOCUMENTS_PROCESS, tags=["processing"])
reading = authenticated_router(Scope.DOCUMENTS_READ, tags=["processing"])


Service = Annotated[ProcessingService, service("processing")]
Sending = Annotated[Answers, service("answers")]
JobId = Annotated[UUID, bound("job_id")]
ProcessorName = Annotated[str, Path(max_length=50, pattern=LINE)]

_DEFAULTS = ProcessRequest()
_LOCATION = {"Location": header("The job.", "/jobs/01939f3e-5c00-7000-8000-000000000002")}
_OF_WORK = {
    **links("getJob", "cancelJob", job_id="$response.body#/job/id"),
    **links("getResult", document_id="$response.body#/document/id"),
}
_RETRY_AFTER = {"Retry-After": header("Seconds; only while the job is unfinished.", "1")}


@processing.post(
    "/documents/{document_id}/process",
    operation_id="processDocument",
    status_code=202,
    response_model=ProcessResponse,
    responses={
        200: {
            "description": "This very work is running or done already.",
            "model": ProcessResponse,
            "headers": {**_LOCATION, **idempotency.HEADERS},
            "links": _OF_WORK,
        },
        202: {
            "description": "Accepted: a job was created.",
            "headers": {**_LOCATION, **idempotency.HEADERS, **_RETRY_AFTER},
            "links": _OF_WORK,
        },
        **raises(
            errors.NotFound,
            errors.JobInProgress,
            errors.UploadIncomplete,
            errors.OnHold,
            errors.UnknownProcessor,
            errors.UnsupportedContentType,
            errors.TooManyJobs,
            body=True,
            keyed=True,
        ),
    },
)
async def process(
    *,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Service,
    key: IdempotencyKey,
    background: BackgroundTasks,
    body: ProcessRequest = _DEFAULTS,
) -> Response:
    """Process the document. Safe to repeat: work that is running, or whose result is current, is not started again."""
    answer, job_id = await service.process(principal, document_id, body, key)
    if job_id:
        background.add_task(service.wake, job_id)
    return answer.response(RETRY_AFTER if answer.status == 202 else None)


@reading.get(
    "/documents/{document_id}/result",
    operation_id="getResult",
    response_model=Result,
    responses={
        **describe.RESULT,
        **raises(
            errors.ValidationFailed,
            errors.NotFound,
            errors.ResultNotReady,
            errors.ProcessingFailed,
            errors.ResultExpired,
            *describe.SENDING,
        ),
    },
    openapi_extra=accepts(**describe.RESULT_REQUEST),
)
async def get_result(
    *,
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    service: Service,
    answers: Sending,
    number: FileNumber = None,
) -> Response:
    """The current result of a COMPLETED document; with `Accept: text/plain` its text alone.

    With `file`, the latest result of that file, if the document had it before.
    """
    return await answers.respond(request, principal, await service.result(principal, document_id, number))


@reading.get(
    "/documents/{document_id}/results",
    operation_id="listResults",
    response_model=ResultList,
    responses=raises(errors.ValidationFailed, errors.NotFound),
)
async def list_results(
    document_id: DocumentId, principal: CurrentPrincipal, service: Service, number: FileNumber = None
) -> Response:
    """The last good result of each processor. A later job that fails, or is cancelled, takes none of them away.

    The data of results above 64 KiB is `null` here, and complete at their `url`.
    """
    return list_of(await service.results(principal, document_id, number), query_of(number))


@reading.get(
    "/documents/{document_id}/results/{processor}",
    operation_id="getProcessorResult",
    response_model=Result,
    responses={**describe.RESULT, **raises(errors.ValidationFailed, errors.NotFound, *describe.SENDING)},
    openapi_extra=accepts(**describe.RESULT_REQUEST),
)
async def get_processor_result(
    *,
    request: Request,
    document_id: DocumentId,
    processor: ProcessorName,
    principal: CurrentPrincipal,
    service: Service,
    answers: Sending,
    number: FileNumber = None,
) -> Response:
    """The last good result of one processor; with `Accept: text/plain` its text alone."""
    result = await service.result_of(principal, document_id, processor, number)
    return await answers.respond(request, principal, result)


def query_of(number: int | None) -> str:
    """What an address ends with if it is about the file of this number."""
    return f"?file={number}" if number else ""


@reading.get("/processors", operation_id="listProcessors", response_model=ProcessorList, responses=raises())
async def list_processors(service: Service) -> Response:
    """What there is to have done with a document."""
    return json_response(service.offered)


@reading.get(
    "/jobs",
    operation_id="listJobs",
    response_model=JobPage,
    responses=raises(errors.ValidationFailed, errors.InvalidCursor, errors.SearchTooBroad, errors.TooBusy),
)
async def list_jobs(
    *,
    principal: CurrentPrincipal,
    service: Service,
    filters: Annotated[JobFilters, Query()],
    limit: Limit = 20,
    cursor: Cursor = None,
    count: Count = False,
) -> Response:
    """The caller's jobs that process documents, newest first. Deliveries are listed with their webhook."""
    return page_response(await service.jobs(principal, filters, limit, cursor, count=count))


@reading.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    response_model=Job,
    responses={200: {"headers": _RETRY_AFTER}, **raises(errors.ValidationFailed, errors.NotFound)},
)
async def get_job(
    job_id: JobId,
    principal: CurrentPrincipal,
    service: Service,
    wait: Annotated[float, Query(ge=0, le=30, description="Seconds to wait for the job to finish.")] = 0,
) -> Response:
    """One job. With `wait`, the response is sent when the job finishes, or after that many seconds."""
    job = await service.job(principal, job_id, wait)
    return json_response(job, headers=RETRY_AFTER if job.state.live else None)


@processing.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelJob",
    status_code=202,
    response_model=Job,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.JobFinished, errors.StorageFull),
)
async def cancel_job(job_id: JobId, principal: CurrentPrincipal, service: Service) -> Response:
    """Cancel a queued or running job; its document goes back to the state before it."""
    return json_response(await service.cancel(principal, job_id), 202)
