"""python -m app backup, restore."""

import asyncio
import sys
from typing import Annotated

import typer

from app.commands.services import require_service
from app.settings import load
from app.telemetry import logs
from app.wiring.backups import build_backup, build_restore, build_verification, secrets_beside

SECRETS = (
    "JWT_SECRET, AUDIT_KEY and ENCRYPTION_KEYS, or jwt-secret, audit-key and encryption-keys of the old DATA_DIR. "
    "Bring them before the restore"
)

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
    typer.echo(f"Not in the backup, so keep it elsewhere: {secrets_beside(settings, encrypted=made.encrypted)}")
    typer.echo(f"backup {made.id}: {made.documents} documents, {made.files} files with {made.size} bytes")
    sys.exit(0 if complete and not made.missing else 1)


def restore(
    target: _Target,
    *,
    backup: Annotated[str, typer.Option(help="The id of a backup in the target.")] = "latest",
    check: Annotated[bool, typer.Option("--check", help="Restore nothing: read the backup back.")] = False,
) -> None:
    """Bring a backup into the database and the storage of this environment, both of which must be empty.

    A restore that was interrupted continues when it is started again. Exit code 1: files are missing or damaged, each
    of which was named; the service can be started nevertheless.
    """
    settings = load()
    logs.configure("WARNING", as_json=settings.logs_as_json, to="stderr")
    if check:
        sys.exit(0 if asyncio.run(build_verification(settings, target).run(backup, typer.echo)) else 1)

    typer.echo(f"Needed, and not in the backup: {SECRETS}")
    found, complete = asyncio.run(build_restore(settings, target).run(backup, typer.echo))
    if found.missing:
        typer.echo(f"{found.missing} files were missing or damaged when the backup was made")
    typer.echo(f"backup {found.id} is restored, of {found.began_at:%Y-%m-%d %H:%M:%S} UTC: start the service")
    sys.exit(0 if complete and not found.missing else 1)
