"""All jobs that match: how many they are, and, once that is confirmed, running them again or cancelling them."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import BackgroundTasks, Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import forms as frame, pages
from app.console.frame.route import pages_for
from app.console.operators import forms
from app.operators.dependencies import Operating
from app.operators.schemas import BulkResponse, JobsFilters
from app.web.pagination import Cursor

router = pages_for(Scope.OPERATOR, "/operators/jobs")

_Filters = Annotated[JobsFilters, Query()]
_Changed = Annotated[int | None, Query(ge=0)]
# What the step before has left out, and why.
_Skipped = Annotated[str, Query(max_length=1000, pattern=r"^([a-z-]+: \d+(, |$))*$")]


@router.get("/rerun")
async def ask_rerun(
    *,
    request: Request,
    operators: Operating,
    filters: _Filters,
    cursor: Cursor = None,
    changed: _Changed = None,
    skipped: _Skipped = "",
) -> Response:
    """How many jobs there are to run again, and what became of those before."""
    counted, _ = await operators.bulk.rerun(forms.rerun_request(filters, _from(cursor)))
    return _page(request, filters, "rerun", counted, cursor=cursor, changed=changed, skipped=skipped)


@router.get("/cancel")
async def ask_cancel(
    *,
    request: Request,
    operators: Operating,
    filters: _Filters,
    cursor: Cursor = None,
    changed: _Changed = None,
    skipped: _Skipped = "",
) -> Response:
    """How many jobs there are to cancel, and what became of those before."""
    counted = await operators.bulk.cancel(forms.cancel_request(filters, _from(cursor)))
    return _page(request, filters, "cancel", counted, cursor=cursor, changed=changed, skipped=skipped)


@router.post("/rerun")
async def rerun(
    request: Request, principal: CurrentPrincipal, operators: Operating, background: BackgroundTasks, filters: _Filters
) -> Response:
    """Run them again, if no more match than were counted."""
    wanted = forms.rerun_request(filters, await frame.fields_of(request))
    done, started = await operators.bulk.rerun(wanted, principal)
    for job_id in started:
        background.add_task(operators.bulk.wake, job_id)
    return _to("rerun", filters, done)


@router.post("/cancel")
async def cancel(request: Request, principal: CurrentPrincipal, operators: Operating, filters: _Filters) -> Response:
    """Cancel them, if no more match than were counted."""
    wanted = forms.cancel_request(filters, await frame.fields_of(request))
    return _to("cancel", filters, await operators.bulk.cancel(wanted, principal))


def _from(cursor: str | None) -> dict[str, str]:
    return {"cursor": cursor} if cursor else {}


def _query(filters: JobsFilters, **more: Any) -> str:
    given = filters.model_dump(mode="json", exclude_none=True)
    shown = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    return urlencode(shown | {name: value for name, value in more.items() if value not in (None, "")})


def _page(request: Request, filters: JobsFilters, action: str, counted: BulkResponse, **shown: Any) -> Response:
    given = filters.model_dump(mode="json", exclude_none=True)
    values: dict[str, Any] = {"given": given, "query": _query(filters), "action": action, "matching": counted.matching}
    return pages.page(request, "operators/bulk.html", **values, **shown)


def _to(action: str, filters: JobsFilters, done: BulkResponse) -> Response:
    skipped = ", ".join(f"{code}: {count}" for code, count in done.skipped.items())
    query = _query(filters, changed=done.changed, skipped=skipped, cursor=done.next_cursor)
    return pages.to(f"/operators/jobs/{action}?{query}")
