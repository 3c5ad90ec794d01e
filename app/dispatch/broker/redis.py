"""Hints in a Redis stream, read by one consumer group."""

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, AuthorizationError
from taskiq_redis import RedisStreamBroker

from app.broker_url import RedisStream
from app.dispatch.broker.hints import Seen
from app.settings import ConfigurationError

KEPT = 100_000  # entries, read or not: a stream forgets nothing by itself
CONNECTIONS = 20
IDLE_MS = 600_000  # an entry that was not acknowledged for this long is somebody else's


class RedisBroker(RedisStreamBroker):
    def __init__(self, stream: RedisStream) -> None:
        super().__init__(
            stream.url,
            queue_name=stream.name,
            consumer_group_name="workers",
            consumer_id="0",  # also what was sent before the first worker came
            max_connection_pool_size=CONNECTIONS,
            xread_count=1,
            maxlen=KEPT,
            idle_timeout=IDLE_MS,
        )

    async def startup(self) -> None:
        try:
            await super().startup()
        except (AuthenticationError, AuthorizationError):
            raise ConfigurationError("BROKER_URL: the server refuses these credentials") from None

    async def look(self) -> Seen:
        async with Redis(connection_pool=self.connection_pool) as redis:
            groups = await redis.xinfo_groups(self.queue_name)
        return Seen(waiting=sum(group.get("lag") or 0 for group in groups))
