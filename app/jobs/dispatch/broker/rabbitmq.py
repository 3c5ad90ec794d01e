"""Wake-ups in a quorum queue of RabbitMQ."""

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

from aio_pika import Connection, DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.connection import make_url
from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from app.errors import ConfigurationError
from app.jobs.dispatch.broker.base import WAIT
from app.settings.broker import RabbitQueue

CLOSE_TIMEOUT = 0.5  # seconds for the server to take part in the end of a connection


class RabbitBroker:
    """Adapter of the Broker port. A consumer exists only while a message is waited for."""

    def __init__(self, queue: RabbitQueue) -> None:
        self._name = queue.name
        # As previous versions declare it, or the server would refuse it. Nothing is dead-lettered any more.
        self._arguments: dict[str, Any] = {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{queue.name}-dead",
        }
        # Not `connect` or `connect_robust`: the first cannot be closed before it is connected, the other reconnects.
        self._connection = Connection(make_url(queue.url))
        self._sending: AbstractChannel
        self._queue: AbstractQueue

    async def connect(self) -> None:
        try:
            await self._connection.connect()
            self._sending = await self._connection.channel()
            receiving = await self._connection.channel(publisher_confirms=False)
            await receiving.set_qos(prefetch_count=1)
            self._queue = await receiving.declare_queue(self._name, durable=True, arguments=self._arguments)
        except (AuthenticationError, ProbableAuthenticationError):
            raise ConfigurationError("BROKER_URL: the server refuses these credentials") from None
        except InvalidFrameError as error:
            if "Connection.OpenOk" not in str(error):
                raise
            # The SDK drops the text of the answer that comes in place of OpenOk, which follows the choice of a vhost.
            raise ConfigurationError("BROKER_URL: the server has no such vhost, or not for this user") from None
        except (ConnectionNotAllowed, ChannelAccessRefused, ChannelPreconditionFailed) as error:
            raise ConfigurationError(f"BROKER_URL: the server answers: {error}") from None

    async def send(self, job_id: UUID) -> None:
        message = Message(str(job_id).encode(), delivery_mode=DeliveryMode.PERSISTENT)
        await self._sending.default_exchange.publish(message, routing_key=self._name)

    async def receive(self) -> bytes | None:
        arrived: asyncio.Future[AbstractIncomingMessage] = asyncio.get_running_loop().create_future()

        async def take(message: AbstractIncomingMessage) -> None:
            if arrived.done():
                await message.nack()
            else:
                arrived.set_result(message)

        consumer = await self._queue.consume(take)
        ends: list[asyncio.Future[Any]] = [arrived, asyncio.ensure_future(self._queue.channel.closed())]
        try:
            await asyncio.wait(ends, timeout=WAIT, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            with suppress(Exception):
                await self._queue.cancel(consumer, nowait=True)
                if arrived.done():
                    await arrived.result().nack()
                arrived.cancel()
            raise
        await self._queue.cancel(consumer)  # before the acknowledgement, which would let the next message come
        if not arrived.done():
            return None
        message = arrived.result()
        await message.ack()
        return message.body

    async def check(self) -> None:
        await self._sending.declare_queue(self._name, passive=True)

    async def close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._connection.close()
        await self._connection.close()  # without the server, if that has not answered
