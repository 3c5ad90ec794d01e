"""httptools' parser, for which an offer to upgrade is a header like any other."""

from typing import Protocol

import httptools

_FRAMING = {b"content-length", b"transfer-encoding", b"connection"}


class Parsed(Protocol):
    """The protocol whose requests are parsed."""

    parser: "RequestParser"
    headers: list[tuple[bytes, bytes]]  # those of the latest request, with their names in lower case


class RequestParser(httptools.HttpRequestParser):
    """Parses requests for a protocol that upgrades to nothing: RFC 9110 §7.8 allows it to ignore any offer.

    At an offer, llhttp ends the request with its headers and leaves the rest to the new protocol, so that uvicorn would
    take the body for another request. Java's HttpClient and `curl --http2` send such an offer with every request. Here
    another parser takes over, which is given the headers without the offer, and knows where the body ends.
    """

    def __init__(self, protocol: Parsed) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._protocol = protocol
        self.resuming = False
        """Whether the callbacks concern headers that the protocol has seen."""

    def should_upgrade(self) -> bool:
        """Return False: uvicorn would wait for the other protocol."""
        return False

    def is_offered_upgrade(self) -> bool:
        """Return whether the request that ends now has an offer, and so has not ended."""
        return super().should_upgrade()

    def feed_data(self, data: bytes | bytearray | memoryview) -> None:  # type: ignore[override]
        """Parse the next bytes. Raises HttpParserError."""
        parser = self
        while True:
            try:
                super(RequestParser, parser).feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = memoryview(data)[offer.args[0] :]
                parser = self._protocol.parser = RequestParser(self._protocol)
                parser.take_over()
            else:
                return

    def take_over(self) -> None:
        """Parse what the latest request says about its body and the connection, as the beginning of a request."""
        headers = [name + b": " + value + b"\r\n" for name, value in self._protocol.headers if name in _FRAMING]
        self.resuming = True
        super().feed_data(b"POST / HTTP/1.1\r\n" + b"".join(headers) + b"\r\n")
        self.resuming = False
