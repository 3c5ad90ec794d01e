"""/admin/jobs: those of all accounts, one or all that match a filter."""

from typing import Annotated
from uuid import UUID

from fastapi import BackgroundTasks, Query, Response
from starlette.exceptions import HTTPException

from app import errors
from app.audit.dependencies import Noted
from app.auth.dependencies import CurrentPrincipal
from app.operators.dependencies import Operating, admin_router
from app.operators.schemas import AnyJob, AnyJobPage, JobsFilters
from app.processing.bulk import Bulk
from app.processing.bulk_schemas import BulkResponse, CancelRequest, RerunRequest
from app.web.body import json_response
from app.web.dependencies import bound
from app.web.describe import raises
from app.web.pagination import Count, Cursor, Limit, page_response

router = admin_router()

_JobId = Annotated[UUID, bound("job_id")]
_IN_BULK = (errors.MoreJobsMatch, errors.InvalidCursor, errors.SearchTooBroad, errors.TooBusy)


@router.get(
    "/jobs",
    operation_id="listAllJobs",
    response_model=AnyJobPage,
    responses=raises(errors.InvalidCursor, errors.SearchTooBroad, errors.TooBusy, errors.StorageFull),
)
async def list_all_jobs(
    *,
    operators: Operating,
    noted: Noted,
    filters: Annotated[JobsFilters, Query()],
    limit: Limit = 20,
    cursor: Cursor = None,
    count: Count = False,
) -> Response:
    """The jobs of all accounts that match every filter, newest first. With `dead=true`, the dead letters."""
    page = await operators.jobs.find(filters, limit, cursor, count=count)
    of_document = page.items[0].owner_id if filters.document_id and page.items else None
    await noted(dict(filters), filters.owner_id or of_document)
    return page_response(page)


@router.post(
    "/jobs/rerun", operation_id="rerunJobs", response_model=BulkResponse, responses=raises(*_IN_BULK, body=True)
)
async def rerun_jobs(
    principal: CurrentPrincipal, bulk: Bulk, background: BackgroundTasks, body: RerunRequest
) -> Response:
    """Accept the work of failed jobs anew, as the owners of their documents would, up to 1,000 in one call.

    Without `confirm`, the jobs that match are only counted. Only those are run again whose document has had no other
    job since: the call is safe to repeat, also at the same time or after a failure midway.
    """
    answer, started = await bulk.rerun(body, principal)
    for job_id in started:
        background.add_task(bulk.wake, job_id)
    return json_response(answer)


@router.post(
    "/jobs/cancel", operation_id="cancelJobs", response_model=BulkResponse, responses=raises(*_IN_BULK, body=True)
)
async def cancel_jobs(principal: CurrentPrincipal, bulk: Bulk, body: CancelRequest) -> Response:
    """Cancel unfinished jobs, as their owners would, up to 1,000 in one call.

    Without `confirm`, the jobs that match are only counted. Safe to repeat.
    """
    return json_response(await bulk.cancel(body, principal))


_OTHERS = ["GET", "HEAD", "PUT", "PATCH", "DELETE"]


@router.api_route("/jobs/rerun", methods=_OTHERS, include_in_schema=False)
@router.api_route("/jobs/cancel", methods=_OTHERS, include_in_schema=False)
async def refuse_other_methods() -> None:
    """Answer 405: without this route, `rerun` would be taken for a job's id."""
    raise HTTPException(405)


@router.get(
    "/jobs/{job_id}",
    operation_id="getAnyJob",
    response_model=AnyJob,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.StorageFull),
)
async def get_any_job(job_id: _JobId, operators: Operating, noted: Noted) -> Response:
    """One job, whoever owns it."""
    job = await operators.jobs.get(job_id)
    await noted({"job_id": job_id}, job.owner_id)
    return json_response(job)


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelAnyJob",
    status_code=202,
    response_model=AnyJob,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.JobFinished, errors.StorageFull),
)
async def cancel_any_job(job_id: _JobId, principal: CurrentPrincipal, operators: Operating) -> Response:
    """Cancel a queued or running job; its document goes back to the state before it."""
    return json_response(await operators.jobs.cancel(principal, job_id), 202)
