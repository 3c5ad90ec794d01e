"""/audit: the audit trail, for operators. /auth/me/activity: for everybody, what happened to their own account."""

from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from app import errors
from app.audit.schemas import AuditPage, Filters
from app.audit.service import AuditTrail
from app.auth.dependencies import CurrentPrincipal, authenticated_router
from app.auth.principal import Scope
from app.web.body import is_head, json_response
from app.web.dependencies import service
from app.web.describe import raises
from app.web.pagination import Cursor, Limit

reading = authenticated_router(Scope.AUDIT_READ, prefix="/audit", tags=["audit"])
own = authenticated_router(Scope.ACCOUNT_READ, prefix="/auth/me", tags=["auth"])

Service = Annotated[AuditTrail, service("audit")]

_NDJSON = "application/x-ndjson"


@reading.get("", operation_id="listAudit", response_model=AuditPage, responses=raises(errors.InvalidCursor))
async def list_audit(
    service: Service, filters: Annotated[Filters, Query()], limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Events of all accounts that match every filter, the latest first. Each such call is an event itself.

    A page looks through a limited part of the trail: it may have few items, and a next page all the same.
    """
    return json_response(await service.find(filters, limit, cursor))


@reading.get(
    "/export",
    operation_id="exportAudit",
    response_class=StreamingResponse,
    responses={
        200: {"description": "A line of JSON for each event.", "content": {_NDJSON: {"schema": {"type": "string"}}}},
        **raises(errors.TooBusy),
    },
)
async def export_audit(
    request: Request, principal: CurrentPrincipal, service: Service, filters: Annotated[Filters, Query()]
) -> Response:
    """All events of all accounts that match every filter, and have happened by now, the oldest first, as NDJSON."""
    if is_head(request):
        return Response(None, media_type=_NDJSON)
    return StreamingResponse(await service.export(principal, filters), media_type=_NDJSON)


@own.get("/activity", operation_id="listActivity", response_model=AuditPage, responses=raises(errors.InvalidCursor))
async def list_activity(
    principal: CurrentPrincipal, service: Service, limit: Limit = 20, cursor: Cursor = None
) -> Response:
    """What happened to the caller's own account, the latest first: logins and failed ones, sessions, the password, what
    operators have seen of it."""
    return json_response(await service.activity(principal, limit, cursor))
