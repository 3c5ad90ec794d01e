"""Hints in a queue of RabbitMQ."""

import asyncio
from contextlib import suppress
from typing import Any, cast

from aio_pika import Connection
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from app.dispatch.broker.hints import Seen
from app.errors import ConfigurationError
from app.settings.broker import RabbitQueue

FAREWELL = 0.5  # seconds that the server has to take part in the end of a connection


class RabbitBroker(AioPikaBroker):
    def __init__(self, queue: RabbitQueue, places: int) -> None:
        super().__init__(
            queue.url,
            qos=places,
            exchange=Exchange(name=queue.name),
            task_queues=[Queue(name=queue.name)],
            dead_letter_queue=Queue(name=f"{queue.name}-dead"),
            connection_class=_Connection,
        )
        self.is_worker_process = places > 0
        self._queue = queue.name

    async def startup(self) -> None:
        try:
            await super().startup()
        except (AuthenticationError, ProbableAuthenticationError):
            raise ConfigurationError("BROKER_URL: the server refuses these credentials") from None
        except InvalidFrameError as error:
            if "Connection.OpenOk" not in str(error):
                raise
            # The SDK drops the answer's text. That comes in place of OpenOk, which follows the choice of a vhost.
            raise ConfigurationError("BROKER_URL: the server has no such vhost, or not for this user") from None
        except (ConnectionNotAllowed, ChannelAccessRefused, ChannelPreconditionFailed) as error:
            raise ConfigurationError(f"BROKER_URL: the server answers: {error}") from None

    async def look(self) -> Seen:
        assert self.write_channel is not None
        queue = await self.write_channel.declare_queue(self._queue, passive=True)
        return Seen(waiting=queue.declaration_result.message_count or 0)

    async def shutdown(self) -> None:
        """Not the library's, which waits for the answer to each channel's end before it ends a connection."""
        connections = cast("list[_Connection | None]", [self.write_conn, self.read_conn])
        await asyncio.gather(*(each.end() for each in connections if each))


class _Connection(Connection):
    """One that does not connect again behind the back of the one who does, and ends whatever the server does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._socket = _Socket(TLSTransportFactory() if self.url.scheme == "amqps" else TCPTransportFactory())
        self.kwargs["transport_factory"] = self._socket

    def __del__(self) -> None:
        """Not the library's, which begins to close what was never opened, in a loop that may be gone."""

    async def end(self) -> None:
        closing = asyncio.create_task(self._close())
        await asyncio.wait([closing], timeout=FAREWELL)
        self._socket.abort()
        await asyncio.wait([closing], timeout=FAREWELL)

    async def _close(self) -> None:
        with suppress(Exception):
            await self.close()


class _Socket(TransportFactory):
    """Remembers what it has opened."""

    def __init__(self, factory: TransportFactory) -> None:
        self._factory = factory
        self._writer: asyncio.StreamWriter | None = None

    async def create(self, url: Any, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await self._factory.create(url, **kwargs)
        return reader, self._writer

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
