"""Runs a piece of an operator's work on the services of this environment."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from app import wiring
from app.backup import BackupError
from app.errors import ConfigurationError
from app.settings import Settings, load
from app.telemetry import context, logs
from app.wiring import adapters
from app.wiring.services import Services

T = TypeVar("T")


def require_service(settings: Settings) -> None:
    """Raise ConfigurationError unless there is a service: a database with its tables, and the folder of its files if it
    has one. Makes nothing, unlike `with_services`."""
    try:
        revision = asyncio.run(adapters.source(settings).revision())
    except BackupError as error:  # the database is away
        raise ConfigurationError(str(error)) from None
    if revision is None:
        raise ConfigurationError(f"DATABASE_URL: there is no service at {settings.database}")
    if isinstance(settings.storage, Path) and not settings.storage.is_dir():
        raise ConfigurationError(f"STORAGE_URL: there is no folder {settings.storage}")


def with_services(work: Callable[[Services], Awaitable[T]], *, claiming: bool = False) -> T:
    """Run one piece of work against the migrated database of the environment. `claiming` is what removes files."""
    settings = load()
    logs.configure(settings.log_level, as_json=settings.logs_as_json, to="stderr")  # stdout has what was asked for

    async def run() -> T:
        services = wiring.build(settings)
        await services.open(dispatching=False, claiming=claiming)
        try:
            with context.acting(context.OPERATOR):
                return await work(services)
        finally:
            await services.close()

    return asyncio.run(run())
