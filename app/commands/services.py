"""Runs a piece of an operator's work on the services of this environment."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app import wiring
from app.settings import load
from app.telemetry import context, logs
from app.wiring import Services

T = TypeVar("T")


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
