"""python -m app processors: list | check | pause | resume."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from app import testing
from app.commands.fields import model
from app.commands.services import with_services
from app.operators.schemas import PausedProcessor, PauseRequest
from app.processing.contract import runs_elsewhere
from app.processors.base import Params
from app.settings import load
from app.telemetry import logs
from app.wiring import adapters
from app.wiring.services import Services

processors = typer.Typer(help="List, check, pause and resume processors.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The processor.")]
_Checked = Annotated[str, typer.Argument(metavar="NAME", help="The processor, as PROCESSORS would name it.")]
_Files = Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="PDF or DOCX.")]
_Params = Annotated[str, typer.Option(help="Its params, as JSON.")]
_Reason = Annotated[str | None, typer.Option(help="Why; other operators see it.")]


@processors.command("list")
def list_all() -> None:
    """List the processors: version, where each comes from, and which are paused."""

    async def work(services: Services) -> None:
        paused = {each.processor: each for each in await services.operators.processors.all()}
        processors = adapters.offered(services.settings)
        origins = {each.processor.name: each.origin for each in adapters.chosen(services.settings)}
        for processor in processors.values():
            pause = paused.pop(processor.name, None)
            origin = "run elsewhere" if runs_elsewhere(processor) else origins[processor.name]
            typer.echo(f"{processor.name} {processor.version} ({origin})" + (f", {since(pause)}" if pause else ""))
        for pipeline in adapters.pipelines(services.settings, processors).values():
            pause = paused.pop(pipeline.name, None)
            typer.echo(f"{pipeline.name} ({', '.join(pipeline.spelled)})" + (f", {since(pause)}" if pause else ""))
        for pause in paused.values():
            typer.echo(f"{pause.processor} (not here), {since(pause)}")

    with_services(work)


@processors.command("check")
def check(name: _Checked, files: _Files, *, params: _Params = "{}") -> None:
    """Run a processor on files, and say of each part of its contract whether it keeps it. Exit code 1: not all."""
    settings = load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json, to="stderr")
    [(processor, _)] = adapters.chosen(settings, name)
    given, faults = _given(processor.params, params), 0
    for what, fault in testing.check(processor, *files, params=given, max_result_bytes=settings.max_result_bytes):
        typer.echo(f"{'not ok' if fault else 'ok'}: {what}{f': {fault}' if fault else ''}")
        faults += fault is not None
    raise typer.Exit(1 if faults else 0)


def _given(params: type[Params], text: str) -> dict[str, Any]:
    """Params as they are typed; otherwise exit."""
    try:
        given: dict[str, Any] = json.loads(text)
        params.model_validate(given)
    except ValueError as error:
        sys.exit(" ".join(f"params: {error}".split()))
    return given


@processors.command("pause")
def pause(name: _Name, *, reason: _Reason = None) -> None:
    """Have no process begin another attempt with it. Jobs are accepted and wait; attempts under way go on."""
    request = model(PauseRequest, reason=reason)
    paused = with_services(lambda services: services.operators.processors.pause(name, request.reason))
    typer.echo(f"{paused.processor} {since(paused)}")


@processors.command("resume")
def resume(name: _Name) -> None:
    """Have its jobs begun again."""
    with_services(lambda services: services.operators.processors.resume(name))
    typer.echo(f"{name} is not paused.")


def since(paused: PausedProcessor) -> str:
    """Since when a processor is paused, and why, in words."""
    return f"is paused since {paused.since:%Y-%m-%d %H:%M} by {paused.actor}: {paused.reason or 'no reason given'}"
