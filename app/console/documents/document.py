"""The page of one document: all that there is to know of it, and what can be done with it."""

from typing import Annotated, Any, NamedTuple
from uuid import UUID

import orjson
from fastapi import Depends, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Principal, Scope
from app.console.documents import params
from app.console.documents.params import Chosen
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.documents.dependencies import DocumentId, Service as Documents
from app.documents.file_versions.routes import Versions
from app.documents.file_versions.service import FileVersions
from app.documents.service import DocumentService
from app.processing.models import ResultFile
from app.processing.results import StoredResult
from app.processing.routes import Service as Processing
from app.processing.schemas import JobFilters, Provenance
from app.processing.service import ProcessingService
from app.processing.stages.pipeline import AD_HOC
from app.web.pagination import Cursor

router = pages_for(Scope.DOCUMENTS_READ)

_SHOWN = 20  # jobs, children and files
_EVENTS = 50


class _Shown(NamedTuple):
    """A result: its text if it has one, the rest of its data as far as a page can show it, and its files."""

    made: Provenance
    size: int
    text: str | None
    data: dict[str, Any] | None
    files: list[ResultFile]


class _Services(NamedTuple):
    documents: DocumentService
    files: FileVersions
    processing: ProcessingService


def _services(documents: Documents, files: Versions, processing: Processing) -> _Services:
    return _Services(documents, files, processing)


@router.get("/documents/{document_id}")
async def show(
    request: Request,
    document_id: DocumentId,
    principal: CurrentPrincipal,
    services: Annotated[_Services, Depends(_services)],
    processor: Chosen = None,
    cursor: Cursor = None,
) -> Response:
    """One document, and a form to have it processed."""
    values = await _gathered(services, principal, document_id, cursor)
    choice = params.choice(values.pop("offered"), processor, first=True)
    return pages.page(request, "documents/document.html", cursor=cursor, unspelled=AD_HOC, choice=choice, **values)


async def _gathered(services: _Services, principal: Principal, document_id: UUID, cursor: str | None) -> dict[str, Any]:
    """What the page shows. Raises NotFound, InvalidCursor, TooBusy."""
    documents, files, processing = services
    document = await documents.get(principal, document_id)
    offered = [each for each in processing.offered.items if document.content_type in each.content_types]
    return {
        "document": document,
        "offered": offered,
        "jobs": await processing.jobs(principal, JobFilters(document_id=document_id), _SHOWN, None),
        "results": await _results(processing, principal, document_id),
        "children": await documents.children(principal, document_id, _SHOWN, None),
        "files": await files.find(principal, document_id, _SHOWN, None),
        "timeline": await documents.timeline(principal, document_id, _EVENTS, cursor),
    }


async def _results(processing: ProcessingService, principal: Principal, document_id: UUID) -> list[_Shown]:
    found = await processing.results(principal, document_id)
    return [_shown(each, await processing.files(principal, document_id, each.provenance.processor)) for each in found]


def _shown(result: StoredResult, files: list[ResultFile]) -> _Shown:
    data = orjson.loads(result.data) if result.data else None
    text = data.pop("text") if data and isinstance(data.get("text"), str) else None
    return _Shown(result.provenance, result.size, text, data, files)
