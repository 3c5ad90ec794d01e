"""Looks names up without holding anything else up: a name server can take half a minute not to answer."""

import asyncio
import socket
from collections.abc import Hashable
from contextvars import ContextVar
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from app.limiter import Limiter

_AT_ONCE = 32
_WAIT = 0.2  # seconds without a look-up for an owner whose next one waits

on_behalf_of: ContextVar[Hashable] = ContextVar("on_behalf_of", default=None)
"""Whose request names are looked up for."""


class Resolver(AbstractResolver):
    """The resolver of the operating system.

    Each look-up has a thread of its own, which the process does not wait for when it ends: the event loop's own threads
    are few, and needed. These are few, too, and dealt by owner: who names hosts that nobody answers for keeps none of
    the others from theirs.
    """

    def __init__(self) -> None:
        self._limiter = Limiter(_AT_ONCE, _WAIT)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of the host. Raises OSError, and TooBusy if too many look-ups are under way."""
        found = await asyncio.shield(asyncio.create_task(self._look_up(host, port, family)))
        if isinstance(found, OSError):
            raise found
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=family, proto=proto, flags=_NUMERIC)
            for family, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Do nothing: a look-up that is under way ends by itself."""

    async def _look_up(self, host: str, port: int, family: int) -> list[Any] | OSError:
        """Give way to the next look-up when this one is over, not when nobody waits for it any more."""
        async with self._limiter.acquire(on_behalf_of.get()):
            loop = asyncio.get_running_loop()
            found: asyncio.Future[list[Any] | OSError] = loop.create_future()
            Thread(target=_find, args=(loop, found, host, port, family), daemon=True).start()
            return await found


_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def _find(
    loop: asyncio.AbstractEventLoop,
    found: asyncio.Future[list[Any] | OSError],
    host: str,
    port: int,
    family: int,
) -> None:
    """Run in a thread."""
    outcome: list[Any] | OSError
    try:
        outcome = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError) as error:
        outcome = error if isinstance(error, OSError) else OSError("no name of a host")

    def settle() -> None:
        if not found.done():
            found.set_result(outcome)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop was closed meanwhile
        return
