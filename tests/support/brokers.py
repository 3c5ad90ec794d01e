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
import orjson
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session
from redis import Redis
from taskiq import BrokerMessage

connect = None
from app.settings import broker as broker_url
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

    @property
    def place(self) -> broker_url.BrokerConfig:
        return broker_url.parse(self.url)

    async def put(self, body: bytes) -> None:
        """Put in what may be no hint at all."""
        broker = connect(broker_url.parse(self.direct), 0)
        await broker.startup()
        await broker.kick(BrokerMessage(task_id="x", task_name="x", message=body, labels={}))
        await broker.shutdown()

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
    """An SQS server."""

    port: int
    client: Any

    @contextmanager
    def queue(self, name: str) -> Iterator[Queue]:
        """A queue with a dead-letter queue: what was received twice and not acknowledged goes there."""
        dead = self.client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        arn = self.client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = orjson.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2}).decode()
        attributes = {"VisibilityTimeout": str(VISIBILITY), "RedrivePolicy": policy}
        made = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        relay = Relay(self.port)
        url = f"sqs://{name}?endpoint=http://127.0.0.1:"
        try:
            yield Queue("sqs", f"{url}{relay.port}", relay, f"{url}{self.port}", AWS)
        finally:
            relay.cut()
            for each in (made, dead):
                self.client.delete_queue(QueueUrl=each)


@contextmanager
def running(folder: Path) -> Iterator[Sqs]:
    """An SQS server of one's own."""
    assert MINISTACK is not None
    port = free_port()
    folder.mkdir()
    environment = {"GATEWAY_PORT": str(port), "PATH": os.environ["PATH"], "TMPDIR": str(folder), "HOME": str(folder)}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([MINISTACK], env=environment, stdout=log, stderr=log) as process,
    ):
        client = get_session().create_client(
            "sqs",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name=AWS["AWS_DEFAULT_REGION"],
            aws_access_key_id=AWS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=AWS["AWS_SECRET_ACCESS_KEY"],
        )
        try:
            _wait(client, process)
            yield Sqs(port, client)
        finally:
            client.close()
            process.kill()


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
