"""python -m app remote: check. For authors of workers elsewhere: it speaks HTTP to a service."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from app.client.api import Credentials
from app.client.calls import Problem, Stopped
from app.client.commands import api_key, require_url
from app.client.outcomes import printable
from app.remote.check.rules import RULES, Rule
from app.remote.check.run import Checked, Verdict, check as run
from app.remote.check.trial import Pace

COULD_NOT = 2  # the exit code

remote = typer.Typer(help="Check workers elsewhere.", no_args_is_help=True)

_Url = Annotated[str, typer.Argument(metavar="URL", help="The service.")]
_Command = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- COMMAND...]", help="Starts the worker, with {url} and {processor} filled in."),
]
_Processor = Annotated[str, typer.Option(metavar="NAME", help="The processor; default: that of the first claim.")]
_Params = Annotated[str, typer.Option(metavar="JSON", help="The params of its jobs.")]
_File = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="What is processed; default: a sample of ours.")
]
_Listen = Annotated[
    str, typer.Option(metavar="HOST:PORT", help="Where the worker finds the check; port 0: a free one.")
]
_Seconds = Annotated[float, typer.Option(min=1, help="That each step of a rule may take, such as a job's work.")]
_Rules = Annotated[list[str] | None, typer.Option("--rule", metavar="NAME", help="Only this; may be repeated.")]


@remote.callback()
def options() -> None:
    """Check workers elsewhere."""


@remote.command()
def check(
    url: _Url,
    command: _Command = None,
    *,
    processor: _Processor = "",
    params: _Params = "{}",
    file: _File = None,
    listen: _Listen = "127.0.0.1:0",
    seconds: _Seconds = 60,
    rule: _Rules = None,
) -> None:
    """Check whether a worker keeps the rules of docs/remote-workers.md.

    The check stands between the worker and the service, and loses answers, damages inputs and takes leases away. Start
    the worker with the URL that is printed, or name a command after `--`.

    The check begins jobs of its own, and leaves those of others alone. The API key in DOCUMENT_API_KEY needs
    documents:read, documents:write and documents:process; without a key, an account is registered.

    Exit code 0: all rules were kept. 1: not all. 2: it could not be checked.
    """
    require_url(url, "URL")
    if not processor and any("{processor}" in word for word in command or ()):
        raise typer.BadParameter("name the --processor that is to be filled in for {processor}")
    credentials = Credentials(api_key(), f"remote-check-{uuid4().hex}@example.com", uuid4().hex)
    checked = Checked(
        url=url,
        credentials=credentials,
        rules=_chosen(rule),
        processor=processor,
        params=_object(params),
        file=file,
        command=command or (),
        listen=_address(listen),
        pace=Pace(limit=seconds),
    )
    began = time.monotonic()
    count = Counter(verdict.held for verdict in _verdicts(checked))
    not_judged = f", {count[None]} could not be judged" if count[None] else ""
    took = f"It took {time.monotonic() - began:.0f} seconds."
    typer.echo(f"{count[True]} of {count.total()} rules were kept{not_judged}. {took}")
    raise typer.Exit(1 if count[False] else 0)


def _verdicts(checked: Checked) -> list[Verdict]:
    """Check, and print each verdict. Exits if it cannot be checked."""
    verdicts = list[Verdict]()

    def judged(verdict: Verdict) -> None:
        verdicts.append(verdict)
        typer.echo(printable(str(verdict)))  # it may quote the worker

    try:
        asyncio.run(run(checked, lambda here: typer.echo(f"For the worker, the service is at {here}."), judged))
    except (Problem, Stopped, OSError) as error:
        denied = isinstance(error, Problem) and error.status in {401, 403}
        key = " (the key in DOCUMENT_API_KEY is to be a user's, not the worker's)" if denied else ""
        typer.echo(f"remote check: {error}{key}", err=True)
        raise typer.Exit(COULD_NOT) from None
    return verdicts


def _chosen(names: list[str] | None) -> list[Rule]:
    """Raises BadParameter."""
    known = {each.name: each for each in RULES}
    if unknown := set(names or ()) - set(known):
        raise typer.BadParameter(f"--rule: {unknown.pop()} is none of {', '.join(known)}")
    return [each for name, each in known.items() if not names or name in names]


def _object(params: str) -> dict[str, Any]:
    """Raises BadParameter."""
    try:
        given = json.loads(params)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise typer.BadParameter("--params must be a JSON object")
    return given


def _address(listen: str) -> tuple[str, int]:
    """Raises BadParameter."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise typer.BadParameter("--listen must be HOST:PORT")
    return host.strip("[]"), int(port)
