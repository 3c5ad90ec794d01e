"""uvicorn's HTTP/1.1 protocol with the limits that it lacks: on the time and size of a request's headers, and on the
time in which a client takes its response.

`python -m app serve` uses it, and so does `uvicorn app.main:app --http app.server.protocol:BoundedHttp`.
"""

import asyncio
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

import structlog
from uuid_utils.compat import uuid7
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import AppError, BadRequest, HeadersTooLarge, RequestTimeout
from app.web import problems
from app.web.middleware import MAX_HEADER_BYTES

log = structlog.get_logger()

HEADER_TIMEOUT = 10.0  # seconds from the first byte, or from connecting, to the end of the headers
SEND_TIMEOUT = 30.0  # seconds in which a client must take what is buffered for it, some 300 KiB
_UNSENT_BYTES = 512 * 1024  # that the kernel buffers; with its default, 4 MiB, a slow reader can seem to be stalled
_LINGER_SECONDS = 1.0  # a client that is refused while it is still sending has this long to read why
_IDLE_CLOSE_SECONDS = 0.5  # an idle connection stays open this long at shutdown: a request may be on its way


class BoundedHttp(HttpToolsProtocol):
    """Answers slow or large headers and malformed HTTP with a problem, then closes the connection.

    Aborts the connection of a client that does not read.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._received = 0
        self._refused = False
        self._idle_close = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        self._connection = cast("asyncio.Transport", _Gathering(transport, self._loop))
        super().connection_made(self._connection)
        with suppress(OSError):  # a Unix socket has no such option
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_header_timer()

    def on_headers_complete(self) -> None:
        self._stop_header_timer()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._received += len(data)
        super().data_received(data)
        if self._header_timer is not None and self._received > MAX_HEADER_BYTES:
            self._refuse(HeadersTooLarge())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer = self._loop.call_later(SEND_TIMEOUT, self._abort)

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close after the current response; when idle, after the response to a request within half a second."""
        if self._idle() and not self._idle_close:
            self._idle_close = True
            self._loop.call_later(_IDLE_CLOSE_SECONDS, self.shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest())

    def _start_header_timer(self) -> None:
        self._stop_header_timer()
        self._received = 0
        self._header_timer = self._loop.call_later(HEADER_TIMEOUT, self._refuse, RequestTimeout())

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _abort(self) -> None:
        log.info("http.cut_off")
        self._connection.abort()  # unlike `close`, which would wait for the client to take the rest

    def _refuse(self, error: AppError) -> None:
        """Answer without the application, which has not seen the request, and close."""
        self._refused = True
        self._stop_header_timer()
        request_id = str(uuid7())
        answer = problems.response(error, request_id)
        log.info("http.refused", request_id=request_id, status=error.status, code=error.code)
        # As a dictionary, because the error may bring a `connection: close` of its own.
        headers = dict(answer.raw_headers) | {b"x-request-id": request_id.encode(), b"connection": b"close"}
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers.items())
        if self._idle():  # never into the middle of another response
            status = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n".encode()
            self._connection.write(status + head + b"\r\n" + bytes(answer.body))
        self._loop.call_later(_LINGER_SECONDS, self._connection.close)

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


class _Gathering:
    """A transport that sends what is written in one iteration of the event loop as one packet.

    uvicorn writes the headers and the body of a response separately, and the headers alone would wake the client for
    nothing. 1.2 times the small requests per second.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            # Not `writelines`: it never pauses the writer on some releases of Python (CVE-2024-12254).
            self._transport.write(written[0] if len(written) == 1 else b"".join(written))
