"""Which client a request comes from, for what is dealt or counted by client, and whether it is still there."""

import asyncio
from collections.abc import Coroutine
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from app.telemetry import context

T = TypeVar("T")


def client_key() -> str:
    """The client's address; of IPv6 its network of 64 bits, because a client has all addresses of it. Empty outside of
    a request."""
    return _key(context.client.get() or "")


@lru_cache(10_000)
def _key(address: str) -> str:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket's peer has none
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)


@lru_cache(10_000)
def network_of(address: str | None) -> str | None:
    """What is recorded of a client's address: its network, of 24 bits for IPv4 and of 48 for IPv6. None: no address."""
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, but give it up when the client closes the connection. Raises ClientDisconnect, and what it raises.

    For work that is costly and changes nothing before its end. The request's body must have been read.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for each in (working, leaving):
            each.cancel()
