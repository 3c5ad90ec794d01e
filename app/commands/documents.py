"""python -m app documents: list | show | hold | release | timeline."""

from functools import partial
from typing import Annotated
from uuid import UUID

import typer

from app import events
from app.commands.fields import model
from app.commands.lists import PAGE, Most, Owner, of_owner, pages
from app.commands.services import with_services
from app.documents.schemas import Document
from app.operators.schemas import DocumentsFilters, HoldRequest
from app.web.pagination import Page
from app.wiring.services import Services

documents = typer.Typer(help="See what is known about the documents of all accounts; hold them.", no_args_is_help=True)

_Status = Annotated[str | None, typer.Option(help="Only those in this status, such as FAILED.")]
_Type = Annotated[str | None, typer.Option("--content-type", help="Only those of this format.")]
_Id = Annotated[UUID, typer.Argument(metavar="ID", help="The document's id.")]
_Folder = Annotated[str | None, typer.Option(help="Only those in this folder.")]
_Tag = Annotated[str | None, typer.Option(help="Only those with this tag.")]
_Part = Annotated[str | None, typer.Option("--q", help="Part of the filename or the description.")]
_Sha256 = Annotated[str | None, typer.Option(help="Only those with this file, in hex.")]
_After = Annotated[str | None, typer.Option(metavar="TIME", help="Created later; such as 2026-11-29T08:00:00Z.")]
_Before = Annotated[str | None, typer.Option(metavar="TIME", help="Created earlier.")]
_AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on each line.")]


@documents.callback()
def group() -> None:
    """See what is known about the documents of all accounts; hold them."""


@documents.command("list")
def list_all(
    *,
    owner: Owner = None,
    status: _Status = None,
    content_type: _Type = None,
    folder: _Folder = None,
    tag: _Tag = None,
    part: _Part = None,
    sha256: _Sha256 = None,
    after: _After = None,
    before: _Before = None,
    most: Most = PAGE,
    trashed: Annotated[bool, typer.Option("--trashed", help="Those in the trash, instead of the others.")] = False,
    held: Annotated[bool, typer.Option("--held", help="Only those on hold.")] = False,
    as_json: _AsJson = False,
) -> None:
    """List documents, newest first."""
    given = {"status": status, "content_type": content_type, "folder": folder, "tag": tag, "q": part, "sha256": sha256}
    filters = model(DocumentsFilters, **given, created_after=after, created_before=before, trashed=trashed, held=held)

    async def work(services: Services) -> None:
        wanted = await of_owner(services, filters, owner)
        await services.audit.note("listAllDocuments", dict(wanted), wanted.owner_id)

        async def page(limit: int, cursor: str | None) -> Page[Document]:
            return await services.operators.documents.find(wanted, limit, cursor)

        async for document in pages(page, most):
            typer.echo(document.model_dump_json() if as_json else _line(document))

    with_services(work)


@documents.command("show")
def show(document_id: _Id) -> None:
    """Show what is known about a document as JSON."""

    async def work(services: Services) -> None:
        document = await services.operators.documents.get(document_id)
        await services.audit.note("getAnyDocument", {"document_id": document_id}, document.owner_id)
        typer.echo(document.model_dump_json(indent=2))

    with_services(work)


@documents.command("hold")
def hold(document_id: _Id, *, reason: Annotated[str, typer.Option(help="Why. The owner sees it.")]) -> None:
    """Have nobody remove a document, whoever owns it, until it is released."""
    asked = model(HoldRequest, reason=reason)
    with_services(lambda services: services.operators.documents.hold(document_id, asked.reason))
    typer.echo(f"{document_id} is on hold.")


@documents.command("release")
def release(document_id: _Id) -> None:
    """End the hold of a document."""
    with_services(lambda services: services.operators.documents.release(document_id))
    typer.echo(f"{document_id} is not on hold.")


@documents.command("timeline")
def timeline(document_id: _Id) -> None:
    """Show what happened to a document, the oldest first: one JSON object on each line."""

    async def work(services: Services) -> None:
        document = await services.operators.documents.get(document_id)
        await services.audit.note("getAnyTimeline", {"document_id": document_id}, document.owner_id)
        after, page = 0, partial(events.timeline, document_id=document_id, limit=PAGE)
        while found := await services.db.read(partial(page, after=after)):
            for after, item in found:  # noqa: B007 - the last one is where the next page begins
                typer.echo(item.model_dump_json())

    with_services(work)


def _line(each: Document) -> str:
    created = f"{each.created_at:%Y-%m-%d %H:%M:%S}"
    held = "  on hold" if each.hold else ""
    return f"{each.id}  {created}  {each.status:10}  {each.size:>12}  owner {each.owner_id}  {each.filename}{held}"
