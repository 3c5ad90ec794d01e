"""What a sweep announces, and to whom it leaves the rest."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from app.jobs import repository
from app.jobs.models import Failure
from tests.support.factories import pdf
from tests.support.inprocess import Process
from tests.support.server import PASSWORD

LEASE = 0.001

Start = Callable[[], UUID]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "var", lease_seconds=LEASE)
    yield process
    process.kill()


@pytest.fixture
def start(process: Process) -> Start:
    """Accept a job whose first hint goes astray, and return its id."""
    account = {"email": "ada@example.com", "password": PASSWORD}
    process.http("POST", "/auth/register", json=account)
    token = process.http("POST", "/auth/login", json=account).json()["access_token"]

    def start() -> UUID:
        document = process.http("POST", "/documents", token=token, files={"file": ("a.pdf", pdf(uuid4().hex))}).json()
        answer = process.http("POST", f"/documents/{document['id']}/process", token=token, json={})
        process.hints.clear()
        return UUID(answer.json()["job"]["id"])

    return start


def test_a_process_that_cannot_send_leaves_what_is_due_to_others(process: Process, start: Start) -> None:
    job_id = start()
    process.room = 0
    process.announce_all()
    process.tick()
    assert not process.hints
    process.room = 500
    process.tick()
    assert process.hints[job_id]


def test_a_process_takes_no_more_than_it_has_room_for(process: Process, start: Start) -> None:
    job_ids = [start() for _ in range(3)]
    process.room = 2
    process.tick()
    assert list(process.hints) == job_ids[:2]
    process.hints.clear()
    process.room = 1
    process.tick()
    assert list(process.hints) == job_ids[2:], "which was anybody's"


def given_back(process: Process, job_id: UUID) -> None:
    """By a shutdown, without a try used up."""
    job = process.write(repository.claim, job_id, "w", 30)
    assert job
    assert process.write(partial(repository.requeue, job=job, delay=0, refund=1))


def to_be_retried(process: Process, job_id: UUID) -> None:
    job = process.write(repository.claim, job_id, "w", 30)
    assert job
    failure = Failure(code="x", detail="x")
    assert process.write(partial(repository.requeue, job=job, delay=0, error=failure))


def lost(process: Process, job_id: UUID) -> None:
    assert process.write(repository.claim, job_id, "w", -1)


def passed_on(process: Process, job_id: UUID) -> None:
    process.write(repository.pass_on, job_id)


@pytest.mark.parametrize("happens", [given_back, to_be_retried, lost, passed_on])
def test_with_plenty_of_hints_waiting_those_without_one_get_theirs(
    happens: Callable[[Process, UUID], None], process: Process, start: Start
) -> None:
    start()
    job_id = start()
    happens(process, job_id)
    process.plenty = True
    process.announce_all()
    assert list(process.hints) == [job_id], "not the one whose hint waits with the others"
    process.hints.clear()
    process.tick()
    assert not process.hints, "it has one now"


def test_a_job_accepted_where_there_is_no_room_is_anybodys_at_once(process: Process, start: Start) -> None:
    process.room = 0
    job_id = start()
    process.room, process.plenty = 500, True
    process.tick()
    assert list(process.hints) == [job_id]
