"""python -m app audit: verify."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from app.audit import anchors as anchored
from app.audit.verify import Verification
from app.commands.services import with_services
from app.wiring import Services

audit = typer.Typer(help="Verify the audit trail.", no_args_is_help=True)

SHOWN = 20  # findings


@audit.callback()
def group() -> None:
    """Verify the audit trail."""


@audit.command("verify")
def verify(
    *,
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Only what is from then on (UTC)."),
    ] = None,
    anchors: Annotated[
        str, typer.Option(help="Compare the seals with those of a log file, or of the `bucket` in STORAGE_URL.")
    ] = "",
) -> None:
    """Verify that every event is as it was written, and that none is missing. Exit code 1: something is wrong."""
    moment = since.replace(tzinfo=UTC) if since else None

    async def work(services: Services) -> Verification:
        verification = Verification(services.db.audit_keys)
        await verification.run(services.db, moment)
        if anchors:
            bucket = anchors == anchored.BUCKET
            found = anchored.of_bucket(services.storage, moment) if bucket else anchored.of_file(Path(anchors))
            typer.echo(f"anchors: {await verification.compare(services.db, found)}")
        return verification

    verification = with_services(work)
    for finding in verification.findings[:SHOWN]:
        typer.echo(finding)
    typer.echo(verification)
    raise typer.Exit(1 if verification.findings else 0)
