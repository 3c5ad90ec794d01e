"""Hints in a queue of RabbitMQ."""

from aio_pika import Connection
from aiormq.exceptions import AuthenticationError, ProbableAuthenticationError
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from app.broker_url import RabbitQueue
from app.dispatch.broker.hints import Seen
from app.settings import ConfigurationError


class RabbitBroker(AioPikaBroker):
    def __init__(self, queue: RabbitQueue, places: int) -> None:
        super().__init__(
            queue.url,
            qos=places,
            exchange=Exchange(name=queue.name),
            task_queues=[Queue(name=queue.name)],
            dead_letter_queue=Queue(name=f"{queue.name}-dead"),
            connection_class=Connection,  # which does not reconnect by itself behind the back of the one who does
        )
        self.is_worker_process = places > 0
        self._queue = queue.name

    async def startup(self) -> None:
        try:
            await super().startup()
        except (AuthenticationError, ProbableAuthenticationError):
            raise ConfigurationError("BROKER_URL: the server refuses these credentials") from None

    async def look(self) -> Seen:
        assert self.write_channel is not None
        queue = await self.write_channel.declare_queue(self._queue, passive=True)
        return Seen(waiting=queue.declaration_result.message_count or 0)
