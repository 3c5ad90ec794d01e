"""Due jobs are pulled by whoever has capacity: at once, in order, no more than that, and none before its time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import Connection, Text, Uuid, cast, func, insert, literal, literal_column, null, select, update

from app.database import now
from app.documents.models import documents
from app.events.failure import Failure
from app.jobs import repository, transitions
from app.jobs.kinds import Failed, Released, Succeeded, Waiting
from app.jobs.models import jobs
from app.processing.publication import Product
from app.processing.results import Made
from app.processing.schemas import Provenance
from app.processors.simulated import SimulatedProcessor
from tests.support import databases
from tests.support.factories import pdf
from tests.support.inprocess import Process
from tests.support.server import PASSWORD, Server, pair, until

WEEK = 7 * 86400.0
Accept = Callable[..., UUID]


@contextmanager
def process_on(data_dir: Path, **settings: float) -> Iterator[tuple[Process, Accept]]:
    """A process in which nothing happens by itself, and a way to have a job accepted there."""
    process = Process(data_dir, **settings)
    account = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
    process.http("POST", "/auth/register", json=account)
    token = process.http("POST", "/auth/login", json=account).json()["access_token"]

    def accept(**request: object) -> UUID:
        document = process.http("POST", "/documents", token=token, files={"file": ("a.pdf", pdf(uuid4().hex))}).json()
        answer = process.http("POST", f"/documents/{document['id']}/process", token=token, json=request)
        return UUID(answer.json()["job"]["id"])

    yield process, accept
    process.kill()


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[tuple[Process, Accept]]:
    with process_on(tmp_path / "var") as idle:
        yield idle


def claimed(process: Process, limit: int, **limits: int) -> list[UUID]:
    return [job.id for job in process.claim(limit, **limits)]


def test_the_longest_due_are_claimed_first_and_no_more_than_asked_for(idle: tuple[Process, Accept]) -> None:
    process, accept = idle
    job_ids = [accept() for _ in range(5)]
    assert sorted(claimed(process, 2)) == job_ids[:2]
    assert sorted(claimed(process, 2)) == job_ids[2:4]
    assert claimed(process, 2) == job_ids[4:]
    assert claimed(process, 2) == []


def test_each_queue_has_a_limit_of_its_own(idle: tuple[Process, Accept]) -> None:
    process, accept = idle
    texts = [accept(processor="text") for _ in range(3)]
    simulated = accept()
    assert sorted(claimed(process, 4, text=1)) == [texts[0], simulated]


def test_a_job_of_next_week_is_not_run_today(idle: tuple[Process, Accept]) -> None:
    """Nor is it when the clock is put back meanwhile: it waits as long as it was meant to."""
    process, accept = idle
    job_id = accept()
    later = {"run_at": now(WEEK), "queued_at": now(), "turn": None}
    process.write(lambda conn: conn.execute(update(jobs).where(jobs.c.id == job_id).values(**later)))
    process.tick()
    assert claimed(process, 1) == []
    ahead = {"run_at": now(WEEK + 3600), "queued_at": now(3600)}
    process.write(lambda conn: conn.execute(update(jobs).where(jobs.c.id == job_id).values(**ahead)))
    assert process.write(transitions.clock_was_put_back)
    process.write(transitions.follow_clock)
    assert not process.write(transitions.clock_was_put_back)
    left = process.write(lambda conn: conn.execute(select(jobs.c.run_at, now().label("at"))).one())
    assert timedelta(seconds=WEEK - 60) < left.run_at - left.at <= timedelta(seconds=WEEK)
    assert claimed(process, 1) == []


def test_a_waiting_job_is_held_by_its_fence_until_its_time_is_over(idle: tuple[Process, Accept]) -> None:
    process, accept = idle
    accept()
    (job,) = process.claim(1)
    assert process.settle(job, Waiting(60))
    assert process.write(repository.get, job.id).state == "WAITING"
    assert claimed(process, 1) == []
    assert process.write(transitions.heartbeat, job, 0.0, 0.5), "whoever has the job and its fence renews the lease"
    process.tick()
    taken_over = process.write(repository.get, job.id)
    assert (taken_over.state, taken_over.tries) == ("QUEUED", 1)
    assert not process.settle(job, Waiting(60)) or taken_over.fence == job.fence
    assert claimed(process, 1) == [job.id]
    assert not process.settle(job, Waiting(60)), "the fence has risen"


def test_what_a_worker_writes_after_it_has_lost_its_job_to_another_counts_for_nothing(
    idle: tuple[Process, Accept],
) -> None:
    process, accept = idle
    accept()
    (lost,) = process.claim(1, lease=-1.0)
    process.tick()
    (held,) = process.claim(1)
    assert (held.id, held.fence) == (lost.id, lost.fence + 1)
    assert not process.write(transitions.heartbeat, lost, 30.0, 0.5)
    first, second = (Succeeded(Product([Made(Provenance.of(job), "{}")])) for job in (lost, held))
    for outcome in (first, Failed(Failure(code="x", detail="x")), Released(), Waiting(60)):
        assert not process.settle(lost, outcome)
        assert process.write(repository.get, held.id) == held
    assert process.settle(held, second)
    assert process.write(repository.get, held.id).state == "SUCCEEDED"


def test_a_lease_that_has_not_expired_is_left_alone_beside_one_that_has(idle: tuple[Process, Accept]) -> None:
    process, accept = idle
    for _ in range(2):
        accept()
    (silent,) = process.claim(1, lease=-1.0)
    (alive,) = process.claim(1)
    process.tick()
    assert process.write(repository.get, silent.id).state == "QUEUED"
    assert process.write(repository.get, alive.id) == alive


def test_a_processor_that_runs_one_at_a_time_leaves_the_others_queued(tmp_path: Path) -> None:
    with (
        patch.object(SimulatedProcessor, "at_once", 1),
        process_on(tmp_path / "var", job_timeout=2) as (process, accept),
    ):
        job_ids = [accept(params={"seconds": 0.8}) for _ in range(3)]
        process.work(*job_ids)
        ran = [process.write(repository.get, job_id) for job_id in job_ids]
    assert [(job.state, job.tries) for job in ran] == [("SUCCEEDED", 1)] * 3
    for before, after in pairwise(ran):
        assert after.started_at >= before.finished_at, "the wait was not the attempt's time"


def test_a_job_whose_acceptor_is_killed_starts_within_two_seconds_elsewhere(tmp_path: Path) -> None:
    with pair(tmp_path / "var") as (first, second):
        user = first.register()
        document_id = user.upload()["id"]
        first.kill()
        user = first.restarted(user, FAULT="process.after_commit:1")
        with pytest.raises(httpx2.TransportError):
            user.process(document_id)
        committed = time.monotonic()
        at_second = user.at(second)
        until(lambda: "started" in at_second.story(document_id), timeout=5)
        assert time.monotonic() - committed < 2


@pytest.mark.postgresql
def test_ten_thousand_due_jobs_run_at_once_with_statistics_of_an_empty_queue(tmp_path: Path) -> None:
    """PostgreSQL expects one row then, and may choose a plan whose cost is quadratic."""
    data_dir = tmp_path / "var"
    with Server(data_dir, {"JOB_CONCURRENCY": "0"}) as accepting:
        user = accepting.register()
        job = user.start(user.upload()["id"])
        with databases.engine(data_dir).begin() as conn:
            _copy(conn, job, 50_000, "SUCCEEDED")
            conn.exec_driver_sql("UPDATE jobs SET state = 'SUCCEEDED', finished_at = now() WHERE state = 'QUEUED'")
        with databases.engine(data_dir).connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.exec_driver_sql("ANALYZE jobs")
        with databases.engine(data_dir).begin() as conn:
            _copy(conn, job, 10_000, "QUEUED")
        count = select(func.count()).where(jobs.c.state == "QUEUED")
        with Server(data_dir, {"JOB_CONCURRENCY": "16"}) as running, databases.engine(data_dir).connect() as conn:

            def left() -> int:
                conn.rollback()
                return conn.scalar(count) or 0

            began = left()
            until(lambda: left() < began - 100, timeout=10)
            assert not running.logs("jobs.not_pulled")


@pytest.mark.postgresql
def test_a_start_leaves_the_queue_as_it_is(tmp_path: Path) -> None:
    """It costs as much however long the queue is: a rolling deploy has many of them."""
    versions = select(func.array_agg(literal_column("xmin::text"))).select_from(jobs)
    accepting = Server(tmp_path / "var", {"JOB_CONCURRENCY": "0"})
    with accepting as server, databases.engine(server.data_dir).connect() as conn:
        user = server.register()
        for _ in range(10):
            user.start(user.upload()["id"])

        def written() -> Any:
            conn.rollback()
            return conn.scalar(versions)

        before = until(lambda: (now := written()) == (time.sleep(2), written())[1] and now)
        with Server(tmp_path / "var", {"JOB_CONCURRENCY": "0"}):
            time.sleep(3)  # it has polled the whole queue
        assert written() == before


def _copy(conn: Connection, job: dict[str, Any], number: int, state: str) -> None:
    """Insert so many copies of a job, each of a document of its own."""
    count = func.generate_series(1, number).table_valued("value", joins_implicitly=True).render_derived().c.value
    id_ = cast(func.md5(state + cast(count, Text)), Uuid)
    ended = state == "SUCCEEDED"
    status, finished_at = ("COMPLETED", now()) if ended else ("PROCESSING", null())
    new_document = {"id": id_, "job_id": id_, "status": literal(status)}
    new_job = {"id": id_, "document_id": id_, "turn": jobs.c.turn + count, "state": literal(state), "key": null()}
    for table, original, changed in (
        (documents, job["document_id"], new_document),
        (jobs, job["id"], new_job | {"finished_at": finished_at}),
    ):
        row = select(*(changed.get(column.name, column) for column in table.c))
        conn.execute(insert(table).from_select(table.c.keys(), row.where(table.c.id == UUID(original))))
