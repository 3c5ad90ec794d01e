"""Keeps what work raises within its own tasks.

asyncio passes SystemExit and KeyboardInterrupt on from any task to whoever runs the event loop, which ends the process.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any

contained: ContextVar[bool] = ContextVar("contained", default=False)
"""While it is set, the tasks that the current task makes, and theirs, raise Exited instead of ending the process."""


class Exited(Exception):
    """The work raised SystemExit or KeyboardInterrupt. The message names which."""


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop contain such tasks. Others are made as usual."""
    loop.set_task_factory(_task)


def _task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> "asyncio.Task[Any]":
    if contained.get():
        coroutine = _guarded(coroutine)  # type: ignore[arg-type]  # a generator here would be of before asyncio's 3.11
    return asyncio.Task(coroutine, loop=loop, **options)


async def _guarded(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise Exited(type(error).__name__) from error
