"""Adapter of the Dispatcher port over a broker."""

from functools import partial
from uuid import UUID

from app.dispatch.base import Dispatcher
from app.dispatch.broker.connect import connect
from app.dispatch.broker.consumer import Consumer
from app.dispatch.broker.link import Link
from app.settings.broker import Place


class BrokerDispatcher:
    """Sends hints to the broker, and hands those of others to the consumer."""

    def __init__(self, place: Place, consumer: Consumer, otherwise: Dispatcher) -> None:
        """`otherwise` gets what the broker does not take."""
        self._consumer = consumer
        self._link = Link(partial(connect, place, consumer.places), consumer.use)
        self._otherwise = otherwise

    @property
    def room(self) -> int:
        return self._link.room if self._link.up else self._otherwise.room

    @property
    def plenty(self) -> bool:
        return self._link.up and self._link.plenty

    @property
    def alarm(self) -> str | None:
        return self._link.alarm

    async def open(self) -> None:
        await self._link.open()

    async def run(self) -> None:
        await self._link.run()

    async def send(self, job_id: UUID) -> None:
        if not await self._link.send(job_id):
            await self._otherwise.send(job_id)

    def stop(self) -> None:
        self._consumer.stop()

    async def close(self) -> None:
        await self._consumer.close()
        await self._link.close()
