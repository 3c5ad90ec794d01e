"""Brokers for tests: a queue of a test's own at a real server, over a wire that can be cut.

Redis and RabbitMQ are where TEST_REDIS_URL and TEST_AMQP_URL say; an SQS server is started.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session
from redis import Redis

from app.settings import broker as broker_url
from tests.support import reaper
from tests.support.relay import Relay
from tests.support.server import free_port

SERVERS = {"redis": "TEST_REDIS_URL", "rabbitmq": "TEST_AMQP_URL"}
MINISTACK = shutil.which("ministack", path=str(Path(sys.executable).parent.parent / "ministack" / "bin"))
AWS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-central-1"}
VISIBILITY = 2  # seconds
STARTUP = 30.0

KINDS = ("redis", "rabbitmq", "sqs")


@dataclass
class Queue:
    """A queue at a broker. `url` goes through the relay."""

    kind: str
    url: str
    relay: Relay
    direct: str = field(repr=False)
    environment: dict[str, str] = field(default_factory=dict)
    sqs: "Sqs | None" = None

    @property
    def place(self) -> broker_url.BrokerConfig:
        return broker_url.parse(self.url)

    @property
    def server(self) -> str:
        """The URL of the broker, without the relay and our own options."""
        return self.direct.partition("?")[0]

    async def put(self, body: bytes) -> None:
        """Put a message in, as every version has done it."""
        if self.sqs is not None:
            self.sqs.client.send_message(QueueUrl=self.sqs.url(self.place.queue), MessageBody=body.decode())
        elif self.kind == "redis":
            with Redis.from_url(self.server) as redis:
                redis.xadd(self.place.queue, {"data": body})
        else:
            async with await aio_pika.connect(self.server) as connection:
                channel = await connection.channel()
                message = aio_pika.Message(body, headers={"task_id": "x", "task_name": "job"})
                await channel.default_exchange.publish(message, routing_key=self.place.queue)

    async def take(self) -> bytes:
        """Take the message that waits, as every version has done it."""
        if self.sqs is not None:
            received = self.sqs.client.receive_message(QueueUrl=self.sqs.url(self.place.queue), WaitTimeSeconds=5)
            body: str = received["Messages"][0]["Body"]
            return body.encode()
        if self.kind == "redis":
            with Redis.from_url(self.server) as redis:
                found: Any = redis.xreadgroup("workers", "worker", {self.place.queue: ">"})
                data: bytes = found[0][1][0][1][b"data"]
                return data
        async with await aio_pika.connect(self.server) as connection:
            queue = await (await connection.channel()).get_queue(self.place.queue)
            return (await queue.get(no_ack=True)).body

    async def held(self) -> int:
        """How many messages wait or, on SQS and Redis, were received without being acknowledged."""
        if self.sqs is not None:
            names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
            url = self.sqs.url(self.place.queue)
            found = self.sqs.client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            return sum(int(found[name]) for name in names)
        if self.kind == "redis":
            with Redis.from_url(self.server) as redis:
                groups: Any = redis.xinfo_groups(self.place.queue)
            return sum(group["lag"] + group["pending"] for group in groups if group["name"] == b"workers")
        async with await aio_pika.connect(self.server) as connection:
            queue = await (await connection.channel()).declare_queue(self.place.queue, passive=True)
            return queue.declaration_result.message_count or 0

    @property
    def settings(self) -> dict[str, str]:
        """For a server process or a worker."""
        return {"BROKER_URL": self.url, **self.environment}


@contextmanager
def queue(kind: str, sqs: "Sqs | None") -> Iterator[Queue]:
    """A new queue, which is gone afterwards."""
    name = f"test-{uuid4().hex}"
    if kind == "sqs":
        assert sqs is not None
        with sqs.queue(name) as made:
            yield made
        return
    url = os.environ[SERVERS[kind]]
    parts = urlsplit(url)
    relay = Relay(parts.port or {"redis": 6379, "rabbitmq": 5672}[kind])
    login = parts.netloc.rpartition("@")[0]
    wire = parts._replace(netloc=f"{login}@127.0.0.1:{relay.port}" if login else f"127.0.0.1:{relay.port}")
    try:
        yield Queue(kind, f"{wire.geturl()}?queue={name}", relay, f"{url}?queue={name}")
    finally:
        relay.cut()
        asyncio.run(_remove_from_rabbitmq(url, name)) if kind == "rabbitmq" else _remove_from_redis(url, name)


def _remove_from_redis(url: str, name: str) -> None:
    with Redis.from_url(url) as redis:
        redis.delete(name)


async def _remove_from_rabbitmq(url: str, name: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for each in (name, f"{name}-dead"):
            await channel.queue_delete(each)
        await channel.exchange_delete(name)


@contextmanager
def requested(request: pytest.FixtureRequest) -> Iterator[Queue]:
    """A queue at the broker that is the parameter of a fixture. Skips the test if it cannot be had."""
    kind = request.param
    if kind == "sqs" and MINISTACK is None:
        pytest.skip("there is no SQS server in .venv/ministack")
    if kind in SERVERS and not os.environ.get(SERVERS[kind]):
        pytest.skip(f"{SERVERS[kind]} is not set")
    with queue(kind, request.getfixturevalue("sqs") if kind == "sqs" else None) as made:
        yield made


@dataclass
class Sqs:
    """An SQS server, which knows other services of AWS, too."""

    port: int
    client: Any

    @property
    def environment(self) -> dict[str, str]:
        """What has the SDK speak to it."""
        return AWS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def client_of(self, service: str) -> Any:
        """A client of another service; close it."""
        return _client(service, self.port)

    def url(self, name: str) -> str:
        """The URL of a queue, which its name is not enough for."""
        url: str = self.client.get_queue_url(QueueName=name)["QueueUrl"]
        return url

    @contextmanager
    def queue(self, name: str) -> Iterator[Queue]:
        """A queue from which a message that was received and not acknowledged comes again soon."""
        attributes = {"VisibilityTimeout": str(VISIBILITY)}
        made = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        relay = Relay(self.port)
        url = f"sqs://{name}?endpoint=http://127.0.0.1:"
        try:
            yield Queue("sqs", f"{url}{relay.port}", relay, f"{url}{self.port}", AWS, self)
        finally:
            relay.cut()
            self.client.delete_queue(QueueUrl=made)


@contextmanager
def running(folder: Path) -> Iterator[Sqs]:
    """An SQS server of one's own."""
    assert MINISTACK is not None
    port = free_port()
    folder.mkdir()
    own = {"GATEWAY_PORT": str(port), "PATH": os.environ["PATH"], "TMPDIR": str(folder), "HOME": str(folder)}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([MINISTACK], env=own | AWS, stdout=log, stderr=log) as process,
    ):
        reaper.watch(process.pid)
        client = _client("sqs", port)
        try:
            _wait(client, process)
            yield Sqs(port, client)
        finally:
            client.close()
            process.kill()


def _client(service: str, port: int) -> Any:
    return get_session().create_client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=AWS["AWS_DEFAULT_REGION"],
        aws_access_key_id=AWS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=AWS["AWS_SECRET_ACCESS_KEY"],
    )


def _wait(client: Any, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + STARTUP
    while True:
        try:
            client.list_queues()
        except (BotoCoreError, ClientError):
            assert process.poll() is None, "the SQS server stopped"
            assert time.monotonic() < deadline, "the SQS server did not start"
            time.sleep(0.1)
        else:
            return
