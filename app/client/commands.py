"""python -m app client: upload. For machines that run no service: it speaks HTTP to one."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO
from urllib.parse import urlsplit

import typer

from app.client.files import Found, walk
from app.client.outcomes import FileReport, Outcome, Summary, printable, write_line

if TYPE_CHECKING:
    from app.client.api import Credentials

client = typer.Typer(
    help="Use a service, over HTTP.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

_Directory = Annotated[
    Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, readable=True, help="What is in there is sent.")
]
_Url = Annotated[str, typer.Option(envvar="DOCUMENT_API_URL", help="The service.")]
_Email = Annotated[str, typer.Option(help="Log in with this address; otherwise DOCUMENT_API_KEY is used.")]
_PasswordFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Holds the password; without it, you are asked.")
]
_Process = Annotated[str, typer.Option(metavar="NAME", help="Have each file processed by this processor.")]
_Params = Annotated[str, typer.Option(metavar="JSON", help="The processor's params.")]
_Wait = Annotated[bool, typer.Option("--wait", help="Wait until all is processed, and tell how it went.")]
_Folder = Annotated[str, typer.Option(help="Folder of the documents; a file's folders below DIR are added to it.")]
_Tags = Annotated[list[str] | None, typer.Option(help="Tag of the documents; may be repeated.")]
_AtOnce = Annotated[int, typer.Option(min=1, max=64, help="Files that are sent at a time.")]
_Recursive = Annotated[bool, typer.Option("--recursive", help="Also what is in the folders of DIR.")]
_AnyName = Annotated[bool, typer.Option("--any-name", help="Also files whose names do not end in .pdf or .docx.")]
_Report = Annotated[
    Path | None, typer.Option(dir_okay=False, help="Write what became of each file, as a line of JSON each.")
]


@client.callback()
def options() -> None:
    """Use a service, over HTTP."""


@client.command()
def upload(
    directory: _Directory,
    *,
    url: _Url = "http://127.0.0.1:8000",
    email: _Email = "",
    password_file: _PasswordFile = None,
    process: _Process = "",
    params: _Params = "",
    wait: _Wait = False,
    folder: _Folder = "",
    tag: _Tags = None,
    at_once: _AtOnce = 4,
    recursive: _Recursive = False,
    any_name: _AnyName = False,
    report: _Report = None,
) -> None:
    """Upload the PDF and DOCX of a folder.

    It may be interrupted: run again, it goes on. What is there already, by content, name and folder, is not uploaded
    twice, and what failed is tried again. Hidden files and symbolic links are left out.

    The API key in DOCUMENT_API_KEY needs documents:read and documents:write, and documents:process for --process. Exit
    code 1: files or their jobs were refused, or failed.
    """
    from app.client.api import Api  # noqa: PLC0415 - the help need not wait for them
    from app.client.calls import Problem, Stopped  # noqa: PLC0415
    from app.client.progress import shown  # noqa: PLC0415
    from app.client.upload import Upload, Wanted  # noqa: PLC0415

    wanted = Wanted(folder.strip("/"), tag or [], _processing(process, params, wait=wait), wait)
    require_url(url)
    credentials = _credentials(email, password_file)
    summary, stopped = Summary(), ""

    def files() -> Iterator[Found]:
        return walk(directory, recursive=recursive, any_name=any_name)

    with ExitStack() as stack:
        lines = stack.enter_context(_opened(report)) if report else None
        progress = stack.enter_context(shown(sum(1 for _ in files())))

        def done(file: FileReport) -> None:
            summary.add(file)
            if file.went_wrong or file.outcome is Outcome.SKIPPED:
                progress.say(str(file))
            if lines:
                write_line(lines, file)
            progress.advance()

        async def run() -> None:
            async with Api(url, credentials, at_once + 1) as api:  # one of them waits for jobs
                await Upload(api, wanted, at_once, done).run(files())

        try:
            asyncio.run(run())
        except (Problem, Stopped) as error:
            stopped = f"stopped: {error}"
        except KeyboardInterrupt:
            stopped = "interrupted"
    typer.echo(str(summary))
    if stopped:
        typer.echo(printable(f"{stopped}. Run the same command again to go on."), err=True)
    raise typer.Exit(1 if stopped or summary.wrong else 0)


def _processing(process: str, params: str, *, wait: bool) -> dict[str, Any] | None:
    """The body of a process call. Raises BadParameter."""
    if not process:
        if params or wait:
            raise typer.BadParameter("--params and --wait are about what --process asks for")
        return None
    try:
        given = json.loads(params or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise typer.BadParameter("--params must be a JSON object")
    return {"processor": process, "params": given}


def require_url(url: str, option: str = "--url") -> None:
    """Raises BadParameter. Credentials in a URL would be seen in a list of processes."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in {"http", "https"} and re.fullmatch(r"[\w.:\[\]-]+", parts.netloc) and parts.hostname
        usable = named and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        raise typer.BadParameter(f"{option} must be http://host:port or https://host:port, with or without a path")


def _credentials(email: str, password_file: Path | None) -> "Credentials":
    """From the environment, a file or the terminal: never from the command line, which a list of processes shows."""
    from app.client.api import Credentials  # noqa: PLC0415

    if not email and (key := api_key()):
        return Credentials(api_key=key)
    asked = not password_file or not email
    if asked and not sys.stdin.isatty():
        raise typer.BadParameter(
            "set DOCUMENT_API_KEY, or give --email and --password-file: there is no terminal to ask"
        )
    email = email or typer.prompt("Email", err=True)
    if password_file:
        return Credentials(email=email, password=password_file.read_text().removesuffix("\n").removesuffix("\r"))
    return Credentials(email=email, password=typer.prompt("Password", hide_input=True, err=True))


def api_key() -> str:
    """The one in the environment; empty if there is none. Raises BadParameter."""
    key = os.environ.get("DOCUMENT_API_KEY", "")
    if not key.isascii() or not key.isprintable():
        raise typer.BadParameter("DOCUMENT_API_KEY is not an API key")
    return key


def _opened(report: Path) -> TextIO:
    try:
        return report.open("w", buffering=1)  # whole lines, if this is killed
    except OSError as error:
        raise typer.BadParameter(f"--report: {report}: {error.strerror}") from None
