"""Pure ASGI middleware: request id, access log, metrics, header limit, security headers, outermost error handler."""

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
# While the process drains, clients are told to use another connection (RFC 9112 §9.6).
_CLOSE = [(b"connection", b"close")]


class RequestMiddleware:
    """What is done once for each request, around the whole application."""

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
    """A request and its response. It ends with the response's last byte, or with the request's task."""

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
                *(_CLOSE if self._scope["app"].state.health.draining else ()),
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
        method, route = self._scope["method"], _route(self._scope)
        status = self.status or 499  # nginx's code for a client that left before the response
        metrics.count_request(method, route, status, seconds)
        log.info("http.request", method=method, route=route, status=status, ms=round(seconds * 1000, 2))


def _request_id(scope: Scope) -> str:
    """The client's X-Request-ID if it is safe to log and return, else a new id."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return str(uuid7())


def _route(scope: Scope) -> str:
    """The route's template. Unlike the path, it has few values and holds nothing that a client sent."""
    return getattr(scope.get("route"), "path", "(none)")
