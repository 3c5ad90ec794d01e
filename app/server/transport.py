"""What a connection writes to."""

import asyncio
from collections.abc import Callable
from typing import Any


class Transport:
    """A transport that sends what one iteration of the event loop writes as one packet, and asks before it closes.

    uvicorn writes the headers and the body of a response separately, and the headers alone would wake the client for
    nothing. 1.2 times the small requests per second. It also closes as soon as the last byte is written, while the
    client may still be sending: `on_close` decides when the connection really ends.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, on_close: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._on_close = on_close
        self._written: list[bytes] = []
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._closed:
            return
        if not self._written:
            self._loop.call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        if not self._closed:
            self._send()
            self._closed = True
            self._on_close()

    def is_closing(self) -> bool:
        return self._closed or self._transport.is_closing()

    def _send(self) -> None:
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            # Not `writelines`: it never pauses the writer on some releases of Python (CVE-2024-12254).
            self._transport.write(written[0] if len(written) == 1 else b"".join(written))
