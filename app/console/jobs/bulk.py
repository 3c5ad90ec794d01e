"""Retrying or cancelling all jobs that match: a page says how many there are, and its form changes no more than that.

Whatever is sent, the jobs are those of whoever sends it, but for operators, and they were there when they were counted:
a form that is sent twice finds nothing that the first has made.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import BackgroundTasks, Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Principal, Scope
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.errors import AppError
from app.jobs.models import JobState
from app.operators.schemas import JobsFilters
from app.processing.bulk import Bulk, BulkJobs
from app.processing.bulk_schemas import MAX_BULK, BulkResponse, CancelRequest, RerunRequest
from app.processing.schemas import JobFilters

router = pages_for(Scope.DOCUMENTS_PROCESS, "/jobs")
operators = pages_for(Scope.OPERATOR, "/operators/jobs")

_Request = TypeVar("_Request", bound=RerunRequest | CancelRequest)
_ANY = 2**53  # as the count of those that were only said to be many


@router.get("/retry")
@router.get("/cancel")
async def count_own(
    request: Request, principal: CurrentPrincipal, bulk: Bulk, filters: Annotated[JobFilters, Query()]
) -> Response:
    """How many jobs would be changed."""
    return await _count(request, principal, bulk, filters)


@operators.get("/retry")
@operators.get("/cancel")
async def count_all(
    request: Request, principal: CurrentPrincipal, bulk: Bulk, filters: Annotated[JobsFilters, Query()]
) -> Response:
    """How many jobs would be changed, of all accounts."""
    return await _count(request, principal, bulk, filters)


@router.post("/retry")
@operators.post("/retry")
async def retry(request: Request, principal: CurrentPrincipal, bulk: Bulk, background: BackgroundTasks) -> Response:
    """Retry them."""
    fields = await forms.fields_of(request)
    done, started = await bulk.rerun(_asked(RerunRequest, principal, fields), principal)
    for job_id in started:
        background.add_task(bulk.wake, job_id)
    return _done(request, fields, done)


@router.post("/cancel")
@operators.post("/cancel")
async def cancel(request: Request, principal: CurrentPrincipal, bulk: Bulk) -> Response:
    """Cancel them."""
    fields = await forms.fields_of(request)
    return _done(request, fields, await bulk.cancel(_asked(CancelRequest, principal, fields), principal))


async def _count(request: Request, principal: Principal, bulk: BulkJobs, filters: JobFilters) -> Response:
    given = {name: value for name, value in request.query_params.items() if name in type(filters).model_fields}
    fields = {"created_before": datetime.now(UTC).isoformat()} | given
    model: type[RerunRequest | CancelRequest] = RerunRequest if _verb(request) == "retry" else CancelRequest
    matching = await bulk.count(_asked(model, principal, fields))
    shown = {"matching": matching, "confirm": matching if matching <= MAX_BULK else _ANY}
    return _page(request, fields, found=None, **shown)


def _done(request: Request, fields: Mapping[str, str], found: BulkResponse) -> Response:
    """What became of them, and the form for those that are left."""
    left = found.matching - found.changed - sum(found.skipped.values()) if found.next_cursor else 0
    reasons = {AppError.by_code[code].title: count for code, count in found.skipped.items()}
    rest = {**fields, "cursor": found.next_cursor} if found.next_cursor else fields
    return _page(request, rest, found=found, reasons=reasons, matching=left, confirm=left)


def _asked(model: type[_Request], principal: Principal, fields: Mapping[str, str]) -> _Request:
    """What is asked for by the fields: a count, or with `confirm` the change. Raises ValidationFailed."""
    known: type[JobFilters] = JobsFilters if principal.needed is Scope.OPERATOR else JobFilters
    filters = forms.valid(known, {name: fields[name] for name in known.model_fields if name in fields})
    given = filters.model_dump(mode="json", exclude_none=True)
    chosen: dict[str, Any] = {"created_before": fields.get("created_before")} | given
    if model is RerunRequest and filters.state is JobState.FAILED:
        del chosen["state"]  # as all that are retried
    if known is JobFilters:
        chosen["owner_id"] = principal.owner_id
    more = {name: forms.whole(fields[name]) for name in ("confirm",) if name in fields}
    return forms.valid(model, {"filter": chosen, "cursor": fields.get("cursor"), **more})


def _page(request: Request, fields: Mapping[str, str], **shown: Any) -> Response:
    kept = {name: value for name, value in fields.items() if name in {*JobsFilters.model_fields, "cursor"}}
    listed = urlencode({name: kept[name] for name in kept.keys() - {"created_before", "cursor"}})
    values = shown | {"verb": _verb(request), "fields": kept, "listed": listed, "most": MAX_BULK}
    return pages.page(request, "jobs/bulk.html", **values)


def _verb(request: Request) -> str:
    """`retry` or `cancel`."""
    return request.url.path.rpartition("/")[2]
