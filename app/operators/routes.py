"""/admin/documents, /admin/processors and /admin/status."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from app import errors
from app.audit.dependencies import Noted
from app.auth.dependencies import CurrentPrincipal
from app.documents import content as document_content, describe as content_describe
from app.documents.dependencies import DocumentId
from app.documents.schemas import Document, DocumentPage
from app.events import TimelinePage
from app.jobs.pauses import MAX_REASON
from app.operators.dependencies import HEADER, Operating, StatusOf, admin_router, break_glass
from app.operators.schemas import DocumentsFilters, PausedProcessor, PauseRequest
from app.operators.status import ServiceStatus
from app.processing import describe as result_describe
from app.processing.answers import Answers
from app.processing.bulk_schemas import ProcessorName
from app.processing.schemas import Result
from app.web.body import json_response
from app.web.dependencies import service
from app.web.describe import accepts, raises
from app.web.pagination import Count, Cursor, Limit, page_response

router = admin_router()

Sending = Annotated[Answers, service("answers")]
ProcessorPath = Annotated[ProcessorName, Path()]
_TEXT = r"[^\x00-\x1f\x7f-\x9f]"
_REASON = {
    "in": "header",
    "name": HEADER,
    "description": "Why, in one line. The owner sees it.",
    "schema": {"type": "string", "maxLength": MAX_REASON, "pattern": rf"^{_TEXT}*[^\x00-\x20\x7f-\xa0]{_TEXT}*$"},
}
_BREAKING_GLASS = (errors.BreakGlassDisabled, errors.BreakGlassRequired, errors.StorageFull)
_NO_REASON = PauseRequest()


def _for_a_reason(headers: Mapping[str, str]) -> dict[str, Any]:
    """The OpenAPI `parameters` for these headers and the reason."""
    return {"parameters": [_REASON, *accepts(**headers)["parameters"]]}


@router.get("/status", operation_id="getStatus", response_model=ServiceStatus, responses=raises())
async def get_status(status_of: StatusOf) -> Response:
    """The state of the service: queues, processes and their attempts, alarms, upkeep, disks."""
    return json_response(await status_of())


@router.get(
    "/documents",
    operation_id="listAllDocuments",
    response_model=DocumentPage,
    responses=raises(errors.InvalidCursor, errors.SearchTooBroad, errors.TooBusy, errors.StorageFull),
)
async def list_all_documents(
    *,
    operators: Operating,
    noted: Noted,
    filters: Annotated[DocumentsFilters, Query()],
    limit: Limit = 20,
    cursor: Cursor = None,
    count: Count = False,
) -> Response:
    """What is known about the documents of all accounts that match every filter, newest first."""
    page = await operators.documents.find(filters, limit, cursor, count=count)
    await noted(dict(filters), filters.owner_id)
    return page_response(page)


@router.get(
    "/documents/{document_id}",
    operation_id="getAnyDocument",
    response_model=Document,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.StorageFull),
)
async def get_any_document(document_id: DocumentId, operators: Operating, noted: Noted) -> Response:
    """What is known about one document, whoever owns it."""
    document = await operators.documents.get(document_id)
    await noted({"document_id": document_id}, document.owner_id)
    return json_response(document)


@router.get(
    "/documents/{document_id}/timeline",
    operation_id="getAnyTimeline",
    response_model=TimelinePage,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.InvalidCursor, errors.StorageFull),
)
async def get_any_timeline(
    *,
    document_id: DocumentId,
    operators: Operating,
    noted: Noted,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Everything that happened to the document, oldest first."""
    document = await operators.documents.get(document_id)
    page = await operators.documents.timeline(document, limit, cursor)
    await noted({"document_id": document_id}, document.owner_id)
    return json_response(page)


@router.get(
    "/documents/{document_id}/content",
    operation_id="getAnyContent",
    response_class=StreamingResponse,
    responses={**content_describe.CONTENT, **raises(*content_describe.SENDING, *_BREAKING_GLASS)},
    openapi_extra=_for_a_reason(content_describe.CONTENT_REQUEST),
)
async def get_any_content(
    request: Request, document_id: DocumentId, principal: CurrentPrincipal, operators: Operating, noted: Noted
) -> Response:
    """The file as it was uploaded, for a reason. Only with OPERATOR_CONTENT; the owner's timeline says who, and why."""
    all_documents = operators.documents
    document, file = await all_documents.content(document_id, break_glass(request))
    await noted({"document_id": document_id}, document.owner_id)
    send = partial(all_documents.service.content, principal, document, file)
    return await document_content.respond(request, file, document.filename, send)


@router.get(
    "/documents/{document_id}/result",
    operation_id="getAnyResult",
    response_model=Result,
    responses={
        **result_describe.RESULT,
        **raises(
            errors.ValidationFailed,
            errors.NotFound,
            errors.ResultNotReady,
            errors.ProcessingFailed,
            errors.ResultExpired,
            *result_describe.SENDING,
            *_BREAKING_GLASS,
        ),
    },
    openapi_extra=_for_a_reason(result_describe.RESULT_REQUEST),
)
async def get_any_result(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    operators: Operating,
    noted: Noted,
    answers: Sending,
) -> Response:
    """The current result, for a reason. Only with OPERATOR_CONTENT; the owner's timeline says who, and why."""
    document, result = await operators.documents.result(principal, document_id, break_glass(request))
    await noted({"document_id": document_id}, document.owner_id)
    return await answers.respond(request, principal, result)


@router.post(
    "/processors/{processor}/pause",
    operation_id="pauseProcessor",
    response_model=PausedProcessor,
    responses=raises(errors.NotFound, body=True),
)
async def pause_processor(
    processor: ProcessorPath, principal: CurrentPrincipal, operators: Operating, body: PauseRequest = _NO_REASON
) -> Response:
    """Have no process begin another attempt with it, within a second. Jobs are accepted and wait; attempts go on."""
    return json_response(await operators.processors.pause(processor, body.reason, principal))


@router.post(
    "/processors/{processor}/resume",
    operation_id="resumeProcessor",
    status_code=204,
    responses=raises(errors.ValidationFailed, errors.NotFound, errors.StorageFull),
)
async def resume_processor(processor: ProcessorPath, operators: Operating) -> Response:
    """Have its jobs begun again, within a second."""
    await operators.processors.resume(processor)
    return Response(status_code=204)
