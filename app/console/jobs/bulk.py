"""Retrying or cancelling all jobs that match: a page says how many there are, and its form changes no more than that.

Whatever is sent, the jobs are those of whoever sends it, and they were there when they were counted: a form that is
sent twice finds nothing that the first has made.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import BackgroundTasks, Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Principal, Scope
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.errors import AppError
from app.jobs.models import JobState
from app.operators.dependencies import Operating
from app.operators.schemas import BulkResponse, CancelRequest, RerunRequest
from app.processing.schemas import JobFilters

router = pages_for(Scope.DOCUMENTS_PROCESS)

_Request = TypeVar("_Request", RerunRequest, CancelRequest)
_Filters = Annotated[JobFilters, Query()]


@router.get("/jobs/retry")
async def count_failed(
    request: Request, principal: CurrentPrincipal, operators: Operating, filters: _Filters
) -> Response:
    """How many jobs would be retried."""
    fields = _of_this_moment(filters)
    counted, _ = await operators.bulk.rerun(_asked(RerunRequest, principal, fields), principal)
    return _page(request, "retry", fields, counted)


@router.post("/jobs/retry")
async def retry(
    request: Request, principal: CurrentPrincipal, operators: Operating, background: BackgroundTasks
) -> Response:
    """Retry them."""
    fields = await forms.fields_of(request)
    done, started = await operators.bulk.rerun(_asked(RerunRequest, principal, fields), principal)
    for job_id in started:
        background.add_task(operators.bulk.wake, job_id)
    return _page(request, "retry", fields, done)


@router.get("/jobs/cancel")
async def count_unfinished(
    request: Request, principal: CurrentPrincipal, operators: Operating, filters: _Filters
) -> Response:
    """How many jobs would be cancelled."""
    fields = _of_this_moment(filters)
    counted = await operators.bulk.cancel(_asked(CancelRequest, principal, fields), principal)
    return _page(request, "cancel", fields, counted)


@router.post("/jobs/cancel")
async def cancel(request: Request, principal: CurrentPrincipal, operators: Operating) -> Response:
    """Cancel them."""
    fields = await forms.fields_of(request)
    done = await operators.bulk.cancel(_asked(CancelRequest, principal, fields), principal)
    return _page(request, "cancel", fields, done)


def _of_this_moment(filters: JobFilters) -> dict[str, str]:
    """The fields of the form."""
    given = {name: str(value) for name, value in filters if value is not None}
    return given | {"created_before": datetime.now(UTC).isoformat()}


def _asked(model: type[_Request], principal: Principal, fields: Mapping[str, str]) -> _Request:
    """What is asked for by the fields: a count, or with `confirm` the change. Raises ValidationFailed."""
    filters = forms.valid(JobFilters, {name: fields[name] for name in JobFilters.model_fields if name in fields})
    chosen: dict[str, Any] = filters.model_dump(exclude_none=True)
    if model is RerunRequest and filters.state is JobState.FAILED:
        del chosen["state"]  # as all that are retried
    chosen |= {"owner_id": principal.owner_id, "created_before": fields.get("created_before")}
    confirmed = {name: forms.whole(fields[name]) for name in ("confirm",) if name in fields}
    return forms.valid(model, {"filter": chosen, "cursor": fields.get("cursor"), **confirmed})


def _page(request: Request, verb: str, fields: Mapping[str, str], found: BulkResponse) -> Response:
    """How many match, or what became of them, and the form for them or for those that are left."""
    done = "confirm" in fields
    kept = {name: value for name, value in fields.items() if name in {*JobFilters.model_fields, "created_before"}}
    left = found.matching - found.changed - sum(found.skipped.values())
    return pages.page(
        request,
        "jobs/bulk.html",
        verb=verb,
        done=done,
        found=found,
        left=left if not done or found.next_cursor else 0,
        reasons={AppError.by_code[code].title: count for code, count in found.skipped.items()},
        fields=kept | ({"cursor": found.next_cursor} if found.next_cursor else {}),
    )
