"""Hints in a Redis stream, read by one consumer group."""

from collections.abc import AsyncGenerator
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, ResponseError
from taskiq import AckableMessage
from taskiq_redis import RedisStreamBroker

from app.dispatch.broker.hints import Seen
from app.errors import ConfigurationError
from app.settings.broker import RedisStream

Entries = list[tuple[bytes, dict[bytes, bytes]]]

GROUP = "workers"
CONSUMER = "worker"  # each of them: Redis keeps a name for ever, and who took an entry makes no difference
KEPT = 100_000  # entries, read or not: a stream forgets nothing by itself
CONNECTIONS = 20
FOR_GOOD = ("WRONGTYPE", "NOPERM", "DB index is out of range", "unknown command")  # answers that no waiting changes
IDLE_MS = 600_000  # an entry that was not acknowledged for this long is anybody's


class RedisBroker(RedisStreamBroker):
    def __init__(self, stream: RedisStream) -> None:
        super().__init__(
            stream.url,
            queue_name=stream.name,
            consumer_group_name=GROUP,
            consumer_name=CONSUMER,
            consumer_id="0",  # also what was sent before the first worker came
            max_connection_pool_size=CONNECTIONS,
            maxlen=KEPT,
            idle_timeout=IDLE_MS,
        )

    async def startup(self) -> None:
        """Not the library's, for which whatever the server answers will do."""
        try:
            async with Redis(connection_pool=self.connection_pool) as redis:
                await redis.xgroup_create(self.queue_name, GROUP, id=self.consumer_id, mkstream=True)
        except (AuthenticationError, AuthorizationError):
            raise ConfigurationError("BROKER_URL: the server refuses these credentials") from None
        except ResponseError as error:
            answer = str(error)
            if answer.startswith(FOR_GOOD):
                raise ConfigurationError(f"BROKER_URL: the server answers: {answer}") from None
            if not answer.startswith("BUSYGROUP"):  # it is there already
                raise

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """As the library's, which an entry without data ends, and a lost connection makes leak another."""
        async with Redis(connection_pool=self.connection_pool) as redis:
            while True:
                for entry, fields in await self._left(redis) or await self._new(redis):
                    data = fields.get(b"data", b"") if fields else b""
                    yield AckableMessage(data=data, ack=self._ack_generator(entry.decode(), self.queue_name))

    async def _left(self, redis: Redis) -> Entries:
        """An entry that some other consumer took long ago and did not acknowledge, if there is one."""
        _, entries, *_ = await redis.xautoclaim(
            self.queue_name, self.consumer_group_name, self.consumer_name, self.idle_timeout, count=1
        )
        return cast("Entries", entries)

    async def _new(self, redis: Redis) -> Entries:
        """The next entry, if there is one within two seconds."""
        streams: dict[Any, Any] = {self.queue_name: ">"}
        found = await redis.xreadgroup(self.consumer_group_name, self.consumer_name, streams, count=1, block=self.block)
        return [entry for _, entries in cast("list[tuple[bytes, Entries]]", found or []) for entry in entries]

    async def look(self) -> Seen:
        async with Redis(connection_pool=self.connection_pool) as redis:
            groups = await redis.xinfo_groups(self.queue_name)
        return Seen(waiting=sum(group.get("lag") or 0 for group in groups if group["name"] == GROUP.encode()))
