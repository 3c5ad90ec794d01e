"""What is carried, and what carries it: taskiq brokers, of which only the transport is used, not tasks or results.

As it comes from the library is how each connects, declares its queue or stream, sends and acknowledges, and the
heartbeat of a message on SQS. Replaced is what would take hints ahead of a free place, end or leak with a connection
that breaks, or wait for a server that is silent:

- Redis: `startup`, which hides what the server refuses; `listen`, which reads ahead; the consumer's name.
- RabbitMQ: `shutdown`, which waits for the server; the connection, which would connect again by itself.
- SQS: `listen`, which reads ahead; the parser and the client for messages that are in a bucket; `startup`'s errors.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import structlog
from taskiq import AckableMessage, BrokerMessage

log = structlog.get_logger()

PATIENCE = 2.0  # seconds that a broker has for one call
TASK = "job"  # brokers want a name for each kind of message; there is one kind


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the broker found: hints that wait for a worker, and what should be told to the operator."""

    waiting: int = 0
    alarm: str | None = None


class Broker(Protocol):
    """Obligations of each broker. Whatever any call raises means that the connection is of no more use."""

    async def startup(self) -> None:
        """Connect. Raises ConfigurationError for what only another setting can mend."""

    async def kick(self, message: BrokerMessage) -> None:
        """Send; when this returns, the broker has it."""

    def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Receive, one message at a time and none ahead. A message that is not acknowledged comes again."""

    async def look(self) -> Seen:
        """See whether the broker answers, and what it holds."""

    async def shutdown(self) -> None:
        """Let go of every connection, however far `startup` has come."""


def encode(job_id: UUID) -> BrokerMessage:
    """A hint: the job's id and nothing else."""
    name = str(job_id)
    return BrokerMessage(task_id=name, task_name=TASK, message=name.encode(), labels={})


def decode(body: bytes) -> UUID | None:
    """The job's id. None, and a warning, for anything else that somebody has put into the queue."""
    try:
        return UUID(body.decode("ascii"))
    except ValueError:
        log.warning("hint.unreadable", size=len(body))
        return None
