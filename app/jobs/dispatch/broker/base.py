"""What each broker has to do for BrokerDispatcher."""

from typing import Protocol
from uuid import UUID

WAIT = 10  # seconds that one `receive` waits for a message


class Broker(Protocol):
    """One connection to a broker. Whatever a call raises ends its use: `close` follows, and then a new Broker.

    No call needs a timeout of its own, but each must end soon after it was cancelled, also when the server is silent.
    """

    async def connect(self) -> None:
        """Connect, and make the queue or stream if it is missing and the broker allows that.

        Raises ConfigurationError for what only another setting can mend.
        """

    async def send(self, job_id: UUID) -> None:
        """Send a message whose body is the id in ASCII. When this returns, the broker has it."""

    async def receive(self) -> bytes | None:
        """The body of the next message, which is acknowledged already. None if WAIT seconds have brought none.

        Takes one message and none ahead. One that came when the call was cancelled is left to other processes.
        """

    async def check(self) -> None:
        """Raises if the broker does not answer, or has no such queue any more."""

    async def close(self) -> None:
        """Disconnect, however far `connect` has come."""
