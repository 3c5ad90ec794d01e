"""Looks names up without holding anything else up: a name server can take half a minute not to answer."""

import asyncio
import socket
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_AT_ONCE = 32


class Resolver(AbstractResolver):
    """The resolver of the operating system.

    Each look-up has a thread of its own, which the process does not wait for when it ends: the event loop's own threads
    are few, and needed.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of the host. Raises OSError."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()
        await self._free.acquire()
        Thread(target=_look_up, args=(loop, found, self._free, host, port, family), daemon=True).start()
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=family, proto=proto, flags=_NUMERIC)
            for family, _, proto, _, address in await found
        ]

    async def close(self) -> None:
        """Do nothing: a look-up that is under way ends by itself."""


_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def _look_up(
    loop: asyncio.AbstractEventLoop,
    found: asyncio.Future[list[Any]],
    free: asyncio.Semaphore,
    host: str,
    port: int,
    family: int,
) -> None:
    """Run in a thread. Give way to the next look-up when this one is over, not when nobody waits for it any more."""
    outcome: list[Any] | OSError
    try:
        outcome = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError) as error:
        outcome = error if isinstance(error, OSError) else OSError("no name of a host")

    def settle() -> None:
        free.release()
        if found.done():
            return
        if isinstance(outcome, OSError):
            found.set_exception(outcome)
        else:
            found.set_result(outcome)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop was closed meanwhile
        return
