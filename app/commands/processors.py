"""python -m app processors: list | pause | resume."""

from typing import Annotated

import typer

from app.commands.fields import model
from app.commands.services import with_services
from app.operators.schemas import PausedProcessor, PauseRequest
from app.wiring import Services

processors = typer.Typer(help="Pause and resume processors.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The processor.")]
_Reason = Annotated[str | None, typer.Option(help="Why; other operators see it.")]


@processors.command("list")
def list_all() -> None:
    """List the processors, and which of them are paused."""

    async def work(services: Services) -> None:
        paused = {each.processor: each for each in await services.operators.processors.all()}
        for name in dict.fromkeys((*(each.name for each in services.processing.offered.items), *paused)):
            typer.echo(line(paused[name]) if name in paused else name)

    with_services(work)


@processors.command("pause")
def pause(name: _Name, *, reason: _Reason = None) -> None:
    """Have no process begin another attempt with it. Jobs are accepted and wait; attempts under way go on."""
    request = model(PauseRequest, reason=reason)
    typer.echo(line(with_services(lambda services: services.operators.processors.pause(name, request.reason))))


@processors.command("resume")
def resume(name: _Name) -> None:
    """Have its jobs begun again."""
    with_services(lambda services: services.operators.processors.resume(name))
    typer.echo(f"{name} is not paused.")


def line(paused: PausedProcessor) -> str:
    """A paused processor in words."""
    since = f"{paused.since:%Y-%m-%d %H:%M}"
    return f"{paused.processor} is paused since {since} by {paused.actor}: {paused.reason or 'no reason given'}"
