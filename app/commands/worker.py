"""python -m app worker --remote: a worker that needs nothing of the service but its API."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from app.client.calls import Stopped
from app.client.commands import require_url
from app.server import remote_worker
from app.settings import Settings

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
        help="Of --remote, only jobs of this processor; may be repeated. Default: of all that are run elsewhere, and "
        "are here.",
    ),
]


def require_none(where: str, options: Mapping[str, object]) -> None:
    """Raise BadParameter for options that were given and are of no use there."""
    if given := [name for name, value in options.items() if value]:
        raise typer.BadParameter(f"{given[0]} is of no use with {where}")


def work_elsewhere(settings: Settings, url: str, key: str, names: Sequence[str]) -> None:
    """Claim and run jobs of the service at the URL, until a signal. Raises BadParameter, ConfigurationError."""
    require_url(url, "--remote")
    if not key or not key.isascii() or not key.isprintable():
        raise typer.BadParameter("--remote needs an API key: in DOCUMENT_API_KEY, or in the file of --key-file")
    try:
        remote_worker.run(settings, url, key, names)
    except Stopped as error:
        sys.exit(f"stopped: {error}")
