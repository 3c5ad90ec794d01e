"""python -m app documents: list | show."""

from typing import Annotated
from uuid import UUID

import typer

from app.commands.fields import model
from app.commands.lists import PAGE, Most, Owner, of_owner, pages
from app.commands.services import with_services
from app.documents.schemas import Document
from app.operators.schemas import DocumentsFilters
from app.web.pagination import Page
from app.wiring import Services

documents = typer.Typer(help="See what is known about the documents of all accounts.", no_args_is_help=True)

_Status = Annotated[str | None, typer.Option(help="Only those in this status, such as FAILED.")]
_Folder = Annotated[str | None, typer.Option(help="Only those in this folder.")]
_Tag = Annotated[str | None, typer.Option(help="Only those with this tag.")]
_Part = Annotated[str | None, typer.Option("--q", help="Part of the filename or the description.")]
_Sha256 = Annotated[str | None, typer.Option(help="Only those with this file, in hex.")]
_After = Annotated[str | None, typer.Option(metavar="TIME", help="Created later; such as 2026-11-29T08:00:00Z.")]
_Before = Annotated[str | None, typer.Option(metavar="TIME", help="Created earlier.")]
_AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on each line.")]


@documents.callback()
def group() -> None:
    """See what is known about the documents of all accounts."""


@documents.command("list")
def list_all(
    *,
    owner: Owner = None,
    status: _Status = None,
    folder: _Folder = None,
    tag: _Tag = None,
    part: _Part = None,
    sha256: _Sha256 = None,
    after: _After = None,
    before: _Before = None,
    most: Most = PAGE,
    as_json: _AsJson = False,
) -> None:
    """List documents, newest first."""
    given = {"status": status, "folder": folder, "tag": tag, "q": part, "sha256": sha256}
    filters = model(DocumentsFilters, **given, created_after=after, created_before=before)

    async def work(services: Services) -> None:
        wanted = await of_owner(services, filters, owner)

        async def page(limit: int, cursor: str | None) -> Page[Document]:
            return await services.operators.documents.find(wanted, limit, cursor)

        async for document in pages(page, most):
            typer.echo(document.model_dump_json() if as_json else _line(document))

    with_services(work)


@documents.command("show")
def show(document_id: Annotated[UUID, typer.Argument(metavar="ID", help="The document's id.")]) -> None:
    """Show what is known about a document as JSON."""
    typer.echo(with_services(lambda services: services.operators.documents.get(document_id)).model_dump_json(indent=2))


def _line(each: Document) -> str:
    created = f"{each.created_at:%Y-%m-%d %H:%M:%S}"
    return f"{each.id}  {created}  {each.status:10}  {each.size:>12}  owner {each.owner_id}  {each.filename}"
