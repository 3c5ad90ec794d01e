"""What every Dispatcher keeps to, whichever carries its wake-ups; and what only one of them can get wrong."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import UUID

import aio_pika
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from app.errors import ConfigurationError
from app.jobs.dispatch.base import Dispatcher
from app.jobs.dispatch.broker import BrokerDispatcher, connection
from app.jobs.dispatch.broker.redis import RedisBroker
from app.jobs.dispatch.in_process import InProcessDispatcher
from app.settings import broker as broker_url
from tests.support import brokers
from tests.support.brokers import AWS, Queue, Sqs
from tests.support.logs import captured

CHECK_INTERVAL = 0.4
CALL_TIMEOUT = 1.0


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)


class Jobs:
    """A Puller for which each wake-up is a job that runs until `finish`."""

    def __init__(self, capacity: int = 1000) -> None:
        self._capacity = capacity
        self._finished = asyncio.Event()
        self.running = 0
        self.woken: list[UUID] = []

    async def until_free(self) -> None:
        while self.running >= self._capacity:
            self._finished.clear()
            await self._finished.wait()

    def wake(self, job_id: UUID) -> None:
        self.woken.append(job_id)
        self.running += 1

    def finish(self) -> None:
        self.running = 0
        self._finished.set()


async def eventually(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of what others do
            await asyncio.sleep(0.01)


async def nothing_is_held(queue: Queue, seconds: float = 20) -> None:
    """A broker does not answer an acknowledgement: it may come to it a moment later."""
    async with asyncio.timeout(seconds):
        while await queue.held():  # noqa: ASYNC110 - of what others do
            await asyncio.sleep(0.01)


@asynccontextmanager
async def at_work(dispatcher: Dispatcher) -> AsyncIterator[Dispatcher]:
    await dispatcher.open()
    background = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        dispatcher.stop()
        background.cancel()
        await asyncio.wait([background])
        await dispatcher.close()


def worker(queue: Queue, jobs: Jobs) -> BrokerDispatcher:
    """A dispatcher that notices sooner than usual when the broker is away, and that it is back."""
    return BrokerDispatcher(
        queue.place,
        jobs,
        call_timeout=CALL_TIMEOUT,
        check_interval=CHECK_INTERVAL,
        retry_intervals=(0.1, 0.5),
    )


def api(queue: Queue) -> BrokerDispatcher:
    """The dispatcher of a process that only accepts jobs."""
    return worker(queue, Jobs(0))


Engine = Callable[[Jobs], Dispatcher]


@pytest.fixture(params=["in process", *brokers.KINDS])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Every adapter, in a process that both sends wake-ups and follows them."""
    if request.param == "in process":
        yield InProcessDispatcher
        return
    with brokers.requested(request) as queue:
        yield lambda jobs: worker(queue, jobs)


async def test_a_wakeup_arrives_and_is_the_id_of_its_job(engine: Engine) -> None:
    jobs, job_id = Jobs(), uuid7()
    async with at_work(engine(jobs)) as dispatcher:
        await eventually(lambda: dispatcher.alarm is None)
        await dispatcher.send(job_id)
        await eventually(lambda: jobs.woken == [job_id])


async def test_many_wakeups_some_of_them_twice(engine: Engine) -> None:
    jobs, job_ids = Jobs(), [uuid7() for _ in range(40)]
    async with at_work(engine(jobs)) as dispatcher:
        await asyncio.gather(*(dispatcher.send(job_id) for job_id in [*job_ids, *job_ids[:10]]))
        await eventually(lambda: len(jobs.woken) >= 50 and set(jobs.woken) == set(job_ids))


async def test_what_was_sent_before_any_worker_was_there(queue: Queue) -> None:
    jobs, job_id = Jobs(), uuid7()
    async with at_work(api(queue)) as sender:
        await sender.send(job_id)
        async with at_work(worker(queue, jobs)):
            await eventually(lambda: jobs.woken == [job_id])


async def test_what_is_no_wakeup_is_logged_and_dropped(queue: Queue) -> None:
    jobs, job_id = Jobs(), uuid7()
    with captured(connection) as logs:
        async with at_work(worker(queue, jobs)) as dispatcher:
            for junk in (b"junk", b"{}", "💥".encode(), b"x" * 10_000):
                await queue.put(junk)
            await dispatcher.send(job_id)
            await eventually(lambda: jobs.woken == [job_id])
            await eventually(lambda: len(logs) == 4)
            await asyncio.sleep(0.2)  # the last is acknowledged when the next is asked for
        assert {(each["event"], each["size"]) for each in logs} == {("wakeup.unreadable", n) for n in (4, 2, 10_000)}
    await nothing_is_held(queue)


async def test_a_message_is_acknowledged_when_it_is_received(queue: Queue) -> None:
    """The database holds the lease of a job: when its worker dies, no message has to come again."""
    dying, other, job_ids = Jobs(1), Jobs(), [uuid7() for _ in range(3)]
    async with at_work(worker(queue, dying)) as dispatcher:
        await dispatcher.send(job_ids[0])
        await eventually(lambda: dying.woken)
        for job_id in job_ids[1:]:
            await dispatcher.send(job_id)  # an acknowledgement may have no answer, but these have, and come later
        queue.relay.cut()
    queue.relay.mend()
    async with at_work(worker(queue, other)):
        await eventually(lambda: len(other.woken) >= 2)
    assert dying.woken == job_ids[:1]
    assert set(other.woken) == set(job_ids[1:])
    await nothing_is_held(queue)


async def test_messages_wait_where_every_worker_can_take_them(queue: Queue) -> None:
    """A worker without capacity takes none ahead of the others."""
    busy, other, job_ids = Jobs(2), Jobs(2), [uuid7() for _ in range(6)]
    async with at_work(worker(queue, busy)) as sender:
        for job_id in job_ids:
            await sender.send(job_id)
        await eventually(lambda: len(busy.woken) == 2)
        async with at_work(worker(queue, other)):
            await eventually(lambda: len(other.woken) == 2)
            other.finish()
            await eventually(lambda: len(other.woken) == 4)
    assert len(busy.woken) == 2
    assert {*busy.woken, *other.woken} == set(job_ids)


async def test_a_worker_that_stops_takes_no_more_but_sends(queue: Queue) -> None:
    stopping, other, job_ids = Jobs(), Jobs(), [uuid7() for _ in range(5)]
    async with at_work(worker(queue, stopping)) as dispatcher:
        await dispatcher.send(job_ids[0])
        await eventually(lambda: stopping.woken)
        dispatcher.stop()
        async with at_work(worker(queue, other)):
            for job_id in job_ids[1:]:
                await dispatcher.send(job_id)
            await eventually(lambda: len(other.woken) == 4)
    assert stopping.woken == job_ids[:1]
    assert set(other.woken) == set(job_ids[1:])


async def away(queue: Queue) -> None:
    queue.relay.cut()


async def silent(queue: Queue) -> None:
    queue.relay.freeze()


@pytest.mark.parametrize("fails", [away, silent])
async def test_a_broker_that_fails_keeps_nobody_waiting(
    fails: Callable[[Queue], Awaitable[None]], queue: Queue
) -> None:
    jobs = Jobs()
    async with at_work(api(queue)) as sender, at_work(worker(queue, jobs)) as at_worker:
        await fails(queue)
        counted, asked_at = not_sent(), time.monotonic()
        await asyncio.gather(*(sender.send(uuid7()) for _ in range(1000)))
        assert time.monotonic() - asked_at < 3 * CALL_TIMEOUT, "none waited behind the others"
        assert not_sent() - counted == 1000
        await eventually(lambda: (sender.alarm or "").startswith("away: "))
        job_id = uuid7()
        await at_worker.send(job_id)
        assert jobs.woken == [job_id], "a worker follows the wake-up itself"
        queue.relay.cut()
        queue.relay.mend()
        await eventually(lambda: sender.alarm is None and at_worker.alarm is None)
        job_id = uuid7()
        await sender.send(job_id)
        await eventually(lambda: job_id in jobs.woken)


def not_sent() -> float:
    return REGISTRY.get_sample_value("document_api_wakeups_not_sent_total") or 0


async def test_a_broker_that_goes_unused_is_missed_once(queue: Queue) -> None:
    with captured(connection) as logs:
        async with at_work(api(queue)) as sender, at_work(worker(queue, Jobs())) as at_worker:
            queue.relay.cut()
            await eventually(lambda: sender.alarm and at_worker.alarm)
            await asyncio.sleep(1)  # and some attempts
            queue.relay.mend()
            await eventually(lambda: sender.alarm is None and at_worker.alarm is None)
    assert Counter(each["event"] for each in logs) == {"broker.away": 2, "broker.back": 2}, "once each"


async def test_a_broker_that_is_away_at_the_start_is_waited_for(queue: Queue) -> None:
    jobs, job_id = Jobs(), uuid7()
    queue.relay.cut()
    async with at_work(api(queue)) as sender, at_work(worker(queue, jobs)) as at_worker:
        assert sender.alarm
        queue.relay.mend()
        await eventually(lambda: sender.alarm is None and at_worker.alarm is None)
        await sender.send(job_id)
        await eventually(lambda: jobs.woken == [job_id])


async def test_a_broker_that_is_silent_holds_up_neither_start_nor_end(queue: Queue) -> None:
    queue.relay.freeze()
    began = time.monotonic()
    async with at_work(worker(queue, Jobs())) as dispatcher:
        assert time.monotonic() - began < 4
        assert dispatcher.alarm
        queue.relay.thaw()
        await eventually(lambda: dispatcher.alarm is None)
        queue.relay.freeze()
        began = time.monotonic()
    assert time.monotonic() - began < 4
    queue.relay.thaw()
    await eventually(lambda: not queue.relay.connections, seconds=5)


async def test_running_jobs_outlive_the_connection(queue: Queue) -> None:
    jobs, job_ids = Jobs(1), [uuid7(), uuid7()]
    async with at_work(worker(queue, jobs)) as dispatcher:
        await dispatcher.send(job_ids[0])
        await eventually(lambda: jobs.woken)
        queue.relay.cut()
        await eventually(lambda: dispatcher.alarm)
        queue.relay.mend()
        await eventually(lambda: not dispatcher.alarm)
        await dispatcher.send(job_ids[1])
        await eventually(lambda: jobs.finish() or job_ids[1] in jobs.woken)


async def test_connections_do_not_outlive_their_use(queue: Queue) -> None:
    async with at_work(api(queue)) as sender, at_work(worker(queue, Jobs())) as at_worker:
        await asyncio.gather(sender.send(uuid7()), at_worker.send(uuid7()))
        await asyncio.sleep(CHECK_INTERVAL)
        used = queue.relay.connections
        queue.relay.freeze()
        await eventually(lambda: sender.alarm and at_worker.alarm)
        await asyncio.sleep(2 * CALL_TIMEOUT)  # and some attempts
        queue.relay.thaw()
        await eventually(lambda: sender.alarm is None and at_worker.alarm is None)
        await eventually(lambda: queue.relay.connections <= used, seconds=5)
    await eventually(lambda: not queue.relay.connections, seconds=5)


async def test_versions_understand_each_other(queue: Queue) -> None:
    """Processes of the version before share the queue while they are replaced."""
    jobs, job_ids = Jobs(1), [uuid7(), uuid7()]
    async with at_work(worker(queue, jobs)) as dispatcher:
        await queue.put(str(job_ids[0]).encode())
        await eventually(lambda: jobs.woken == job_ids[:1])
        await dispatcher.send(job_ids[1])
        assert await queue.take() == str(job_ids[1]).encode()


async def refusal(url: str) -> str:
    """Why nothing can be done with this BROKER_URL."""
    dispatcher = BrokerDispatcher(broker_url.parse(url), Jobs())
    with pytest.raises(ConfigurationError, match="BROKER_URL") as refusal:
        await dispatcher.open()
    await dispatcher.close()
    assert "s3cret" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("queue", ["redis"], indirect=True)
class TestRedis:
    async def test_what_no_waiting_changes_is_said_at_once(self, queue: Queue) -> None:
        place, _, options = queue.direct.partition("?")
        server = place.rstrip("0123456789").rstrip("/")
        assert "DB index is out of range" in await refusal(f"{server}/99999?{options}")
        async with Redis.from_url(place) as redis:
            await redis.set(queue.place.queue, "something else")
        assert "WRONGTYPE" in await refusal(queue.direct)

    async def test_workers_leave_no_names_behind(self, queue: Queue) -> None:
        for _ in range(3):
            jobs = Jobs()
            async with at_work(worker(queue, jobs)) as dispatcher:
                await dispatcher.send(uuid7())
                await eventually(lambda jobs=jobs: jobs.woken)
        async with Redis.from_url(queue.server) as redis:
            assert len(await redis.xinfo_consumers(queue.place.queue, "workers")) == 1

    async def test_what_is_older_than_the_group_is_read(self, queue: Queue) -> None:
        jobs, job_id = Jobs(), uuid7()
        await queue.put(str(job_id).encode())
        async with at_work(worker(queue, jobs)):
            await eventually(lambda: jobs.woken == [job_id])

    async def test_a_call_that_the_sdk_cancels_ends_no_task(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jobs, job_id, receive = Jobs(), uuid7(), RedisBroker.receive
        outcomes = iter([asyncio.CancelledError()])

        async def cancelled_once(broker: RedisBroker) -> bytes | None:
            for error in outcomes:
                raise error
            return await receive(broker)

        monkeypatch.setattr(RedisBroker, "receive", cancelled_once)
        async with at_work(worker(queue, jobs)) as dispatcher:
            await eventually(lambda: dispatcher.alarm == "away: ConnectionAbortedError")
            await eventually(lambda: dispatcher.alarm is None)
            await dispatcher.send(job_id)
            await eventually(lambda: jobs.woken == [job_id])

    async def test_a_stream_has_an_end(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.jobs.dispatch.broker.redis.KEPT", 100)  # Redis removes some 100 at a time
        async with at_work(api(queue)) as sender:
            await asyncio.gather(*(sender.send(uuid7()) for _ in range(500)))
        async with Redis.from_url(queue.server) as redis:
            assert await redis.xlen(queue.place.queue) < 300

    async def test_a_stream_that_is_gone_is_made_again(self, queue: Queue) -> None:
        jobs, job_id = Jobs(), uuid7()
        async with at_work(worker(queue, jobs)) as dispatcher, Redis.from_url(queue.server) as redis:
            await redis.delete(queue.place.queue)
            await eventually(lambda: dispatcher.alarm)
            await eventually(lambda: dispatcher.alarm is None)
            await dispatcher.send(job_id)
            await eventually(lambda: jobs.woken == [job_id])


@pytest.mark.parametrize("queue", ["rabbitmq"], indirect=True)
class TestRabbitmq:
    async def test_what_no_waiting_changes_is_said_at_once(self, queue: Queue) -> None:
        place, _, options = queue.direct.partition("?")
        host = place.partition("://")[2].partition("/")[0]
        assert "no such vhost" in await refusal(f"amqp://{host}/no-such?{options}")
        async with await aio_pika.connect(place) as connection:
            await (await connection.channel()).declare_queue(queue.place.queue, durable=True)
        assert "PRECONDITION_FAILED - inequivalent arg" in await refusal(queue.direct)

    async def test_the_version_before_can_declare_what_it_shares(self, queue: Queue) -> None:
        """It sends through an exchange of its own, and starts before or after this version."""
        jobs, job_ids = Jobs(), [uuid7(), uuid7()]
        name, quorum = queue.place.queue, {"x-queue-type": "quorum"}
        dead_letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{name}-dead"}
        async with await aio_pika.connect(queue.server) as connection:
            for job_id in job_ids:
                channel = await connection.channel()
                exchange = await channel.declare_exchange(name, aio_pika.ExchangeType.TOPIC, durable=True)
                await channel.declare_queue(f"{name}-dead", durable=True, arguments={**quorum})
                shared = await channel.declare_queue(name, durable=True, arguments={**dead_letters, **quorum})
                await shared.bind(exchange, routing_key=name)
                async with at_work(worker(queue, jobs)):
                    await exchange.publish(aio_pika.Message(str(job_id).encode()), routing_key=name)
                    await eventually(lambda job_id=job_id: job_id in jobs.woken)
        assert jobs.woken == job_ids

    async def test_a_queue_that_is_gone_is_made_again(self, queue: Queue) -> None:
        jobs, job_id = Jobs(), uuid7()
        async with at_work(worker(queue, jobs)) as dispatcher:
            async with await aio_pika.connect(queue.server) as connection:
                await (await connection.channel()).queue_delete(queue.place.queue)
            await eventually(lambda: dispatcher.alarm)
            await eventually(lambda: dispatcher.alarm is None)
            await dispatcher.send(job_id)
            await eventually(lambda: jobs.woken == [job_id])


@pytest.mark.parametrize("queue", ["redis", "rabbitmq"], indirect=True)
async def test_credentials_that_are_refused_are_said_once(queue: Queue) -> None:
    scheme, _, rest = queue.url.partition("://")
    assert "credentials" in await refusal(f"{scheme}://nobody:s3cret@{rest.rpartition('@')[2]}")


@pytest.mark.parametrize("queue", ["sqs"], indirect=True)
class TestSqs:
    async def test_a_queue_must_be_there(self, queue: Queue) -> None:
        refused = await refusal(queue.url.replace("sqs://test", "sqs://none"))
        assert refused == "BROKER_URL: the queue does not exist"

    async def test_a_message_is_not_looked_for_elsewhere(self, queue: Queue, sqs: Sqs) -> None:
        jobs, job_id = Jobs(), uuid7()
        async with at_work(worker(queue, jobs)):
            elsewhere = {"s3_extended_message": {"DataType": "String", "StringValue": "True"}}
            url = sqs.url(queue.place.queue)
            sqs.client.send_message(QueueUrl=url, MessageBody=str(job_id), MessageAttributes=elsewhere)
            await eventually(lambda: jobs.woken == [job_id])
