"""How many clients may be connected to a process, and how many of them from one address."""

import resource
import time
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address, ip_network

import structlog

from app.telemetry import metrics

log = structlog.get_logger()

_OWN_FILES = 256  # that a process needs beside its connections: files, the database, child processes
_LINGERING = 64  # refused connections that may stay for a moment, so that the client can read why
_LOG_INTERVAL = 1.0  # seconds: a client that is refused can try again thousands of times a second


class Connections:
    """The connections of this process: at most `most`, and at most half of them from one client.

    So no address alone can take the service away from the others. A client is the name that `client_of` gives it; None
    has no limit of its own.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._most_each = max(1, most // 2)
        self._open = 0
        self._open_by_client = Counter[str]()
        self._refused_open = 0
        self._unlogged = 0  # refusals since the last line in the log
        self._log_again_at = 0.0

    def admit(self, client: str | None) -> bool:
        """Count one more connection and return True, or log a refusal and return False."""
        if self._open >= self.most:
            self._refuse(client, "process")
            return False
        if client is not None:
            if self._open_by_client[client] >= self._most_each:
                self._refuse(client, "client")
                return False
            self._open_by_client[client] += 1
        self._open += 1
        return True

    def release(self, client: str | None, *, admitted: bool) -> None:
        """Forget a connection that has ended."""
        if not admitted:
            self._refused_open -= 1
            return
        self._open -= 1
        if client is not None:
            self._open_by_client[client] -= 1
            if not self._open_by_client[client]:
                del self._open_by_client[client]

    def may_linger(self) -> bool:
        """Return whether a refused connection may stay until its client has read why, and take a file meanwhile."""
        return self._refused_open <= _LINGERING

    def _refuse(self, client: str | None, limit: str) -> None:
        metrics.connections_refused.labels(limit).inc()
        self._refused_open += 1
        self._unlogged += 1
        if time.monotonic() >= self._log_again_at:
            log.warning("connections.refused", client=client, limit=limit, open=self._open, refused=self._unlogged)
            self._log_again_at, self._unlogged = time.monotonic() + _LOG_INTERVAL, 0


@lru_cache(4096)
def client_of(address: str | None, proxies: str) -> str | None:
    """The name under which a socket's address is counted: an IPv4 address or an IPv6 network of 64 bits.

    None for a Unix socket, and for an address in `proxies` (FORWARDED_ALLOW_IPS: addresses and networks with commas, or
    `*`), behind which all clients may be.
    """
    if address is None or proxies.strip() == "*":
        return None
    found = ip_address(address)
    found = getattr(found, "ipv4_mapped", None) or found
    for proxy in proxies.split(","):
        with suppress(ValueError):  # what is no address is the name of a Unix socket
            if found in ip_network(proxy.strip()):
                return None
    return str(found) if found.version == 4 else str(ip_network((found, 64), strict=False))


def connections_allowed() -> int:
    """Raise this process's limit of open files to the most it may have, and return how many connections that allows.

    That is 90 % of it, less if the process would be left with fewer than 256 files of its own, and at least half.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses what it calls its own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return 2**31
    return max(soft // 2, min(soft * 9 // 10, soft - _OWN_FILES))
