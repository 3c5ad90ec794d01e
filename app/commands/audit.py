"""python -m app audit: verify."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from app.audit import anchors as anchored
from app.audit.verify import Verification
from app.commands.services import with_services
from app.wiring.services import Services

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
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"], help="Only what is from then on (UTC)."
        ),
    ] = None,
    anchors: Annotated[
        str, typer.Option(help="Compare the seals with those of a log file, or of the `bucket` in STORAGE_URL.")
    ] = "",
    every: Annotated[bool, typer.Option("--all", help=f"Show more than {SHOWN} findings.")] = False,
) -> None:
    """Verify that every event is as it was written, and that none is missing. Exit code 1: something is wrong."""
    moment = since.replace(tzinfo=since.tzinfo or UTC) if since else None

    async def work(services: Services) -> Verification:
        verification = Verification(services.db.audit_keys)
        await verification.run(services.db, moment)
        if anchors:
            bucket = anchors == anchored.BUCKET
            found = anchored.of_bucket(services.storage, moment) if bucket else anchored.of_file(Path(anchors))
            count = await verification.compare(services.db, found)
            typer.echo(f"anchors: {count}")
            if verification.seals and not count:
                verification.report("anchors", "there are none, although there are seals")
        return verification

    verification = with_services(work)
    shown = verification.findings[: None if every else SHOWN]
    for finding in shown:
        typer.echo(finding)
    if more := verification.wrong - len(shown):
        typer.echo(f"and {more} more{'' if every else ', which --all shows'}")
    typer.echo(verification)
    raise typer.Exit(1 if verification.wrong else 0)
