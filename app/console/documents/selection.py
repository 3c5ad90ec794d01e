"""What is done with several documents at once: those that were chosen in a list, or all that match its filter."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

from fastapi import BackgroundTasks, Query, Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.documents import requests
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.documents.dependencies import Service as Documents
from app.documents.schemas import Filters, Selection
from app.documents.trash_routes import Service as Deletion
from app.errors import AppError
from app.processing.batch_routes import Service as Batches
from app.processing.routes import Service as Processing
from app.processing.schemas import MAX_BATCH, BatchResponse

reading = pages_for(Scope.DOCUMENTS_READ)
writing = pages_for(Scope.DOCUMENTS_WRITE)
processing = pages_for(Scope.DOCUMENTS_PROCESS)
deleting = pages_for(Scope.DOCUMENTS_DELETE)

_T = TypeVar("_T")
_SHOWN = 100  # refusals
_MANY = 10_000  # documents, above which they are not counted


class _Refused(NamedTuple):
    """A document to which it was not done, and why."""

    document_id: UUID
    reason: str


@deleting.post("/selection/delete")
async def delete(
    request: Request, principal: CurrentPrincipal, service: Deletion, background: BackgroundTasks
) -> Response:
    """Move documents to the trash, or where there is none delete them for good."""
    done, refused = await _each(request, lambda each: service.delete(principal, each))
    background.add_task(service.remove_files, [key for keys in done for key in keys])
    return _outcome(request, "deleted", len(done), refused, back="/documents")


@deleting.post("/selection/purge")
async def purge(
    request: Request, principal: CurrentPrincipal, service: Deletion, background: BackgroundTasks
) -> Response:
    """Delete documents for good."""
    done, refused = await _each(request, lambda each: service.delete(principal, each, permanent=True))
    background.add_task(service.remove_files, [key for keys in done for key in keys])
    return _outcome(request, "deleted for good", len(done), refused, back="/documents?trashed=true")


@writing.post("/selection/restore")
async def restore(request: Request, principal: CurrentPrincipal, service: Deletion) -> Response:
    """Take documents out of the trash."""
    done, refused = await _each(request, lambda each: service.restore(principal, each))
    return _outcome(request, "restored", len(done), refused, back="/documents?trashed=true")


@processing.post("/selection/process")
async def process(
    request: Request, principal: CurrentPrincipal, service: Batches, background: BackgroundTasks
) -> Response:
    """Have documents processed by one processor, with its defaults."""
    asked = requests.batch_request(await forms.fields_of(request), await requests.chosen(request))
    answer = await service.process(principal, asked, None)
    _wake(background, service, answer.started)
    return _processed(request, answer.response)


@reading.get("/selection/matching")
async def ask(
    request: Request,
    principal: CurrentPrincipal,
    service: Documents,
    offered: Processing,
    selection: Annotated[Selection, Query()],
) -> Response:
    """How many documents match, as far as they are counted, and by what they are to be processed."""
    given = selection.model_dump(mode="json", exclude_none=True)
    total = await service.count(principal, Filters(**given), _MANY + 1)
    values: dict[str, Any] = {"given": given, "total": total, "offered": offered.offered.items}
    return pages.page(request, "documents/matching.html", many=_MANY, most=MAX_BATCH, **values)


@processing.post("/selection/process-matching")
async def process_matching(
    request: Request, principal: CurrentPrincipal, service: Batches, background: BackgroundTasks
) -> Response:
    """Have all documents processed that match, or the first of them."""
    fields = await forms.fields_of(request)
    answer = await service.process(principal, requests.filtered_request(fields), None)
    _wake(background, service, answer.started)
    return _processed(request, answer.response, fields | {"cursor": answer.response.next_cursor})


async def _each(request: Request, work: Callable[[UUID], Awaitable[_T]]) -> tuple[list[_T], list[_Refused]]:
    """Do the work with each document that was chosen. Returns what it returned, and what was refused."""
    done, refused = list[_T](), list[_Refused]()
    for each in await requests.chosen(request):
        try:
            done.append(await work(each))
        except AppError as error:
            refused.append(_Refused(each, error.detail))
    return done, refused


def _wake(background: BackgroundTasks, service: Batches, started: Iterable[UUID]) -> None:
    for job_id in started:
        background.add_task(service.wake, job_id)


def _processed(request: Request, response: BatchResponse, rest: dict[str, Any] | None = None) -> Response:
    refused = [_Refused(each.document_id, each.detail) for each in response.skipped]
    started = sum(each.started for each in response.accepted)
    done_before = len(response.accepted) - started
    more = rest if response.next_cursor else None
    return _outcome(request, "accepted for processing", started, refused, unchanged=done_before, more=more)


def _outcome(
    request: Request,
    what: str,
    count: int,
    refused: list[_Refused],
    *,
    back: str = "/documents",
    unchanged: int = 0,
    more: dict[str, Any] | None = None,
) -> Response:
    """The page that says what was done to how many, to which it was not, and what is left."""
    values: dict[str, Any] = {"what": what, "count": count, "unchanged": unchanged, "back": back, "more": more}
    values |= {"refused": refused[:_SHOWN], "unshown": max(len(refused) - _SHOWN, 0)}
    return pages.page(request, "documents/outcome.html", **values)
