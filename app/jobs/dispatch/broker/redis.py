"""Wake-ups in a Redis stream, read by one consumer group."""

from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, ResponseError

from app.errors import ConfigurationError
from app.jobs.dispatch.broker.base import WAIT
from app.settings.broker import RedisStream

_GROUP = "workers"
_CONSUMER = "worker"  # of every process: Redis keeps each name for ever, and nothing depends on who read an entry
KEPT = 100_000  # entries, read or not: a stream forgets nothing by itself
_PERMANENT = "WRONGTYPE", "NOPERM", "DB index is out of range", "unknown command"  # answers that stay the same

_Answer = list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]  # by stream, entries with their fields


class RedisBroker:
    """Adapter of the Broker port. NOACK acknowledges each entry when it is read."""

    def __init__(self, stream: RedisStream) -> None:
        self._name = stream.queue
        # Without the SDK's retries: they would go on behind the back of who reconnects.
        self._redis = Redis.from_url(stream.url, socket_timeout=1.5 * WAIT, retry=Retry(NoBackoff(), 0))

    async def connect(self) -> None:
        try:
            await self._redis.xgroup_create(self._name, _GROUP, id="0", mkstream=True)
        except (AuthenticationError, AuthorizationError):
            raise ConfigurationError("the server refuses these credentials") from None
        except ResponseError as error:
            answer = str(error)
            if answer.startswith(_PERMANENT):
                raise ConfigurationError(f"the server answers: {answer}") from None
            if not answer.startswith("BUSYGROUP"):  # the group exists
                raise

    async def send(self, text: str) -> None:
        await self._redis.xadd(self._name, {"data": text}, maxlen=KEPT, approximate=True)

    async def receive(self) -> bytes | None:
        streams: dict[Any, Any] = {self._name: ">"}
        found = await self._redis.xreadgroup(_GROUP, _CONSUMER, streams, count=1, block=WAIT * 1000, noack=True)
        for _, entries in cast("_Answer", found):
            for _, fields in entries:
                return fields.get(b"data", b"")
        return None

    async def pause(self) -> None:
        pass

    async def check(self) -> None:
        await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()
