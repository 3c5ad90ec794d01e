"""Pure ASGI middleware: request id, access log and metrics, header limits, security headers, the last error handler."""

import re
import time

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from app.errors import HeadersTooLarge, InternalError
from app.telemetry import context, metrics
from app.web import problems

log = structlog.get_logger()

MAX_HEADER_BYTES = 64 * 1024
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]
# To the clients of a process that is about to stop (RFC 9112, section 9.6): come back on another connection.
_LAST_ANSWER = [(b"connection", b"close")]


class RequestMiddleware:
    """Everything that happens once to each request, around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        structlog.contextvars.clear_contextvars()
        context.request_id.set(request_id)
        context.actor.set(None)
        exchange = _Exchange(scope, send, request_id)
        try:
            if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
                await problems.response(HeadersTooLarge())(scope, receive, exchange.send)
            else:
                await self.app(scope, receive, exchange.send)
        except ClientDisconnect:
            log.info("http.client_gone")
        except Exception:
            log.exception("http.failed")
            if not exchange.status:
                await problems.response(InternalError())(scope, receive, exchange.send)
        finally:
            exchange.finish()


class _Exchange:
    """One request and its answer. It ends with the answer's last byte, or with the request's task."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.status = 0
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self._started = time.perf_counter()
        self._finished = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._request_id.encode()),
                *_SECURITY_HEADERS,
                *(_LAST_ANSWER if self._scope["app"].state.health.draining else ()),
            ]
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            # Before the background tasks: they are not part of the answer.
            self.finish()

    def finish(self) -> None:
        """Write the access log line and the metrics, once."""
        if self._finished:
            return
        self._finished = True
        seconds = time.perf_counter() - self._started
        method, route = self._scope["method"], _route(self._scope)
        status = self.status or 499  # as nginx logs a client that left before the answer
        metrics.count_request(method, route, status, seconds)
        log.info("http.request", method=method, route=route, status=status, ms=round(seconds * 1000, 2))


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-ID when it is harmless, else a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return str(uuid7())


def _route(scope: Scope) -> str:
    """The route's template: bounded in number, and free of what a client put into the path."""
    return getattr(scope.get("route"), "path", "(none)")
