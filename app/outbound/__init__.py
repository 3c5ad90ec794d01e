"""Requests to hosts that users name: the only way out of this service for what is sent to strangers.

Every address is checked at the moment of connecting, so it does not matter what a name resolved to before. Nothing is
followed, decompressed or remembered, and everything has a bound.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from app.errors import UrlNotAllowed
from app.outbound import urls
from app.outbound.addresses import Addresses, of_socket
from app.outbound.resolver import Resolver, on_behalf_of
from app.settings import Settings

MAX_ANSWER = 64 * 1024  # bytes that are read of an answer
MAX_TEXT = 1024  # characters that are kept of them
MAX_INTERIM = 10  # answers 1xx before the final one


class Answer(NamedTuple):
    """What the host answered. `retry_after` is in seconds from now, and None with a status of 2xx; `text` is the
    beginning of the body."""

    status: int
    retry_after: float | None
    text: str


class OutboundFailed(Exception):
    """There was no answer. `code` is one of few, and `detail` is a sentence that holds nothing of the request."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class _AddressRefused(OSError):
    """The host has an address that nothing may be sent to."""


class _Response(aiohttp.ClientResponse):
    """An answer with few others before it: the library reads 1xx without end, and without letting others run."""

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Read up to the body of the final answer. Raises ClientPayloadError for too many before it."""
        protocol = connection.protocol
        assert protocol is not None
        messages = iter([protocol.read] * (MAX_INTERIM + 1))

        async def read() -> Any:
            if (one := next(messages, None)) is None:
                raise aiohttp.ClientPayloadError
            return await one()

        vars(protocol)["read"] = read
        return await super().start(connection)


class Outbound:
    """Sends requests, each over a connection of its own. Its timeout covers everything from the look-up of the name to
    the last byte of the answer.

    With WEBHOOK_PROXY_URL only the proxy is connected to, and has to check the addresses itself.
    """

    def __init__(
        self, settings: Settings, *, resolver: AbstractResolver | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._addresses = Addresses(settings.webhook_networks)
        self._https_only = settings.webhook_requires_https
        self._timeout = settings.webhook_timeout
        self._proxy = settings.webhook_proxy_url.get_secret_value() if settings.webhook_proxy_url else None
        self._headers = {"User-Agent": settings.webhook_user_agent, "Accept-Encoding": "identity"}
        self._resolver = resolver
        self._tls = tls or True
        self._session: aiohttp.ClientSession | None = None

    def check(self, url: str) -> None:
        """Raise UrlNotAllowed unless a request may be sent to the URL, as far as that can be told without a look-up."""
        urls.check(url, self._addresses, https_only=self._https_only)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], owner: Hashable = None) -> Answer:
        """Send the body and return what was answered, whatever its status.

        Raises OutboundFailed, and TooBusy if nothing was sent because of the requests of others.
        """
        on_behalf_of.set(owner)
        try:
            self.check(url)
        except UrlNotAllowed as error:
            raise OutboundFailed(error.code, error.detail) from None
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._opened().post(
                    URL(url, encoded=True), data=body, headers=headers, proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                beginning = await _beginning(response.content)
                response.close()  # what comes after that is of no interest
        except TimeoutError:
            raise OutboundFailed("timeout", f"There was no complete answer within {self._timeout:g} s.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(error) from None
        taken = 200 <= response.status < 300
        retry_after = None if taken else _retry_after(response.headers.get("Retry-After", ""))
        return Answer(response.status, retry_after, _text(response, beginning))

    async def close(self) -> None:
        """Close all connections."""
        if self._session:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """The session, which can be made only in a running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    socket_factory=None if self._proxy else self._guarded_socket,
                    resolver=self._resolver or Resolver(),
                    use_dns_cache=False,
                    force_close=True,
                    limit=0,
                    ssl=self._tls,
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                response_class=_Response,
            )
        return self._session

    def _guarded_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for the very address that is connected to next. Raises _AddressRefused."""
        family, kind, protocol, _, address = info
        if not self._addresses.allow(of_socket(address[0])):
            raise _AddressRefused
        return socket.socket(family, kind, protocol)


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """The first bytes of the body, at most MAX_ANSWER."""
    read = bytearray()
    while len(read) < MAX_ANSWER and (part := await content.read(MAX_ANSWER - len(read))):
        read += part
    return bytes(read)


def _text(response: aiohttp.ClientResponse, body: bytes) -> str:
    """The beginning of a body that is text, without control characters, NUL above all: no database stores that."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return ""
    text = body[: 4 * MAX_TEXT].decode("utf-8", "replace")
    return "".join(each for each in text if each.isprintable() or each in "\n\t")[:MAX_TEXT]


def _retry_after(value: str) -> float | None:
    """The seconds that the header asks to wait (RFC 9110 §10.2.3); None if it is missing or malformed."""
    if value.isascii() and value.isdecimal():
        return float(value[:10])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _failure(error: aiohttp.ClientError | OSError | ValueError) -> OutboundFailed:
    """What may be shown of the library's error, which names addresses and the URL."""
    match error:
        case aiohttp.ClientHttpProxyError() | aiohttp.ClientProxyConnectionError():
            return OutboundFailed("proxy-failed", "The proxy refused the request, or could not be reached.")
        case aiohttp.ClientConnectorError():
            return _unconnected(error)
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
            return OutboundFailed("connection-lost", "The connection was closed before the answer was complete.")
    return OutboundFailed("not-http", "What was answered is not HTTP.")


def _unconnected(error: aiohttp.ClientConnectorError) -> OutboundFailed:
    match error, error.__cause__:
        case _, _AddressRefused():
            return OutboundFailed("address-not-allowed", "The host has an address that is not on the public Internet.")
        case aiohttp.ClientConnectorDNSError(), _:
            return OutboundFailed("name-not-found", "The name of the host could not be resolved.")
        case _, ssl.SSLCertVerificationError(verify_message=why):
            return OutboundFailed("tls-failed", f"The certificate of the host was refused: {why}.")
        case _, ssl.SSLError() | ssl.CertificateError():
            return OutboundFailed("tls-failed", "TLS could not be established.")
        case _, OSError(errno=int(number)):  # its own text names the address
            return OutboundFailed("not-connected", f"There was no connection: {os.strerror(number)}.")
    return OutboundFailed("not-connected", "There was no connection.")
