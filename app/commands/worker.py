"""python -m app worker --remote: a worker that needs nothing of the service but its API."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_urlsafe
from typing import Annotated

import typer
import uvicorn

from app.client.calls import Stopped
from app.client.commands import require_url
from app.server.remote_worker import Elsewhere
from app.settings import load
from app.settings.access import MIN_SECRET_BYTES
from app.wiring import adapters

Remote = Annotated[
    str | None, typer.Option(metavar="URL", help="Work for the service there, without its database and files.")
]
Key = Annotated[
    str,
    typer.Option(envvar="DOCUMENT_API_KEY", help="API key, for --remote. Others on this host see what is an option."),
]
KeyFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="File that holds the API key, for --remote.")
]
Processors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Claim only jobs of this processor, for --remote; may be repeated. Default: of all that are run elsewhere "
        "and are here.",
    ),
]


def require_none(where: str, options: Mapping[str, object]) -> None:
    """Raise BadParameter for options that were given and are of no use there."""
    if given := [name for name, value in options.items() if value]:
        raise typer.BadParameter(f"{given[0]} is of no use with {where}")


def elsewhere(url: str, key: str, names: Sequence[str]) -> Elsewhere:
    """What runs jobs of the service at the URL with the processors of these names, or with all of PROCESSORS.

    Raises BadParameter, ConfigurationError.
    """
    require_url(url, "--remote")
    if not key or not key.isascii() or not key.isprintable():
        raise typer.BadParameter("--remote needs an API key: in DOCUMENT_API_KEY, or in the file of --key-file")
    settings = load(jwt_secret=token_urlsafe(MIN_SECRET_BYTES))  # it signs nothing
    return Elsewhere(settings, url, key, [each.processor for each in adapters.chosen(settings, *names)])


def work(server: uvicorn.Server, worker: Elsewhere | None, *, serving: bool) -> None:
    """Run a worker until a signal, serving its health if it is to.

    A worker elsewhere ends by itself, with one line, if the service will not have it or has nothing for it.
    """

    def end() -> None:
        server.should_exit = True

    if worker:
        worker.ended = end
    server.run(sockets=None if serving else [])
    if worker and isinstance(worker.failure, Stopped):
        sys.exit(f"stopped: {worker.failure}")
    if worker and worker.failure:
        raise worker.failure
