"""python -m app jobs: list | show | rerun | cancel."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

import typer

from app.commands.fields import model
from app.commands.lists import PAGE, Most, Owner, of_owner, pages
from app.commands.services import with_services
from app.operators.schemas import AnyJob, JobsFilters
from app.processing.bulk_schemas import BulkResponse, CancelFilter, CancelRequest, RerunFilter, RerunRequest
from app.web.pagination import CountedPage
from app.wiring.services import Services

jobs = typer.Typer(help="See and steer the jobs of all accounts.", no_args_is_help=True)

_Document = Annotated[str | None, typer.Option(metavar="ID", help="Only those of this document.")]
_Processor = Annotated[str | None, typer.Option(help="Only those of this processor.")]
_State = Annotated[str | None, typer.Option(help="Only those in this state, such as FAILED.")]
_LiveState = Annotated[str | None, typer.Option(help="Only those in this state: QUEUED, RUNNING or WAITING.")]
_Dead = Annotated[bool | None, typer.Option("--dead/--not-dead", help="Whether they used up their attempts.")]
_After = Annotated[str | None, typer.Option(metavar="TIME", help="Created later; such as 2026-11-29T08:00:00Z.")]
_Before = Annotated[str | None, typer.Option(metavar="TIME", help="Created earlier.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on each line.")]


@jobs.command("list")
def list_all(
    *,
    owner: Owner = None,
    document: _Document = None,
    processor: _Processor = None,
    state: _State = None,
    dead: _Dead = None,
    after: _After = None,
    before: _Before = None,
    most: Most = PAGE,
    as_json: _AsJson = False,
) -> None:
    """List jobs, newest first."""
    given = _given(document, processor, after, before) | {"state": state, "dead": dead}

    filters = model(JobsFilters, **given)

    async def work(services: Services) -> None:
        wanted = await of_owner(services, filters, owner)
        await services.audit.note("listAllJobs", dict(wanted), wanted.owner_id)

        async def page(limit: int, cursor: str | None) -> CountedPage[AnyJob]:
            return await services.operators.jobs.find(wanted, limit, cursor)

        async for job in pages(page, most):
            typer.echo(job.model_dump_json() if as_json else _line(job))

    with_services(work)


@jobs.command("show")
def show(job_id: Annotated[UUID, typer.Argument(metavar="ID", help="The job's id.")]) -> None:
    """Show a job as JSON."""

    async def work(services: Services) -> None:
        job = await services.operators.jobs.get(job_id)
        await services.audit.note("getAnyJob", {"job_id": job_id}, job.owner_id)
        typer.echo(job.model_dump_json(indent=2))

    with_services(work)


@jobs.command("rerun")
def rerun(
    *,
    owner: Owner = None,
    document: _Document = None,
    processor: _Processor = None,
    dead: _Dead = None,
    after: _After = None,
    before: _Before = None,
    yes: _Yes = False,
) -> None:
    """Accept the work of failed jobs anew, where nothing else has become of their documents since."""
    filters = model(RerunFilter, **_given(document, processor, after, before), dead=dead)

    async def work(services: Services) -> None:
        wanted = await of_owner(services, filters, owner)

        async def call(confirm: int | None, cursor: str | None) -> BulkResponse:
            request = RerunRequest(filter=wanted, confirm=confirm, cursor=cursor)
            answer, _ = await services.bulk.rerun(request)
            return answer

        await _all(call, "Run {} jobs again?", "run again", yes=yes)

    with_services(work)


@jobs.command("cancel")
def cancel(
    *,
    owner: Owner = None,
    document: _Document = None,
    processor: _Processor = None,
    state: _LiveState = None,
    after: _After = None,
    before: _Before = None,
    yes: _Yes = False,
) -> None:
    """Cancel unfinished jobs. Their documents go back to the state before."""
    filters = model(CancelFilter, **_given(document, processor, after, before), state=state)

    async def work(services: Services) -> None:
        wanted = await of_owner(services, filters, owner)

        async def call(confirm: int | None, cursor: str | None) -> BulkResponse:
            return await services.bulk.cancel(CancelRequest(filter=wanted, confirm=confirm, cursor=cursor))

        await _all(call, "Cancel {} jobs?", "cancelled", yes=yes)

    with_services(work)


async def _all(
    call: Callable[[int | None, str | None], Awaitable[BulkResponse]], question: str, done: str, *, yes: bool
) -> None:
    """Tell how many jobs match and, if that is confirmed, change all of them: as many calls as it takes."""
    matching = (await call(None, None)).matching
    if matching and not yes:
        typer.confirm(question.format(matching), abort=True)
    changed, skipped, cursor, more = 0, 0, None, bool(matching)
    while more:
        answer = await call(matching, cursor)
        changed, skipped, cursor = changed + answer.changed, skipped + sum(answer.skipped.values()), answer.next_cursor
        for code, number in answer.skipped.items():
            typer.echo(f"{number} skipped: {code}")
        more = cursor is not None
    typer.echo(f"Jobs {done}: {changed}; skipped: {skipped}.")


def _given(document: str | None, processor: str | None, after: str | None, before: str | None) -> dict[str, Any]:
    return {"document_id": document, "processor": processor, "created_after": after, "created_before": before}


def _line(job: AnyJob) -> str:
    state = "DEAD" if job.dead else job.state
    why = f"  {job.error.code}: {job.error.detail}" if job.error else ""
    created = f"{job.created_at:%Y-%m-%d %H:%M:%S}"
    return f"{job.id}  {created}  {state:9}  {job.processor or job.kind:12}  owner {job.owner_id}{why}"
