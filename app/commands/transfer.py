"""python -m app transfer."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.settings import load
from app.telemetry import logs
from app.wiring.transfers import build_transfer

_FromDataDir = Annotated[Path | None, typer.Option(help="DATA_DIR of a service that keeps database and files there.")]
_FromDatabaseUrl = Annotated[str, typer.Option(envvar="FROM_DATABASE_URL", help="DATABASE_URL of the rows to copy.")]
_FromStorageUrl = Annotated[str, typer.Option(envvar="FROM_STORAGE_URL", help="STORAGE_URL of the files to copy.")]


def transfer(
    from_data_dir: _FromDataDir = None, from_database_url: _FromDatabaseUrl = "", from_storage_url: _FromStorageUrl = ""
) -> None:
    """Copy a stopped service's rows and files into the database and storage of this environment.

    Only what is named is copied, and the source is not changed. A transfer that was interrupted continues when it is
    started again. Every row and every SHA-256 is verified at the target. Exit code 1: the copy is incomplete, or
    something was written meanwhile.
    """
    rows, files = (bool(from_data_dir or url) for url in (from_database_url, from_storage_url))
    if not rows and not files:
        sys.exit("transfer: say what to copy: --from-data-dir, --from-database-url or --from-storage-url")
    target = load()
    source = load(
        data_dir=from_data_dir or target.data_dir,
        database_url=from_database_url,
        storage_url=from_storage_url,
        broker_url="",
    )
    logs.configure("WARNING", as_json=target.logs_as_json)

    async def run() -> bool:
        return await build_transfer(source, target, rows=rows, files=files).run(typer.echo)

    sys.exit(0 if asyncio.run(run()) else 1)
