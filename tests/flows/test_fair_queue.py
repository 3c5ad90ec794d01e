"""Due jobs are claimed in turn among their owners, and nobody has all of a process's capacity to themselves."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, bindparam, event, func, insert, select, text, update

from app.database import now, statements
from app.events.catalogue.jobs import JobQueued
from app.events.failure import Failure
from app.jobs import claims, repository, turns
from app.jobs.capacity import Capacity
from app.jobs.kinds import Released, Retryable
from app.jobs.models import jobs
from app.jobs.repository import NewJob
from app.jobs.turns import EARLIEST, Turns
from tests.support import databases
from tests.support.inprocess import Process
from tests.support.server import Server
from tests.support.user import User

QUEUE = "process/simulated@1"
ADA, EVE = UUID(int=2), UUID(int=1)  # in the order of their ids comes first who has too many
FAILURE = Failure(code="x", detail="x")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A process in which nothing happens by itself."""
    process = Process(tmp_path / "var")
    with patch.object(turns, "_KNOWN_SECONDS", 3600.0):  # whatever else the machine does
        yield process
    process.kill()


def queued(process: Process, owner_id: UUID, number: int = 1, queue: str = QUEUE) -> list[UUID]:
    """Jobs that were accepted one after the other, since the last poll."""
    new = [NewJob(uuid4(), "process", queue, {}, owner_id, 5) for _ in range(number)]
    head = process.turns.head(queue)
    return [process.write(repository.enqueue, each, JobQueued(), head).id for each in new]


def many(process: Process, owner_ids: Sequence[UUID], number: int) -> None:
    """As many jobs of each, all of a moment: as `queued` would make them."""
    first = queued(process, uuid4())[0]

    def copy(conn: Connection) -> None:
        row = dict(conn.execute(select(jobs).where(jobs.c.id == first)).mappings().one())
        columns = {name: bindparam(f"a_{name}") for name in ("id", "owner_id", "turn")}
        conn.execute(
            insert(jobs).values(row | columns),
            [
                {"a_id": uuid4(), "a_owner_id": owner_id, "a_turn": row["turn"] + turn}
                for turn in range(number)
                for owner_id in owner_ids
            ],
        )
        conn.execute(jobs.delete().where(jobs.c.id == first))

    process.write(copy)
    process.tick()


def owners(process: Process, number: int) -> list[UUID]:
    """Whose jobs are claimed next, one by one."""
    return [job.owner_id for _ in range(number) for job in process.claim(1)]


def test_behind_5000_jobs_of_one_owner_the_job_of_another_is_next(process: Process) -> None:
    many(process, [EVE], 5000)
    assert owners(process, 1) == [EVE]
    queued(process, ADA)
    assert owners(process, 2) == [ADA, EVE]


def test_bursts_are_interleaved_and_each_owner_s_jobs_keep_their_order(process: Process) -> None:
    of_eve = queued(process, EVE, 6)
    process.tick()
    of_ada = queued(process, ADA, 3)
    claimed = [job for _ in range(9) for job in process.claim(1)]
    assert [job.owner_id for job in claimed] == [EVE, ADA] * 3 + [EVE] * 3
    assert [job.id for job in claimed if job.owner_id == EVE] == of_eve
    assert [job.id for job in claimed if job.owner_id == ADA] == of_ada


def test_a_burst_into_an_empty_queue_leaves_room_for_others_between(process: Process) -> None:
    """No poll has told the head yet."""
    queued(process, EVE, 20)
    queued(process, ADA, 2)
    assert owners(process, 5).count(ADA) == 2


@pytest.mark.parametrize("ended", ["released", "lease lost"])
def test_what_was_interrupted_is_among_the_next(ended: str, process: Process) -> None:
    many(process, [EVE], 300)
    [job] = process.claim(1, lease=-1.0 if ended == "lease lost" else 30.0)
    many(process, [ADA], 300)
    if ended == "released":
        process.settle(job, Released())
    process.tick()
    assert job.id in [each.id for each in process.claim(3)]


def test_a_retry_waits_without_a_turn_and_then_comes_after_its_owner_s_other_jobs(process: Process) -> None:
    (first,) = queued(process, EVE)
    [job] = process.claim(1)
    process.settle(job, Retryable(FAILURE))
    assert turn_of(process, first) is None
    others = queued(process, EVE, 3)
    process.tick()
    queued(process, ADA)
    process.write(lambda conn: conn.execute(update(jobs).where(jobs.c.id == first).values(run_at=now())))
    process.tick()
    claimed = [each for _ in range(5) for each in process.claim(1)]
    assert [each.id for each in claimed if each.owner_id == EVE] == [*others, first]
    assert ADA in [each.owner_id for each in claimed[:2]]


def turn_of(process: Process, job_id: UUID) -> Any:
    return process.write(lambda conn: conn.scalar(select(jobs.c.turn).where(jobs.c.id == job_id)))


def test_jobs_of_a_process_that_knows_no_turns_get_theirs_from_a_poll(process: Process) -> None:
    many(process, [EVE], 250)
    queued(process, ADA)
    process.write(lambda conn: conn.execute(update(jobs).values(turn=None)))
    assert process.write(claims.claim_due, Capacity(4, {QUEUE: 4}), 30.0, 0.0) == []
    process.tick()
    assert process.write(lambda conn: conn.scalar(select(func.count()).where(jobs.c.turn.is_(None)))) == 0
    assert ADA in owners(process, 2)


def test_a_job_that_such_a_process_has_put_off_waits(process: Process) -> None:
    """It has left the job its turn."""
    queued(process, ADA)
    process.write(lambda conn: conn.execute(update(jobs).values(run_at=now(60))))
    assert process.claim(1) == []
    process.tick()
    assert process.turns.head(QUEUE) is None


def test_one_claim_gives_an_owner_no_more_than_is_theirs(process: Process) -> None:
    many(process, [EVE], 100)
    claimed = process.write(claims.claim_due, Capacity(64, {QUEUE: 64}), 30.0, 0.0)
    assert [job.owner_id for job in claimed] == [EVE] * 48
    queued(process, ADA, 20)
    running = [(job.owner_id, job.queue) for job in claimed]
    claimed = process.write(claims.claim_due, Capacity(64, {QUEUE: 64}, running), 30.0, 0.0)
    assert [job.owner_id for job in claimed] == [ADA] * 16


def test_behind_those_who_get_no_more_every_other_owner_is_found(process: Process) -> None:
    """However far behind: here all others have been served before, while the jobs of one stand still."""
    many(process, [EVE], 1000)
    others = [uuid4() for _ in range(5)]
    for owner_id in (ADA, *others):
        queued(process, owner_id)
    process.write(lambda conn: conn.execute(update(jobs).where(jobs.c.owner_id != EVE).values(turn=jobs.c.turn + 900)))
    running = [(EVE, QUEUE)] * 48
    claimed = process.write(claims.claim_due, Capacity(64, {QUEUE: 64}, running), 30.0, 0.0)
    assert {job.owner_id for job in claimed} == {ADA, *others}
    assert process.write(claims.claim_due, Capacity(64, {QUEUE: 64}, running), 30.0, 0.0) == []


def test_two_processes_claim_what_there_is_once(tmp_path: Path, process: Process) -> None:
    other = Process(tmp_path / "var")
    many(process, [EVE, ADA], 20)
    other.tick()
    claimed = [job for each in (process, other) * 4 for job in each.claim(5)]
    other.kill()
    assert len({job.id for job in claimed}) == len(claimed) == 40
    for number in range(0, 40, 10):
        assert {job.owner_id for job in claimed[number : number + 10]} == {EVE, ADA}


def test_live_jobs_are_counted_up_to_a_bound(process: Process) -> None:
    many(process, [EVE], 30)
    process.claim(10)
    assert process.write(repository.live_count, EVE, 20) == 20
    assert process.write(repository.live_count, EVE, 100) == 30
    assert process.write(repository.live_count, ADA, 100) == 0


def test_a_turn_that_no_job_is_below_is_known_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever accepts a job may know an older head than this process."""
    clock, at = [1000.0], EARLIEST.replace(year=2026)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    turns = Turns()
    for head in (5.0, 7.0, *map(float, range(100, 120))):
        turns.polled({QUEUE: head, "other": None}, at)
        assert turns.head(QUEUE) == head
        assert turns.since <= max(0.0, head - 14)
        clock[0] += 1
    assert turns.since == 104.0
    turns.polled({QUEUE: None, "other": None}, at)
    clock[0] += 16
    assert turns.head("other") is None
    turns.polled({QUEUE: at.timestamp() + 5000, "other": None}, at)
    assert turns.since == at.timestamp(), "a new job of somebody else gets the time for its turn"
    assert turns.head(QUEUE) == at.timestamp() + 5000
    clock[0] += 6
    assert turns.head(QUEUE) is None, "it is old"


def test_turns_are_read_by_threads_as_polls_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's units of work run in a thread."""
    clock, at = [1000.0], EARLIEST.replace(year=2026)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    turns, reads = Turns(), 5_000
    with ThreadPoolExecutor(1) as pool:
        for second in range(100):
            clock[0] += 0.5
            turns.polled({QUEUE: float(second)}, at)
        reading = pool.submit(lambda: [turns.since for _ in range(reads)])
        while not reading.done():
            turns.polled({QUEUE: 99.0}, at)
            clock[0] += 0.01
        assert len(reading.result()) == reads


class Statements:
    """The claims and polls that are executed, with their parameters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[str, Any] = {}
        execute = statements.execute
        monkeypatch.setattr(statements, "execute", lambda *of: (self.note(of[1], tuple(of[2])), execute(*of))[1])
        event.listen(Engine, "before_cursor_execute", self.record)

    def record(self, *execution: Any) -> None:
        self.note(execution[2], execution[3])

    def note(self, sql: str, parameters: Any) -> None:
        self.found[sql] = parameters


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Statements]:
    executed = Statements(monkeypatch)
    yield executed
    event.remove(Engine, "before_cursor_execute", executed.record)


@pytest.mark.postgresql
def test_under_a_long_snapshot_nothing_is_read_that_was_claimed_long_ago(
    tmp_path: Path, process: Process, executed: Statements
) -> None:
    """PostgreSQL keeps all dead entries of the indexes then."""
    with databases.engine(tmp_path / "var").connect() as snapshot:
        snapshot.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        snapshot.execute(select(func.count()).select_from(jobs))
        for _ in range(4):
            many(process, [EVE], 5000)
            process.write(lambda conn: conn.execute(update(jobs).values(state="SUCCEEDED", finished_at=now())))
        queued(process, ADA)
        turn = process.write(lambda conn: conn.scalar(select(func.max(jobs.c.turn)).where(jobs.c.owner_id == ADA)))
        read = {}
        for since in (0.0, turn + 10_000):
            executed.found.clear()
            process.write(claims.poll, [QUEUE], since, EARLIEST, EARLIEST)
            process.write(claims.claim_due, Capacity(8, {QUEUE: 8}, [(EVE, QUEUE)] * 6), 30.0, since)
            read[since] = [
                blocks(process, sql, parameters)
                for sql, parameters in list(executed.found.items())
                if sql.startswith(("SELECT", "WITH"))
            ]
    assert max(read[0.0]) > 200, "the dead entries are there"
    assert max(read[turn + 10_000]) < 30


def blocks(process: Process, sql: str, parameters: Any) -> int:
    plan = process.explain(f"(ANALYZE, BUFFERS) {sql.replace('FOR UPDATE OF jobs SKIP LOCKED', '')}", parameters)
    return sum(int(word.removeprefix("hit=")) for word in plan_words(plan) if word.startswith("hit="))


def plan_words(plan: list[str]) -> list[str]:
    return next(line for line in plan if "Buffers:" in line).split()


def accepted(user: User, number: int, seconds: float) -> list[str]:
    documents = [user.upload()["id"] for _ in range(number)]
    return [user.start(each, params={"seconds": seconds})["id"] for each in documents]


def test_whoever_queues_a_minute_s_work_again_and_again_keeps_nobody_waiting(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        hostile, user = server.register(), server.register()
        document_id = user.upload()["id"]
        quiet = timed(user, document_id)
        accepted(hostile, 80, seconds=60)
        waited = max(timed(user, user.upload()["id"]) for _ in range(3))
        assert waited < 2 * quiet + 0.5
        running = hostile.http.get("/jobs", params={"state": "RUNNING", "limit": 100}).json()["items"]
        assert len(running) == 48, "a quarter of 64 is left to others"


def timed(user: User, document_id: str) -> float:
    """Seconds that a job without any work takes."""
    began = time.monotonic()
    assert user.finished(user.start(document_id)["id"])["state"] == "SUCCEEDED"
    return time.monotonic() - began


def test_behind_hundreds_of_jobs_another_s_is_begun_next(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"JOB_CONCURRENCY": "2"}) as server:
        hostile, user = server.register(), server.register()
        document_id = user.upload()["id"]
        accepted(hostile, 170, seconds=0.2)
        job = user.finished(user.start(document_id)["id"])
        left = hostile.http.get("/jobs", params={"state": "QUEUED", "limit": 100}).json()["items"]
        assert (job["state"], len(left)) == ("SUCCEEDED", 100)
