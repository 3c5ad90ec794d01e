"""Documents of all accounts: what is known about them, holds, and for a reason that the owner sees what is in them."""

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response

from app.audit.dependencies import Noted
from app.audit.routes import Service as Audit
from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import forms, pages, paging
from app.console.frame.route import pages_for
from app.console.operators import requests
from app.documents import content
from app.documents.dependencies import DocumentId
from app.documents.lifecycle import Status
from app.files.models import ContentType
from app.operators.dependencies import Operating, stated_reason
from app.operators.routes import Sending
from app.operators.schemas import DocumentsFilters
from app.web.pagination import Cursor, Limit

router = pages_for(Scope.OPERATOR, "/operators/documents")

_CHOICES: dict[str, Any] = {"statuses": list(Status), "content_types": list(ContentType)}
_EVENTS = 50


@router.get("", operation_id="listAllDocuments")
async def find(
    *,
    request: Request,
    operators: Operating,
    noted: Noted,
    filters: Annotated[DocumentsFilters, Query()],
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The documents that match every filter, newest first."""
    found = await operators.documents.find(filters, limit, cursor)
    await noted(dict(filters), filters.owner_id)
    shown = _CHOICES | paging.links(request, found.next_cursor)
    return pages.page(request, "operators/documents.html", documents=found.items, filters=filters, **shown)


@router.get("/{document_id}", operation_id="getAnyDocument")
async def show(
    *,
    request: Request,
    document_id: DocumentId,
    operators: Operating,
    noted: Noted,
    audit: Audit,
    cursor: Cursor = None,
) -> Response:
    """What is known about one document, and its timeline."""
    document = await operators.documents.get(document_id)
    timeline = await operators.documents.timeline(document, _EVENTS, cursor)
    await noted({"document_id": document_id}, document.owner_id)
    await audit.note("getAnyTimeline", {"document_id": document_id}, document.owner_id)
    shown: dict[str, Any] = {"timeline": timeline, "cursor": cursor, "readable": operators.documents.readable}
    return pages.page(request, "operators/document.html", document=document, **shown)


@router.post("/{document_id}/hold")
async def hold(request: Request, document_id: DocumentId, operators: Operating) -> Response:
    """Have nobody remove it."""
    wanted = requests.hold_request(await forms.fields_of(request))
    await operators.documents.hold(document_id, wanted.reason)
    return _to(document_id)


@router.post("/{document_id}/release")
async def release(document_id: DocumentId, operators: Operating) -> Response:
    """End the hold."""
    await operators.documents.release(document_id)
    return _to(document_id)


@router.post("/{document_id}/content", operation_id="getAnyContent")
async def get_content(
    request: Request, document_id: DocumentId, principal: CurrentPrincipal, operators: Operating, noted: Noted
) -> Response:
    """Send the file, once the owner's timeline says who reads it, and why."""
    every = operators.documents
    document, file = await every.content(document_id, await _reason(request))
    await noted({"document_id": document_id}, document.owner_id)
    send = partial(every.service.content, principal, document, file)
    return await content.respond(request, file, document.filename, send)


@router.post("/{document_id}/result", operation_id="getAnyResult")
async def get_result(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    operators: Operating,
    noted: Noted,
    answers: Sending,
) -> Response:
    """Send the current result, as above."""
    document, result = await operators.documents.result(principal, document_id, await _reason(request))
    await noted({"document_id": document_id}, document.owner_id)
    return await answers.respond(request, principal, result)


async def _reason(request: Request) -> str | None:
    sent = (await forms.fields_of(request)).get("reason")
    return None if sent is None else stated_reason(sent, "reason")


def _to(document_id: UUID) -> Response:
    return pages.to(f"/operators/documents/{document_id}", "saved")
