"""python -m app backup, restore."""

import asyncio
import sys
from typing import Annotated

import typer

from app.backup import BackupError
from app.commands.services import require_service
from app.settings import Settings, load
from app.telemetry import logs
from app.wiring.backups import build_backup, build_restore, build_return, build_verification, secrets_beside

LATEST = "latest"

_Files = Annotated[list[str] | None, typer.Option(help="Key of a file to bring back, as `check` names it; repeatable.")]
_Target = Annotated[str, typer.Argument(help="A folder, or s3://bucket/prefix?endpoint=… as in STORAGE_URL.")]


def backup(
    target: _Target,
    *,
    keep: Annotated[int, typer.Option(min=0, help="Backups to keep, this one included; 0: all.")] = 0,
    verify: Annotated[bool, typer.Option("--verify", help="Make none: read back all backups that are there.")] = False,
) -> None:
    """Copy the database and the files of this environment to a target, while the service runs.

    Files that the target has already are not copied again. A backup that was interrupted continues when it is started
    again. Exit code 1: files are missing or damaged, each of which was named, or were so when a backup was made.
    """
    settings = load()
    logs.configure("WARNING", as_json=settings.logs_as_json, to="stderr")
    if verify:
        sys.exit(0 if asyncio.run(build_verification(settings, target).run("all", typer.echo)) else 1)

    require_service(settings)
    made, complete = asyncio.run(build_backup(settings, target, keep=keep).run(typer.echo))
    typer.echo(f"Not in the backup, so keep it elsewhere: {_beside(settings, encrypted=made.encrypted)}")
    typer.echo(f"backup {made.id}: {made.documents} documents, {made.files} files with {made.size} bytes")
    sys.exit(0 if complete and not made.missing else 1)


def restore(
    target: _Target,
    *,
    backup: Annotated[str, typer.Option(help="The id of a backup in the target.")] = LATEST,
    check: Annotated[bool, typer.Option("--check", help="Restore nothing: read the backup back.")] = False,
    file: _Files = None,
) -> None:
    """Bring a backup into the database and the storage of this environment, both of which must be empty.

    A restore that was interrupted continues when it is started again. Exit code 1: files are missing or damaged, each
    of which was named; the service can be started nevertheless.

    With --file, bring single files back, while the service runs, if they are missing or damaged in its storage.
    """
    settings = load()
    logs.configure("WARNING", as_json=settings.logs_as_json, to="stderr")
    if file:
        if check or backup != LATEST:
            raise BackupError("--file takes neither --backup nor --check")
        require_service(settings)
        sys.exit(asyncio.run(build_return(settings, target).run(file, typer.echo)))
    if check:
        sys.exit(0 if asyncio.run(build_verification(settings, target).run(backup, typer.echo)) else 1)

    _tell_of_secrets(settings)
    found, complete = asyncio.run(build_restore(settings, target).run(backup, typer.echo))
    if found.missing:
        typer.echo(f"{found.missing} files were missing or damaged when the backup was made")
    typer.echo(f"backup {found.id} is restored, of {found.began_at:%Y-%m-%d %H:%M:%S} UTC: start the service")
    sys.exit(0 if complete and not found.missing else 1)


def _beside(settings: Settings, *, encrypted: bool) -> str:
    """The secrets to be kept elsewhere."""
    named = [each.where or each.variable for each in secrets_beside(settings)]
    if encrypted:
        named[1] += " (the database holds secrets that are encrypted with these)"
    return ", ".join(named)


def _tell_of_secrets(settings: Settings) -> None:
    secrets = secrets_beside(settings)
    if found := [each.where for each in secrets if each.where]:
        typer.echo(f"Found, of what is in no backup: {', '.join(found)}")
    if missing := [f"{each.variable} or {each.file}" for each in secrets if not each.where]:
        typer.echo(f"Missing: {', '.join(missing)}: bring what the old service had")
