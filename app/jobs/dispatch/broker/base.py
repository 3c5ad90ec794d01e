"""What each broker has to do for BrokerDispatcher."""

from typing import Protocol

WAIT = 10  # seconds that one `receive` waits for a message


class Broker(Protocol):
    """One connection to a broker. Whatever a call raises ends its use: `close` follows, and then a new Broker.

    No call needs a timeout of its own, but each must end soon after it was cancelled, also when the server is silent.
    """

    async def connect(self) -> None:
        """Connect, and make the queue or stream if it is missing and the broker allows that.

        Raises ConfigurationError for what only another setting can mend, without its name.
        """

    async def send(self, text: str) -> None:
        """Send a message with this body, in ASCII. When this returns, the broker has it."""

    async def receive(self) -> bytes | None:
        """The body of the next message, or None if WAIT seconds have brought none.

        Takes one message and none ahead. It is acknowledged now or by the call of `receive` or `pause` that follows.
        """

    async def pause(self) -> None:
        """Follows `receive` when no other call of it does for now, also when it was cancelled: from here on, messages
        wait for other processes."""

    async def check(self) -> None:
        """Raises if the broker does not answer, or has no such queue any more."""

    async def close(self) -> None:
        """Disconnect, however far `connect` has come."""
