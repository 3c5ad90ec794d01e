"""/documents/{id}/process and /result, and /jobs."""

from typing import Annotated
from uuid import UUID

from fastapi import BackgroundTasks, Path, Query, Response

from app import errors, idempotency
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.documents.dependencies import DocumentId
from app.idempotency import IdempotencyKey
from app.processing.schemas import Job, JobFilters, JobPage, ProcessRequest, ProcessResponse, Result, ResultList
from app.processing.service import ProcessingService
from app.web.body import RETRY_AFTER, json_response
from app.web.dependencies import bound, service
from app.web.describe import header, links, raises
from app.web.fields import LINE
from app.web.pagination import Cursor, Limit

processing = authenticated_router(Scope.DOCUMENTS_PROCESS, tags=["processing"])
reading = authenticated_router(Scope.DOCUMENTS_READ, tags=["processing"])


Service = Annotated[ProcessingService, service("processing")]
_JobId = Annotated[UUID, bound("job_id")]
_ProcessorName = Annotated[str, Path(max_length=50, pattern=LINE)]

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
            errors.UnknownProcessor,
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
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.ResultNotReady, errors.ProcessingFailed),
)
async def get_result(document_id: DocumentId, principal: CurrentPrincipal, service: Service) -> Response:
    """The current result of a COMPLETED document."""
    return json_response(await service.result(principal, document_id))


@reading.get(
    "/documents/{document_id}/results",
    operation_id="listResults",
    response_model=ResultList,
    responses=raises(errors.ValidationFailed, errors.NotFound),
)
async def list_results(document_id: DocumentId, principal: CurrentPrincipal, service: Service) -> Response:
    """The last good result of each processor. A later job that fails, or is cancelled, takes none of them away."""
    return json_response(await service.results(principal, document_id))


@reading.get(
    "/documents/{document_id}/results/{processor}",
    operation_id="getProcessorResult",
    response_model=Result,
    responses=raises(errors.ValidationFailed, errors.NotFound),
)
async def get_processor_result(
    document_id: DocumentId, processor: _ProcessorName, principal: CurrentPrincipal, service: Service
) -> Response:
    """The last good result of one processor."""
    return json_response(await service.result_of(principal, document_id, processor))


@reading.get(
    "/jobs",
    operation_id="listJobs",
    response_model=JobPage,
    responses=raises(errors.ValidationFailed, errors.InvalidCursor),
)
async def list_jobs(
    principal: CurrentPrincipal,
    service: Service,
    filters: Annotated[JobFilters, Query()],
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """The caller's jobs, newest first."""
    return json_response(await service.jobs(principal, filters, limit, cursor))


@reading.get(
    "/jobs/{job_id}",
    operation_id="getJob",
    response_model=Job,
    responses={200: {"headers": _RETRY_AFTER}, **raises(errors.ValidationFailed, errors.NotFound)},
)
async def get_job(
    job_id: _JobId,
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
async def cancel_job(job_id: _JobId, principal: CurrentPrincipal, service: Service) -> Response:
    """Cancel a queued or running job; its document goes back to the state before it."""
    return json_response(await service.cancel(principal, job_id), 202)
