"""BROKER_URL: the queue that wake-ups go through."""

from typing import Annotated

from pydantic import Field

from app.settings.urls import SERVER, Endpoint, Region, Target, matching, split

# What SQS allows, without its FIFO queues, which would run one job at a time. The others allow more.
_Queue = Annotated[
    str, matching(r"[A-Za-z0-9_-]{1,80}", "a queue of up to 80 letters, digits, - and _, without .fifo and credentials")
]


class SqsQueue(Target):
    """A standard queue of SQS. Without an endpoint it is AWS's own."""

    queue: _Queue
    endpoint: Endpoint | None = None
    region: Region | None = None


class RedisStream(Target):
    """A stream of a Redis server. The URL may hold a password."""

    url: Annotated[str, matching(rf"rediss?://{SERVER}(/\d*)?", "redis://user:password@host:port/0"), Field(repr=False)]
    queue: _Queue = "document-jobs"


class RabbitQueue(Target):
    """A queue of a RabbitMQ server. The URL may hold a password."""

    url: Annotated[str, matching(rf"amqps?://{SERVER}(/[^/#]*)?", "amqp://user:password@host/vhost"), Field(repr=False)]
    queue: _Queue = "document-jobs"


BrokerConfig = SqsQueue | RedisStream | RabbitQueue


def parse(url: str) -> BrokerConfig:
    """Return the broker that a URL names. Raises ValueError."""
    base, query = split(url)
    match base.split("://")[0]:
        case "sqs":
            return SqsQueue.of(query, queue=base.removeprefix("sqs://"))
        case "redis" | "rediss":
            return RedisStream.of(query, url=base)
        case "amqp" | "amqps":
            return RabbitQueue.of(query, url=base)
    raise ValueError("must be sqs://…, redis://…, rediss://…, amqp://… or amqps://…")
