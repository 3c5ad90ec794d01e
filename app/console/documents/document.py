"""The page of one document: all that there is to know of it, and what can be done with it."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from fastapi import Depends, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Principal, Scope
from app.console.documents import params, results, timeline
from app.console.documents.params import Chosen
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.documents.deletion import Deletion
from app.documents.dependencies import DocumentId, Service as Documents
from app.documents.file_versions.routes import Versions
from app.documents.file_versions.service import FileVersions
from app.documents.schemas import Document
from app.documents.service import DocumentService
from app.documents.trash_routes import Service as Trash
from app.errors import NotFound
from app.processing.answers import Answers
from app.processing.routes import Sending, Service as Processing
from app.processing.schemas import JobFilters
from app.processing.service import ProcessingService
from app.web.pagination import Cursor
from app.webhooks.routes import Service as Webhooks
from app.webhooks.service import WebhookService

router = pages_for(Scope.DOCUMENTS_READ)

_SHOWN = 20  # jobs, children, files and deliveries
_EVENTS = 50
_DRAWN = 500  # events, of which the jobs' pictures are made
_TOLD = 100  # events, of which webhooks may have been told


class _Services(NamedTuple):
    documents: DocumentService
    deletion: Deletion
    files: FileVersions
    processing: ProcessingService
    answers: Answers
    webhooks: WebhookService


def _services(
    documents: Documents,
    deletion: Trash,
    files: Versions,
    processing: Processing,
    answers: Sending,
    webhooks: Webhooks,
) -> _Services:
    return _Services(documents, deletion, files, processing, answers, webhooks)


@router.get("/documents/{document_id}")
async def show(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    services: Annotated[_Services, Depends(_services)],
    processor: Chosen = None,
    cursor: Cursor = None,
) -> Response:
    """One document and a form to have it processed, or what can be done with it while it is in the trash."""
    try:
        values = await _gathered(services, principal, document_id, processor, cursor)
    except NotFound:
        trashed = await services.deletion.in_trash(principal, document_id)
        return pages.page(request, "documents/trashed.html", document=trashed)
    return await pages.long_page(request, "documents/document.html", cursor=cursor, **values)


async def _gathered(
    services: _Services, principal: Principal, document_id: UUID, processor: str | None, cursor: str | None
) -> dict[str, Any]:
    """What the page shows. Raises NotFound, UnknownProcessor, InvalidCursor, TooBusy."""
    documents, _, files, processing, answers, webhooks = services
    document = await documents.get(principal, document_id)
    latest = await documents.latest_events(principal, document_id, _DRAWN)
    jobs = await processing.jobs(principal, JobFilters(document_id=document_id), _SHOWN, None)
    offered = [each for each in processing.offered.items if document.content_type in each.content_types]
    pictures = timeline.pictures(jobs.items, latest, datetime.now(UTC))
    return {
        "document": document,
        "parent": await _parent(documents, principal, document),
        "choice": params.choice(offered, processor, first=True),
        "jobs": jobs,
        "pictures": pictures,
        "legend": timeline.legend(pictures.values()),
        "words": timeline.WORDS,
        "results": await results.of_document(processing, answers, principal, document_id),
        "children": await documents.children(principal, document_id, _SHOWN, None),
        "files": await files.find(principal, document_id, _SHOWN, None),
        "timeline": await documents.timeline(principal, document_id, _EVENTS, cursor),
        "deliveries": await webhooks.about(principal, [each.id for each in latest[-_TOLD:]], _SHOWN),
    }


async def _parent(documents: DocumentService, principal: Principal, document: Document) -> Document | None:
    """What the document was made of, unless that is deleted."""
    if document.parent_id is None:
        return None
    with suppress(NotFound):
        return await documents.get(principal, document.parent_id)
    return None
