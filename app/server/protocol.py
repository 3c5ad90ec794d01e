"""uvicorn's HTTP/1.1 protocol with a clock for every moment of a connection, and limits on what a client may send.

`python -m app serve` uses it, and so does `uvicorn app.main:app --http app.server.protocol:BoundedHttp`.
"""

import asyncio
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import structlog
from uuid_utils.compat import uuid7
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import AppError, BadRequest, HeadersTooLarge, RequestTimeout, TooBusy
from app.server.clock import Clock
from app.server.connections import Connections, client_of
from app.server.exchange import Exchange
from app.server.parser import RequestParser
from app.server.states import State
from app.server.transport import Transport
from app.web import problems
from app.web.middleware import DEFAULTS, MAX_HEADER_BYTES, SECURITY_HEADERS

log = structlog.get_logger()

HEADER_TIMEOUT = 10.0  # seconds from the first byte, or from connecting, to the end of the headers
WORK_TIMEOUT = 600.0  # seconds in which the application must read or write something
SEND_TIMEOUT = 30.0  # seconds in which a client must take what is buffered for it, some 300 KiB
LINGER_SECONDS = 1.0  # a client that is answered while it is still sending has this long to read why
_LINGER_BYTES = 64 * 1024  # of what it still sends that are discarded; the rest waits in the network
_UNSENT_BYTES = 512 * 1024  # that the kernel buffers; with its default, 4 MiB, a slow reader can seem to be stalled
_IDLE_CLOSE_SECONDS = 0.5  # an idle connection stays open this long at shutdown: a request may be on its way

_ENDING = {State.LINGER, State.FLUSH, State.CLOSED}


class BoundedHttp(HttpToolsProtocol):
    """A connection: always in one state, with a deadline that only a change of state renews, never a byte.

    While the application reads a body, its own timeouts are shorter; here is the limit for all of the body. A client
    that does not take what is written has SEND_TIMEOUT, whatever the state. Refusals of what never became a request
    for the application are problems, too. lifespan.py provides the limits in `app_state`.
    """

    def __init__(self, config: Config, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser: RequestParser = RequestParser(self)
        self._application = self.app
        self._connections: Connections = app_state["connections"]
        self._timeouts = {
            State.NEW: HEADER_TIMEOUT,
            State.HEADERS: HEADER_TIMEOUT,
            State.WORK: WORK_TIMEOUT,
            State.IDLE: config.timeout_keep_alive,
            State.LINGER: LINGER_SECONDS,
            State.FLUSH: SEND_TIMEOUT,
        }
        self._body_timeout: float = app_state["body_timeout"]
        allowed = config.forwarded_allow_ips
        self._proxies = ",".join(allowed) if isinstance(allowed, list) else allowed or ""
        self._state = State.NEW
        self._stalled = False  # the client does not take what is written
        self._in_headers = False  # a request has begun, and its headers have not ended
        self._received = 0  # bytes since they began, or since the connection lingers
        self._exchange: Exchange | None = None  # of the latest request
        self._unanswered = 0  # requests
        self._last = False  # no further request is read
        self._body_until: float | None = None  # on the loop's clock, once the application has begun to read the body
        self._refused = False  # a request, or the whole connection
        self._admitted = False
        self._idle_close = False

    # Events of the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        self._connection = transport
        self._clock = Clock(self._loop, self._expired)
        super().connection_made(cast("asyncio.Transport", Transport(transport, self._loop, self._close)))
        with suppress(OSError):  # a Unix socket has no such option
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else None
        self._client = client_of(self._address, self._proxies)
        self._enter(State.NEW)
        self._admitted = self._connections.admit(self._client)
        if not self._admitted:
            self._answer(TooBusy("The service has as many connections as it can take."), str(uuid7()))
            if not self._connections.may_linger():
                self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter(State.CLOSED)
        self._connections.release(self._client, admitted=self._admitted)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._last:
            if self._received > _LINGER_BYTES:
                self._connection.pause_reading()
            return
        super().data_received(data)
        if self._in_headers:
            if self._received > MAX_HEADER_BYTES:
                self._refuse(HeadersTooLarge())
            elif not self._unanswered and self._state is not State.HEADERS:
                self._enter(State.HEADERS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = True
        self._clock.set(SEND_TIMEOUT)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled = False
        self._enter(self._state)

    # Events of the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self.parser.resuming:
            self._in_headers = True
            self._received = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Blanks after a value are not part of it (RFC 9110 §5.5)."""
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        if self.parser.resuming:
            return
        self._in_headers = False
        self._body_until = None
        self.app = self._exchange = Exchange(self._application, self._enter, self._answered, self._broken_off)
        super().on_headers_complete()
        self._unanswered += 1

    def on_message_complete(self) -> None:
        if self._exchange is None or self.parser.is_offered_upgrade():
            return
        self._exchange.received = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest())

    # Events of the server and of the application

    def shutdown(self) -> None:
        """Close after the current response; when idle, after the response to a request within half a second."""
        if not self._unanswered and not self._idle_close:
            self._idle_close = True
            self._loop.call_later(_IDLE_CLOSE_SECONDS, self.shutdown)
        else:
            super().shutdown()

    def _answered(self) -> None:
        self._unanswered -= 1
        if self._unanswered:
            return
        self.cycle.body = bytearray()  # up to 256 KiB that nobody has read, for as long as the connection stays
        if self._last:
            self.transport.close()
        else:
            self._enter(State.HEADERS if self._in_headers else State.IDLE)

    def _broken_off(self) -> None:
        """Close: by that the client knows that it does not have the whole answer. Why is in the log by now."""
        self.cycle.disconnected = True  # or uvicorn would say once more that something is wrong
        self.transport.close()

    # States

    def _enter(self, state: State) -> None:
        """Start the clock of a state. Once the connection is closing, only what leads to its end is a change."""
        if self._state in _ENDING and state not in _ENDING:
            return
        self._state = state
        if state is State.CLOSED:
            self._clock.stop()
        elif not self._stalled:
            self._clock.set(self._body_left() if state is State.BODY else self._timeouts[state])

    def _body_left(self) -> float:
        """The seconds left for the body: the application asks for it again with every piece that it gets."""
        now = self._loop.time()
        if self._body_until is None:
            self._body_until = now + self._body_timeout
        return self._body_until - now

    def _expired(self) -> None:
        if self._stalled:
            self._cut_off()
        elif self._state in {State.NEW, State.HEADERS}:
            self._refuse(RequestTimeout())
        elif self._state is State.IDLE:
            self.transport.close()
        elif self._state is State.LINGER:
            self._flush()
        else:
            self._cut_off()

    # Ends

    def _refuse(self, error: AppError) -> None:
        """Answer a request that the application has not seen, or not to its end, and close.

        Answers that are due are completed before, and the refused request gets none: it would be taken for theirs.
        """
        request_id = str(uuid7())
        log.info("http.refused", request_id=request_id, client=self._address, status=error.status, code=error.code)
        if self._is_answering():
            self._last = True
        else:
            self._answer(error, request_id)

    def _answer(self, error: AppError, request_id: str) -> None:
        answer = problems.response(error, request_id)
        # As a dictionary, because the error may bring a `connection: close` of its own.
        headers = dict([*SECURITY_HEADERS, *DEFAULTS, *answer.raw_headers]) | {
            b"x-request-id": request_id.encode(),
            b"connection": b"close",
        }
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
        if not self._unanswered or (self._exchange and not self._exchange.started):
            status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
            self.transport.write(status + head + b"\r\n" + bytes(answer.body))
        self._refused = True
        self.transport.close()

    def _is_answering(self) -> bool:
        return bool(self._unanswered and self._exchange and self._exchange.received)

    def _close(self) -> None:
        """Close at once, unless the client may still be sending: it could lose the answer (RFC 9112 §9.6)."""
        if self._state is State.CLOSED:
            return
        self._last = True
        if self._refused or (self._exchange and not self._exchange.received):
            self._received = 0
            self._enter(State.LINGER)
            self._connection.resume_reading()
            if self._connection.can_write_eof():
                self._connection.write_eof()
        else:
            self._flush()

    def _flush(self) -> None:
        self._enter(State.FLUSH)
        self._connection.close()

    def _cut_off(self) -> None:
        log.info("http.cut_off", client=self._address, state=self._state.name.lower())
        self._connection.abort()  # unlike `close`, which would wait for the client to take the rest
