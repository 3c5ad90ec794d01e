"""Wake-ups in a quorum queue of RabbitMQ."""

import asyncio
from contextlib import suppress
from typing import Any

from aio_pika import Connection, DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.connection import make_url
from aiormq import exceptions as sdk

from app.errors import ConfigurationError
from app.jobs.dispatch.broker.base import WAIT
from app.settings.broker import RabbitQueue


class RabbitBroker:
    """Adapter of the Broker port.

    To begin and end to consume takes a quorum queue tens of milliseconds. So a consumer stays until `pause`, and each
    message is acknowledged by the call that follows, for the next one comes as soon as it is.
    """

    def __init__(self, queue: RabbitQueue) -> None:
        self._name = queue.queue
        # As previous versions declare it, or the server would refuse it. Nothing is dead-lettered any more.
        self._arguments: dict[str, Any] = {
            "x-queue-type": "quorum",
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": f"{queue.queue}-dead",
        }
        # Not `connect` or `connect_robust`: the first cannot be closed before it is connected, the other reconnects.
        self._connection = Connection(make_url(queue.url))
        self._sending: AbstractChannel
        self._queue: AbstractQueue
        self._consumer: str | None = None
        self._arrived: AbstractIncomingMessage | None = None
        self._received: AbstractIncomingMessage | None = None
        self._changed = asyncio.Event()  # a message has arrived, or the channel was closed

    async def connect(self) -> None:
        try:
            await self._connection.connect()
            self._sending = await self._connection.channel()
            receiving = await self._connection.channel(publisher_confirms=False)
            receiving.close_callbacks.add(self._closed)
            await receiving.set_qos(prefetch_count=1)
            self._queue = await receiving.declare_queue(self._name, durable=True, arguments=self._arguments)
        except (sdk.AuthenticationError, sdk.ProbableAuthenticationError):
            raise ConfigurationError("the server refuses these credentials") from None
        except sdk.InvalidFrameError as error:
            if "Connection.OpenOk" not in str(error):
                raise
            # The SDK drops the text of the answer that comes in place of OpenOk, which follows the choice of a vhost.
            raise ConfigurationError("the server has no such vhost, or not for this user") from None
        except (sdk.ConnectionNotAllowed, sdk.ChannelAccessRefused, sdk.ChannelPreconditionFailed) as error:
            raise ConfigurationError(f"the server answers: {error}") from None

    async def send(self, text: str) -> None:
        message = Message(text.encode(), delivery_mode=DeliveryMode.PERSISTENT)
        await self._sending.default_exchange.publish(message, routing_key=self._name)

    async def receive(self) -> bytes | None:
        await self._acknowledge()
        if self._consumer is None:
            self._consumer = await self._queue.consume(self._take)
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT):
                await self._changed.wait()
        self._changed.clear()
        if self._arrived is None:
            await self.pause()  # raises if the channel was closed; the server may also have ended the consumer
            return None
        self._received, self._arrived = self._arrived, None
        return self._received.body

    async def pause(self) -> None:
        if self._consumer is not None:
            # While a message is not acknowledged, none is on its way: then nothing need be waited for.
            await self._queue.cancel(self._consumer, nowait=self._received is not None)
            self._consumer = None
        await self._acknowledge()
        if self._arrived is not None:
            await self._arrived.nack()
            self._arrived = None
            self._changed.clear()

    async def _take(self, message: AbstractIncomingMessage) -> None:
        self._arrived = message
        self._changed.set()

    def _closed(self, *_: Any) -> None:
        self._changed.set()

    async def _acknowledge(self) -> None:
        """Let the next message come."""
        if self._received is not None:
            await self._received.ack()
            self._received = None

    async def check(self) -> None:
        await self._sending.declare_queue(self._name, passive=True)

    async def close(self) -> None:
        await self._connection.close()
