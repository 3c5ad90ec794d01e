"""Hints of jobs that workers elsewhere can claim, in queues which those workers watch.

A hint may be lost, late or doubled: what is due is in the database. So nobody waits until one is sent.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Connection

from app.database import Database, after_commit
from app.events import Record
from app.events.catalogue.jobs import JobQueued
from app.jobs import claims
from app.jobs.dispatch.base import Dispatcher
from app.processing.queues import processor_of
from app.remote.queues import RemoteQueues

_KEPT = 10_000  # hints that wait to be sent
_AT_ONCE = 16  # hints that are sent at once
_REPEATED = 100  # hints of one processor that are repeated at once


class _Hint(NamedTuple):
    queue: str
    job_id: UUID


def hint(job_id: UUID, processor: str, api: str) -> str:
    """What is sent: which job, and the URL of the service at which it can be claimed. It holds no secret."""
    return orjson.dumps({"job_id": job_id, "processor": processor, "api": api.rstrip("/")}).decode()


class Sender:
    """The Puller of a process that only sends: others receive."""

    async def until_free(self) -> None:
        await asyncio.Future()

    def wake(self, job_id: UUID) -> None:
        """Nothing: the hint is repeated."""


class Hints:
    """Sends hints through `dispatchers`, which are named by the queues of the jobs."""

    def __init__(self, db: Database, queues: RemoteQueues, dispatchers: Mapping[str, Dispatcher]) -> None:
        self._db = db
        self._queues = queues
        self._dispatchers = dispatchers
        self._waiting: asyncio.Queue[_Hint] = asyncio.Queue(_KEPT)

    def __bool__(self) -> bool:
        """Whether there is a queue to send any to."""
        return bool(self._dispatchers)

    @property
    def alarm(self) -> str | None:
        """The queues that cannot be reached."""
        away = {processor_of(queue): each.alarm for queue, each in self._dispatchers.items() if each.alarm}
        return "; ".join(f"queue of {processor}: {alarm}" for processor, alarm in away.items()) or None

    async def open(self) -> None:
        """Connect, as a Dispatcher does. Raises ConfigurationError."""
        await asyncio.gather(*(each.open() for each in self._dispatchers.values()))

    async def run(self) -> None:
        """Stay connected, and send, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for each in self._dispatchers.values():
                tasks.create_task(each.run())
            for _ in range(_AT_ONCE):
                tasks.create_task(self._send())

    async def close(self) -> None:
        """Disconnect, after `run` was cancelled."""
        for each in self._dispatchers.values():
            await each.close()

    def accepted(self, conn: Connection, record: Record) -> None:
        """A listener to JobQueued: once that is committed, those who wait for such a job are told of it."""
        assert isinstance(record.event, JobQueued)
        named = self._queues.named(record.event.processor) if record.event.processor else None
        if named and record.job_id:
            after_commit(conn, self._queues.wake)
            after_commit(conn, partial(self._tell, _Hint(named[0], record.job_id)))

    async def repeat(self, seconds: float) -> None:
        """Send hints of the next jobs that have been due for so long and that nobody has claimed."""
        queues = [queue for queue in self._dispatchers if not self._queues.pauses.cover(queue)]
        for queue in queues:
            overdue = partial(claims.overdue, queue=queue, seconds=seconds, at_most=_REPEATED)
            for job_id in await self._db.read(overdue):
                self._tell(_Hint(queue, job_id))

    def _tell(self, hint: _Hint) -> None:
        if hint.queue in self._dispatchers:
            with suppress(asyncio.QueueFull):
                self._waiting.put_nowait(hint)

    async def _send(self) -> None:
        while True:
            hint = await self._waiting.get()
            await self._dispatchers[hint.queue].send(hint.job_id)
