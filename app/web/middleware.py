"""Pure ASGI middleware: request id, access log, metrics, header limit, HEAD, security headers, outermost errors."""

import asyncio
import re
import time
from collections.abc import Sequence
from typing import ClassVar

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from app.errors import AppError, BadRequest, HeadersTooLarge, InternalError, ShuttingDown
from app.telemetry import context, metrics
from app.web import policy, problems

log = structlog.get_logger()

MAX_HEADER_BYTES = 64 * 1024
_LOGGED = 200  # characters of what a client sent
_REFUSED = {401, 403, 429}  # logged as warnings: many of them may be an attack
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
_STRICT_TRANSPORT = (b"strict-transport-security", b"max-age=31536000")
# Unless the route says otherwise.
DEFAULTS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", policy.NOTHING.encode()),
    (b"referrer-policy", b"no-referrer"),
]
# While the process drains, clients are told to use another connection (RFC 9112 §9.6).
_CLOSE = [(b"connection", b"close")]


Headers = Sequence[tuple[bytes, bytes]]


class RequestMiddleware:
    """What is done once for each request, around the whole application.

    A HEAD is answered as the GET would be, without the body, which the server leaves out (RFC 9110 §9.3.2). With
    `https`, clients are told to come by HTTPS only. `prefix` is the context's.
    """

    in_flight: ClassVar[int] = 0
    """How many requests this process is answering."""

    def __init__(self, app: ASGIApp, *, https: bool = False, prefix: str = "") -> None:
        self.app = app
        self._prefix = prefix
        self._headers = [*SECURITY_HEADERS, _STRICT_TRANSPORT] if https else SECURITY_HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        structlog.contextvars.clear_contextvars()
        context.request_id.set(request_id)
        context.actor.set(None)
        context.account.set(None)
        context.credential.set(None)
        context.client.set(scope["client"][0] if scope["client"] else None)
        context.user_agent.set(_user_agent(scope))
        context.prefix.set(self._prefix)
        method = scope["method"]
        scope = self._for_routes(scope)
        exchange = _Exchange(scope, method, send, request_id, self._headers)
        try:
            if error := _wrong_headers(scope):
                await problems.response(error)(scope, receive, exchange.send)
            else:
                await self.app(scope, receive, exchange.send)
        except ClientDisconnect:
            log.info("http.client_gone")
        except asyncio.CancelledError:
            if not _draining(scope):
                raise
            # The end of a shutdown: uvicorn would answer with plain text, and log a traceback.
            log.warning("http.cancelled")
            if not exchange.status:
                await problems.response(ShuttingDown())(scope, receive, exchange.send)
        except Exception as error:
            if isinstance(error.__cause__, AppError):  # as Starlette raises it, once the answer has begun
                log.error("http.broken_off", code=error.__cause__.code)  # noqa: TRY400 - without a traceback
            else:
                log.exception("http.failed")
            if not exchange.status:
                await problems.response(InternalError())(scope, receive, exchange.send)
        finally:
            exchange.finish()

    def _for_routes(self, scope: Scope) -> Scope:
        if self._prefix:  # ASGI has it in the path, too, though a proxy has taken it off
            raw = self._prefix.encode() + scope["raw_path"]
            scope = {**scope, "path": self._prefix + scope["path"], "raw_path": raw}
        return {**scope, "method": "GET", "head": True} if scope["method"] == "HEAD" else scope


class _Exchange:
    """A request and its response. It ends with the response's last byte, or with the request's task."""

    def __init__(self, scope: Scope, method: str, send: Send, request_id: str, headers: Headers) -> None:
        self.status = 0
        self._scope = scope
        self._method = method
        self._headers = headers
        self._send = send
        self._request_id = request_id
        self._started = time.perf_counter()
        self._finished = False
        self._replayed = False
        RequestMiddleware.in_flight += 1

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.get("headers", ())
            stated = {name for name, _ in headers}
            self._replayed = b"idempotent-replayed" in stated
            message["headers"] = [
                *headers,
                (b"x-request-id", self._request_id.encode()),
                *((name.encode(), value.encode()) for name, value in self._scope.get("rate_limit", {}).items()),
                *self._headers,
                *[default for default in DEFAULTS if default[0] not in stated],
                *(_CLOSE if _draining(self._scope) else ()),
            ]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            # Before the background tasks, which are not part of the response.
            self.finish()

    def finish(self) -> None:
        """Write the access log line and the metrics, once."""
        if self._finished:
            return
        self._finished = True
        seconds = time.perf_counter() - self._started
        route = _route(self._scope)
        status = self.status or 499  # nginx's code for a client that left before the response
        RequestMiddleware.in_flight -= 1
        metrics.count_request(self._method, route, status, seconds)
        replayed = {"replayed": True} if self._replayed else {}
        getattr(log, self._level(status))(
            "http.request",
            method=self._method,
            route=route,
            path=_safe(self._scope["raw_path"]),
            status=status,
            ms=round(seconds * 1000, 2),
            client=context.client.get(),
            user_agent=context.user_agent.get(),
            **replayed,
        )

    def _level(self, status: int) -> str:
        if getattr(self._scope.get("route"), "quiet", False):
            return "debug"
        return "error" if status >= 500 else "warning" if status in _REFUSED else "info"


def _wrong_headers(scope: Scope) -> AppError | None:
    """What is wrong with them for any route: their size, or Host, which HTTP/1.1 sends once (RFC 9112 §3.2)."""
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return HeadersTooLarge()
    hosts = [name for name, _ in scope["headers"]].count(b"host")
    if hosts == 1 or (hosts == 0 and scope["http_version"] != "1.1"):
        return None
    return BadRequest("Host must be sent exactly once.")


def _request_id(scope: Scope) -> str:
    """The client's X-Request-ID if it is safe to log and return, else a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return str(uuid7())


def _user_agent(scope: Scope) -> str | None:
    return next((_safe(value) for name, value in scope["headers"] if name == b"user-agent"), None)


def _safe(sent: bytes) -> str:
    """The first characters of what a client sent. Others than ASCII are escaped: some control terminals."""
    return str(sent[:_LOGGED], "ascii", "backslashreplace")


def _draining(scope: Scope) -> bool:
    """Whether the process is shutting down."""
    return bool(scope["app"].state.health.draining)


def _route(scope: Scope) -> str:
    """The route's template. Unlike the path, it has few values and holds nothing that a client sent."""
    return getattr(scope.get("route"), "path", "(none)")
