"""BROKER_URL: the queue that wake-ups go through. Errors do not repeat the value, which may hold a password."""

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlunsplit

from app.settings import urls

GRAMMAR = "sqs://queue?endpoint=https://host&region=…"
SERVER_GRAMMAR = "{}://user:password@host:port/{}?queue=…"
QUEUE = "document-jobs"

_QUEUE = re.compile(r"[A-Za-z0-9_-]{1,80}")  # what SQS allows; the others allow more


@dataclass(frozen=True, slots=True)
class SqsQueue:
    """A standard queue of SQS. Without an endpoint it is AWS's own."""

    name: str
    endpoint: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class RedisStream:
    """A stream of a Redis server. The URL may hold a password."""

    url: str = field(repr=False)
    name: str


@dataclass(frozen=True, slots=True)
class RabbitQueue:
    """A queue of a RabbitMQ server. The URL may hold a password."""

    url: str = field(repr=False)
    name: str


BrokerConfig = SqsQueue | RedisStream | RabbitQueue


def parse(url: str) -> BrokerConfig:
    """Return the broker that a URL names. Raises ValueError."""
    parts = urls.split(url)
    match parts.scheme:
        case "sqs":
            return _sqs(parts)
        case "redis" | "rediss":
            return RedisStream(*_server(parts, path=r"(/\d*)?", names="database"))
        case "amqp" | "amqps":
            return RabbitQueue(*_server(parts, path=r"(/[^/]*)?", names="vhost"))
    raise ValueError("must be sqs://…, redis://…, rediss://…, amqp://… or amqps://…")


def _sqs(parts: SplitResult) -> SqsQueue:
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: they come from AWS_ACCESS_KEY_ID and the rest of the AWS chain")
    if parts.netloc.endswith(".fifo"):
        raise ValueError("must name a standard queue: a FIFO queue would run one job at a time")
    if parts.path.strip("/") or parts.fragment:
        raise ValueError(f"names more than a queue; its form is {GRAMMAR}")
    options = urls.options(parts.query, {"endpoint", "region"}, GRAMMAR)
    endpoint = urls.endpoint(options.get("endpoint"))
    return SqsQueue(_queue(parts.netloc), endpoint, urls.region(options.get("region")))


def _server(parts: SplitResult, path: str, names: str) -> tuple[str, str]:
    """Return the URL without our options, and the queue's name. `names` is what the path names, for the error."""
    grammar = SERVER_GRAMMAR.format(parts.scheme, names)
    if not urls.has_host(parts) or not re.fullmatch(path, parts.path) or parts.fragment:
        raise ValueError(f"names no valid server; its form is {grammar}")
    options = urls.options(parts.query, {"queue"}, grammar)
    return urlunsplit(parts._replace(query="")), _queue(options.get("queue", QUEUE))


def _queue(name: str) -> str:
    if not _QUEUE.fullmatch(name):
        raise ValueError("names no valid queue: up to 80 letters, digits, - and _")
    return name
