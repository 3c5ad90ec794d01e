"""What every Dispatcher keeps to, whichever carries its hints; and what only one of them can get wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import UUID

import aio_pika
import pytest
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from app.dispatch.base import Carrier
from app.dispatch.broker import BrokerDispatcher, Consumer, link as link_module, redis as redis_module
from app.dispatch.broker.link import PLENTY
from app.dispatch.in_process import InProcessDispatcher
from app.dispatch.nowhere import Nowhere
from app.errors import ConfigurationError
from app.settings import broker as broker_url
from tests.support import brokers
from tests.support.brokers import AWS, Queue, Sqs

LOOK = 0.4
PATIENCE = 1.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is away is noticed, and looked for, sooner than it would be."""
    monkeypatch.setattr(link_module, "LOOK", LOOK)
    monkeypatch.setattr(link_module, "PATIENCE", PATIENCE)
    monkeypatch.setattr(link_module, "PAUSES", (0.1, 0.5))
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)


class Runs:
    """Somebody who follows hints, and notes them."""

    free = 3  # of a worker's places

    def __init__(self) -> None:
        self.begun: list[UUID] = []
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def run(self, job_id: UUID) -> None:
        self.begun.append(job_id)
        await self.may_end.wait()


async def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of what others do
            await asyncio.sleep(0.01)


@asynccontextmanager
async def at_work(carrier: Carrier) -> AsyncIterator[Carrier]:
    await carrier.open()
    background = asyncio.create_task(carrier.run())
    try:
        yield carrier
    finally:
        carrier.stop()
        background.cancel()
        await asyncio.wait([background])
        await carrier.close()


def api(queue: Queue) -> BrokerDispatcher:
    """The dispatcher of a process that only accepts jobs."""
    return BrokerDispatcher(queue.place, Consumer(Runs().run, 0), otherwise=Nowhere())


def worker(queue: Queue, runs: Runs, places: int = 4) -> BrokerDispatcher:
    """The dispatcher of a worker."""
    return BrokerDispatcher(queue.place, Consumer(runs.run, places), otherwise=InProcessDispatcher(runs))


Engine = Callable[[Runs], Carrier]


@pytest.fixture(params=["in process", *brokers.KINDS])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Every adapter, in a process that both sends hints and follows them."""
    if request.param == "in process":
        yield InProcessDispatcher
        return
    with brokers.requested(request) as queue:
        yield lambda runs: worker(queue, runs)


async def test_a_hint_arrives_and_is_the_id_of_its_job(engine: Engine) -> None:
    runs, job_id = Runs(), uuid7()
    async with at_work(engine(runs)) as carrier:
        assert carrier.room
        assert not carrier.plenty
        assert carrier.alarm is None
        await carrier.send(job_id)
        await eventually(lambda: runs.begun == [job_id])


async def test_many_hints_some_of_them_twice(engine: Engine) -> None:
    runs, job_ids = Runs(), [uuid7() for _ in range(40)]
    async with at_work(engine(runs)) as carrier:
        await asyncio.gather(*(carrier.send(job_id) for job_id in [*job_ids, *job_ids[:10]]))
        await eventually(lambda: len(runs.begun) == 50)
    assert set(runs.begun) == set(job_ids)


async def test_what_was_sent_before_any_worker_was_there(queue: Queue) -> None:
    runs, job_id = Runs(), uuid7()
    async with at_work(api(queue)) as sender:
        await sender.send(job_id)
        async with at_work(worker(queue, runs)):
            await eventually(lambda: runs.begun == [job_id])


async def test_what_is_no_hint_is_passed_over(queue: Queue) -> None:
    runs, job_id = Runs(), uuid7()
    async with at_work(worker(queue, runs)) as carrier:
        for junk in (b"junk", b"{}", b"\xf0\x9f\x92\xa5", b"x" * 10_000):
            await queue.put(junk)
        await carrier.send(job_id)
        await eventually(lambda: runs.begun == [job_id])


async def test_hints_wait_where_every_worker_can_take_them(queue: Queue) -> None:
    """A worker whose places are taken takes none ahead of the others."""
    busy, other, job_ids = Runs(), Runs(), [uuid7() for _ in range(6)]
    busy.may_end.clear()
    async with at_work(worker(queue, busy, places=2)) as sender:
        for job_id in job_ids:
            await sender.send(job_id)
        await eventually(lambda: len(busy.begun) == 2)
        async with at_work(worker(queue, other, places=2)):
            await eventually(lambda: len(other.begun) == 4)
        assert len(busy.begun) == 2
        busy.may_end.set()


async def test_a_hint_whose_worker_died_comes_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "IDLE_MS", 500)
    dying, other, job_id = Runs(), Runs(), uuid7()
    dying.may_end.clear()
    async with at_work(api(queue)) as sender:
        async with at_work(worker(queue, dying)):
            await sender.send(job_id)
            await eventually(lambda: dying.begun)
            queue.relay.cut()
        queue.relay.mend()
        async with at_work(worker(queue, other)) as carrier:
            await asyncio.sleep(0.6)
            await carrier.send(uuid7())  # Redis looks for what was left when there is something new
            await eventually(lambda: job_id in other.begun)


async def test_a_worker_that_stops_takes_no_more_but_sends(queue: Queue) -> None:
    stopping, other, job_id = Runs(), Runs(), uuid7()
    async with at_work(worker(queue, stopping)) as carrier:
        carrier.stop()
        await asyncio.sleep(0.1)
        async with at_work(worker(queue, other)):
            await carrier.send(job_id)
            await eventually(lambda: other.begun == [job_id])
    assert stopping.begun == []


async def away(queue: Queue) -> None:
    queue.relay.cut()


async def silent(queue: Queue) -> None:
    queue.relay.freeze()


@pytest.mark.parametrize("fails", [away, silent])
async def test_a_broker_that_fails_keeps_nobody_waiting(
    fails: Callable[[Queue], Awaitable[None]], queue: Queue
) -> None:
    runs = Runs()
    async with at_work(api(queue)) as sender, at_work(worker(queue, runs)) as at_worker:
        await fails(queue)
        asked_at = time.monotonic()
        await asyncio.gather(*(sender.send(uuid7()) for _ in range(1000)))
        assert time.monotonic() - asked_at < 10, "none waited behind the others"
        assert not sender.room
        await eventually(lambda: (sender.alarm or "").startswith("away: "))
        job_id = uuid7()
        await at_worker.send(job_id)
        assert runs.begun == [job_id], "a worker follows the hint itself"
        assert at_worker.room == runs.free
        queue.relay.cut()
        queue.relay.mend()
        await eventually(lambda: sender.room and sender.alarm is None and at_worker.alarm is None)
        job_id = uuid7()
        await sender.send(job_id)
        await eventually(lambda: job_id in runs.begun)


async def test_a_broker_that_goes_unused_is_missed(queue: Queue) -> None:
    async with at_work(api(queue)) as sender:
        queue.relay.cut()
        await eventually(lambda: not sender.room)


async def test_a_broker_that_is_away_at_the_start_is_waited_for(queue: Queue) -> None:
    runs, job_id = Runs(), uuid7()
    queue.relay.cut()
    async with at_work(api(queue)) as sender, at_work(worker(queue, runs)):
        assert not sender.room
        queue.relay.mend()
        await eventually(lambda: sender.room)
        await sender.send(job_id)
        await eventually(lambda: runs.begun == [job_id])


async def test_running_jobs_outlive_the_connection(queue: Queue) -> None:
    runs, job_ids = Runs(), [uuid7(), uuid7()]
    runs.may_end.clear()
    async with at_work(worker(queue, runs, places=1)) as carrier:
        await carrier.send(job_ids[0])
        await eventually(lambda: runs.begun)
        queue.relay.cut()
        await eventually(lambda: carrier.alarm)
        queue.relay.mend()
        await eventually(lambda: not carrier.alarm)
        runs.may_end.set()
        await carrier.send(job_ids[1])
        await eventually(lambda: set(runs.begun) == set(job_ids))


async def test_with_plenty_of_hints_waiting_none_is_repeated(queue: Queue) -> None:
    async with at_work(api(queue)) as sender:
        await asyncio.gather(*(sender.send(uuid7()) for _ in range(PLENTY)))
        await eventually(lambda: sender.plenty)
        assert sender.room, "for those that no hint waits for"
        assert sender.alarm is None
        async with at_work(worker(queue, Runs(), places=50)):
            await eventually(lambda: not sender.plenty, seconds=30)


@pytest.mark.parametrize("places", [0, 4])
async def test_connections_do_not_outlive_their_use(places: int, queue: Queue) -> None:
    async with at_work(worker(queue, Runs(), places)) as carrier:
        await carrier.send(uuid7())
        await asyncio.sleep(LOOK)
        used = queue.relay.connections
        for _ in range(2):
            queue.relay.freeze()
            await eventually(lambda: carrier.alarm)
            await asyncio.sleep(2 * PATIENCE)  # and some attempts
            queue.relay.thaw()
            await eventually(lambda: carrier.alarm is None)
            await eventually(lambda: queue.relay.connections <= used, seconds=5)
    await eventually(lambda: not queue.relay.connections, seconds=5)


async def refusal(url: str) -> str:
    """Why nothing can be done with this BROKER_URL."""
    carrier = BrokerDispatcher(broker_url.parse(url), Consumer(Runs().run, 0), otherwise=Nowhere())
    with pytest.raises(ConfigurationError, match="BROKER_URL") as refusal:
        await carrier.open()
    await carrier.close()
    assert "s3cret" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("queue", ["redis"], indirect=True)
class TestRedis:
    async def test_what_no_waiting_changes_is_said_at_once(self, queue: Queue) -> None:
        place, _, options = queue.direct.partition("?")
        server = place.rstrip("0123456789").rstrip("/")
        assert "DB index is out of range" in await refusal(f"{server}/99999?{options}")
        async with Redis.from_url(place) as redis:
            await redis.set(queue.place.name, "something else")
        assert "WRONGTYPE" in await refusal(queue.direct)

    async def test_workers_leave_no_names_behind(self, queue: Queue) -> None:
        for _ in range(3):
            runs = Runs()
            async with at_work(worker(queue, runs)) as carrier:
                await carrier.send(uuid7())
                await eventually(lambda runs=runs: runs.begun)
        async with Redis.from_url(queue.direct.partition("?")[0]) as redis:
            assert len(await redis.xinfo_consumers(queue.place.name, "workers")) == 1

    async def test_groups_of_others_do_not_count(self, queue: Queue) -> None:
        runs = Runs()
        async with at_work(worker(queue, runs)) as carrier:
            async with Redis.from_url(queue.direct.partition("?")[0]) as redis:
                await redis.xgroup_create(queue.place.name, "monitor", id="0")
            await asyncio.gather(*(carrier.send(uuid7()) for _ in range(PLENTY)))
            await eventually(lambda: len(runs.begun) == PLENTY, seconds=30)
            await asyncio.sleep(2 * LOOK)
            assert not carrier.plenty


@pytest.mark.parametrize("queue", ["rabbitmq"], indirect=True)
class TestRabbitmq:
    async def test_what_no_waiting_changes_is_said_at_once(self, queue: Queue) -> None:
        place, _, options = queue.direct.partition("?")
        host = place.partition("://")[2].partition("/")[0]
        assert "no such vhost" in await refusal(f"amqp://{host}/no-such?{options}")
        async with await aio_pika.connect(place) as connection:
            await (await connection.channel()).declare_queue(queue.place.name, durable=True)
        assert "PRECONDITION_FAILED - inequivalent arg" in await refusal(queue.direct)


@pytest.mark.parametrize("queue", ["redis", "rabbitmq"], indirect=True)
async def test_credentials_that_are_refused_are_said_once(queue: Queue) -> None:
    scheme, _, rest = queue.url.partition("://")
    assert "credentials" in await refusal(f"{scheme}://nobody:s3cret@{rest.rpartition('@')[2]}")


@pytest.mark.parametrize("queue", ["sqs"], indirect=True)
class TestSqs:
    async def test_a_queue_must_be_there(self, queue: Queue) -> None:
        place = broker_url.parse(queue.url.replace("sqs://test", "sqs://none"))
        with pytest.raises(ConfigurationError, match="BROKER_URL names a queue that does not exist"):
            await BrokerDispatcher(place, Consumer(Runs().run, 0), otherwise=Nowhere()).open()

    async def test_what_is_no_hint_ends_in_the_dead_letter_queue(self, queue: Queue) -> None:
        async with at_work(worker(queue, Runs())) as carrier:
            await queue.put(b"junk")
            await eventually(lambda: carrier.alarm, seconds=15)
            assert (carrier.alarm or "").startswith("messages in the dead-letter queue test-")

    async def test_a_message_is_not_looked_for_elsewhere(self, queue: Queue, sqs: Sqs) -> None:
        runs, job_id = Runs(), uuid7()
        async with at_work(worker(queue, runs)) as carrier:
            url = sqs.client.get_queue_url(QueueName=queue.place.name)["QueueUrl"]
            elsewhere = {"s3_extended_message": {"DataType": "String", "StringValue": "True"}}
            sqs.client.send_message(QueueUrl=url, MessageBody=str(job_id), MessageAttributes=elsewhere)
            await eventually(lambda: runs.begun == [job_id])
            assert carrier.alarm is None

    async def test_a_long_job_keeps_its_message(self, queue: Queue) -> None:
        runs, other, job_id = Runs(), Runs(), uuid7()
        runs.may_end.clear()
        async with at_work(worker(queue, runs)) as carrier, at_work(worker(queue, other, places=1)):
            await carrier.send(job_id)
            await eventually(lambda: runs.begun or other.begun)
            await asyncio.sleep(brokers.VISIBILITY * 2.5)
            assert [*runs.begun, *other.begun] == [job_id]
            runs.may_end.set()
