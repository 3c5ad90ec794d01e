"""A request and its answer, between uvicorn and the application."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.server.states import State

_CLOSE = (b"connection", b"close")


class Exchange:
    """The application for one request. Tells `enter` what the connection waits for, and `answered` that it is done; or
    `broken_off`, if the answer has begun and nothing more of it will come.

    An answer that begins before the body is here says `Connection: close`: the client may send the rest, or may not if
    it sent `Expect: 100-continue` (RFC 9110 §10.1.1), so what follows could be this body or the next request.
    """

    def __init__(
        self, app: ASGIApp, enter: Callable[[State], None], answered: Callable[[], None], broken_off: Callable[[], None]
    ) -> None:
        self.received = False
        """Whether the whole request is here. The protocol sets it."""
        self.started = False
        """Whether the answer has begun."""
        self._app = app
        self._enter = enter
        self._on_answered = answered
        self._on_broken_off = broken_off
        self._answered = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._enter(State.WORK)
        await self._app(scope, receive if self.received else self.receive, self.send)
        if self.started and not self._answered:
            self._on_broken_off()

    async def receive(self) -> Message:
        """Receive a message; while there is none, the connection waits for the body."""
        if self.received or self._answered:
            return await self._receive()
        self._enter(State.BODY)
        message = await self._receive()
        if not self._answered:
            self._enter(State.WORK)
        return message

    async def send(self, message: Message) -> None:
        """Send a message. Each is a sign of life of the application."""
        if message["type"] == "http.response.start":
            self.started = True
            if not self.received:
                _close_after(message)
        await self._send(message)
        if message["type"] == "http.response.body" and not self._answered:
            if message.get("more_body"):
                self._enter(State.WORK)
            else:
                self._answered = True
                self._on_answered()


def _close_after(message: Message) -> None:
    headers = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
    message["headers"] = [*headers, _CLOSE]
