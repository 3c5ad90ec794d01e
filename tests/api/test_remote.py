"""Work that is done elsewhere: what a worker claims, what it may do with it, and for how long."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Table, func, select, update

from app.auth.principal import Role
from app.database import now
from app.errors import ConfigurationError, InvalidToken
from app.files.models import File
from app.jobs.models import jobs
from app.processing.models import results
from app.remote import outputs, service
from app.remote.outputs import remote_outputs
from app.remote.tokens import Claim, ClaimTokens
from app.settings import Settings
from app.wiring import adapters
from tests.support import databases
from tests.support.elsewhere import STATED, Worker, described, part
from tests.support.factories import pdf
from tests.support.inprocess import Process
from tests.support.person import Person, person, running
from tests.support.zygote import run

PARTS = {"parts": 2}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("remote")
    with running(folder / "var", remote_processors=described(folder)) as process:
        process.tick()  # it knows what is paused
        yield process


@pytest.fixture(scope="module")
def operator(process: Process) -> Person:
    return person(process, Role.OPERATOR)


@pytest.fixture
def ada(process: Process) -> Person:
    return person(process)


@pytest.fixture
def worker(operator: Person) -> Iterator[Worker]:
    worker = Worker.of(operator)
    yield worker
    for processor in STATED:  # of other tests
        while worker.claim(processor).status_code == 200:
            worker.fail()


def process_of(worker: Worker) -> Process:
    assert isinstance(worker.process, Process)
    return worker.process


def claimed(ada: Person, worker: Worker, processor: str = "count", **params: Any) -> str:
    """The id of a document whose job the worker holds now."""
    document_id = ada.upload()
    job_id = ada.job(document_id, processor, **params)
    assert worker.claim(processor).status_code == 200
    assert worker.held["job_id"] == job_id
    return document_id


def state(ada: Person, worker: Worker) -> str:
    found: str = ada.get(f"/jobs/{worker.held['job_id']}")["state"]
    return found


def lose(worker: Worker) -> None:
    """Have the lease of the job that it holds end, and somebody notice."""
    past = update(jobs).where(jobs.c.id == UUID(worker.held["job_id"])).values(locked_until=now(-1))
    process_of(worker).write(lambda conn: conn.execute(past).rowcount)
    process_of(worker).tick()


def until(worker: Worker, seconds: float) -> None:
    """Have the deadline of the claim be so many seconds from now."""
    tokens = process_of(worker).services.remote.claiming.tokens
    claim = tokens.verify(worker.held["token"])
    worker.held["token"] = tokens.issue(claim._replace(deadline=datetime.now(UTC) + timedelta(seconds=seconds)))


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def stored(process: Process) -> int:
    """How many files there are."""
    return len(list((process.services.settings.data_dir / "files/documents").glob("*/*")))


def count(worker: Worker, table: Table) -> int:
    """The rows of the job that it holds, or held."""
    job_id = UUID(worker.held["job_id"])
    found = select(func.count()).select_from(table).where(table.c.job_id == job_id)
    return process_of(worker).write(lambda conn: conn.scalar(found) or 0)


# What is claimed


def test_a_job_is_claimed_with_all_that_its_worker_needs(ada: Person, worker: Worker) -> None:
    content = pdf("to be counted")
    form = {"file": ("a b.pdf", content, "application/pdf")}
    document = ada.ask("POST", "/documents", files=form, data={"metadata": '{"folder": "in", "tags": ["x"]}'}).json()
    job_id = ada.job(document["id"], "count", of="lines")
    answer = worker.claim()
    found = answer.json()
    assert answer.status_code == 200
    assert (found["job_id"], found["document_id"]) == (job_id, document["id"])
    assert (found["processor"], found["version"], found["params"]) == ("count", "1", {"of": "lines"})
    assert found["owner_id"] == document["owner_id"]
    assert (found["attempt"], found["lease_seconds"], found["filename"]) == (1, 60, "a b.pdf")
    assert found["metadata"] == {"description": None, "folder": "in", "tags": ["x"]}
    (source,) = found["inputs"]
    assert (source["size"], source["sha256"]) == (len(content), document["sha256"])
    assert source["content_type"] == found["content_type"] == "application/pdf"
    fetched = process_of(worker).http("GET", source["url"], headers=list(source["headers"].items()))
    assert (fetched.content, fetched.headers["content-length"]) == (content, str(len(content)))
    deadline = datetime.fromisoformat(found["deadline"]) - datetime.now(UTC)
    assert datetime.fromisoformat(source["expires_at"]) - datetime.now(UTC) - deadline > timedelta(seconds=59)
    assert 590 < deadline.total_seconds() <= 601
    job = ada.get(f"/jobs/{job_id}")
    assert (job["state"], job["attempt"]) == ("WAITING", 1)
    row = process_of(worker).write(
        lambda conn: conn.execute(select(jobs.c.locked_by).where(jobs.c.id == UUID(job_id))).scalar_one()
    )
    assert row == "remote:somewhere-1"
    assert ("job.started", "remote:somewhere-1") in ada.story(document["id"])


def test_what_is_claimed_is_not_claimed_twice(ada: Person, worker: Worker, operator: Person) -> None:
    claimed(ada, worker)
    other = Worker.of(operator, "other")
    assert other.claim().status_code == 204
    assert code(other.claim_job(worker.held["job_id"])) == (409, "already-claimed")
    assert worker.complete().json() == {"state": "SUCCEEDED"}
    assert code(other.claim_job(worker.held["job_id"])) == (409, "already-claimed")


def test_one_job_is_claimed_by_its_id(ada: Person, worker: Worker) -> None:
    first, second = (ada.job(ada.upload(), "count") for _ in range(2))
    assert worker.claim_job(second).json()["job_id"] == second
    assert worker.claim().json()["job_id"] == first
    answer = worker.claim_job(str(uuid4()))
    assert code(answer) == (404, "not-found")
    assert "no such job" in answer.json()["detail"]
    local = ada.job(ada.upload(), "simulated", seconds=0)
    assert code(worker.claim_job(local)) == (404, "not-found")


def test_a_job_that_is_to_be_tried_later_is_not_claimed_yet(ada: Person, worker: Worker) -> None:
    claimed(ada, worker)
    assert worker.fail(transient=True, retry_after=3600).json() == {"state": "QUEUED"}
    assert worker.claim_job(worker.held["job_id"]).status_code == 204
    assert worker.claim().status_code == 204


def test_what_is_paused_is_not_claimed(ada: Person, worker: Worker, operator: Person) -> None:
    job_id = ada.job(ada.upload(), "count")
    assert operator.ask("POST", "/admin/processors/count/pause", json={}).is_success
    process_of(worker).tick()
    assert (worker.claim().status_code, worker.claim_job(job_id).status_code) == (204, 204)
    assert operator.ask("POST", "/admin/processors/count/resume").is_success
    process_of(worker).tick()
    assert worker.claim().json()["job_id"] == job_id


def test_owners_take_turns(process: Process, worker: Worker) -> None:
    ada, bob = person(process), person(process)
    of_ada = [ada.job(ada.upload(), "count") for _ in range(3)]
    of_bob = ada and bob.job(bob.upload(), "count")
    claims = [worker.claim().json()["job_id"] for _ in range(4)]
    assert claims[0] == of_ada[0]
    assert claims.index(of_bob) == 1


def test_a_processor_that_is_not_run_elsewhere(worker: Worker) -> None:
    assert code(worker.claim("simulated")) == (404, "not-found")
    assert code(worker.claim("nobody")) == (404, "not-found")


def test_another_version_than_the_worker_has(ada: Person, worker: Worker) -> None:
    """It burns no attempt."""
    job_id = ada.job(ada.upload(), "count")
    answer = worker.claim(version="2")
    assert code(answer) == (404, "not-found")
    assert "version 1" in answer.json()["detail"]
    assert ada.get(f"/jobs/{job_id}")["attempt"] == 0
    assert worker.claim(version="1").json()["job_id"] == job_id


@pytest.mark.parametrize(
    "said", [{"worker": ""}, {"worker": "a b"}, {"worker": "x" * 81}, {"wait": 31}, {"wait": -1}, {"more": 1}], ids=str
)
def test_claims_that_are_refused(worker: Worker, said: dict[str, Any]) -> None:
    assert code(worker.claim(**said)) == (422, "validation-failed")


def test_a_name_that_no_worker_can_have(worker: Worker) -> None:
    (error,) = worker.claim(worker="a b").json()["errors"]
    assert error == {"detail": "1 to 80 printable characters without spaces", "pointer": "/worker"}


def test_to_claim_takes_the_scope_and_to_hold_takes_the_token(ada: Person, worker: Worker, operator: Person) -> None:
    worker.key = operator.post("/api-keys", name="worker", scopes=["worker"])["key"]
    claimed(ada, worker)
    assert ada.ask("POST", "/remote/count/claim", json={"worker": "me"}).status_code == 403
    for token in ("", worker.key, ada.token, "jt_", "jt_ä", "jt_" + "A" * 120, worker.held["token"][:-2] + "AA"):
        path = f"/remote/jobs/{worker.held['job_id']}/heartbeat"
        assert (
            process_of(worker).http("POST", path, token=token.encode("ascii", "ignore").decode(), json={}).status_code
            == 401
        )
    mine = worker.held
    claimed(ada, worker)
    path = f"/remote/jobs/{mine['job_id']}/heartbeat"
    assert code(process_of(worker).http("POST", path, token=worker.held["token"], json={})) == (
        401,
        "invalid-job-token",
    )
    assert process_of(worker).http("GET", "/documents", token=worker.held["token"]).status_code == 401


def test_a_key_is_no_token(ada: Person, worker: Worker, operator: Person) -> None:
    claimed(ada, worker)
    key = operator.post("/api-keys", name="worker", scopes=["worker"])["key"]
    path = f"/remote/jobs/{worker.held['job_id']}/heartbeat"
    answer = process_of(worker).http("POST", path, headers=[("X-API-Key", key)], json={})
    assert code(answer) == (401, "unauthorized")
    assert answer.json()["detail"] == "Send the token of the claim as Authorization: Bearer."


def test_a_heartbeat_without_a_body(ada: Person, worker: Worker) -> None:
    claimed(ada, worker)
    answer = worker.ask("POST", "heartbeat")
    assert answer.json()["errors"] == [{"detail": "A JSON body is required, {} at least", "pointer": ""}]
    assert worker.ask("POST", "heartbeat", json={}).status_code == 200


def test_a_heartbeat_after_the_job_was_completed(ada: Person, worker: Worker) -> None:
    claimed(ada, worker)
    assert worker.complete().json() == {"state": "SUCCEEDED"}
    answer = worker.beat()
    assert code(answer) == (409, "lease-lost")
    assert "or you have settled it" in answer.json()["detail"]


def test_nothing_of_it_is_run_here(ada: Person, worker: Worker) -> None:
    job_id = ada.job(ada.upload(), "keywords")
    process_of(worker).pull()
    assert ada.get(f"/jobs/{job_id}")["state"] == "QUEUED"
    assert worker.claim("keywords").json()["params"] == ada.get(f"/jobs/{job_id}")["params"]


# What comes of it


def test_a_result_is_published(ada: Person, worker: Worker) -> None:
    document_id = claimed(ada, worker, of="lines")
    assert worker.beat(0.5).json()["cancelled"] is False
    assert ada.get(f"/jobs/{worker.held['job_id']}")["progress"] == 0.5
    assert worker.beat(0.25).status_code == 200
    assert ada.get(f"/jobs/{worker.held['job_id']}")["progress"] == 0.5
    assert worker.complete({"count": 7}).json() == {"state": "SUCCEEDED"}
    result = ada.get(f"/documents/{document_id}/result")
    assert (result["data"], result["processor_version"]) == ({"count": 7}, "1")
    assert ada.get(f"/documents/{document_id}")["status"] == "COMPLETED"
    assert ada.story(document_id)[-2:] == [
        ("job.succeeded", "remote:somewhere-1"),
        ("document.status_changed", "remote:somewhere-1"),
    ]


def test_to_complete_again_changes_nothing(ada: Person, worker: Worker) -> None:
    document_id = claimed(ada, worker)
    answers = [worker.complete({"count": number}).json() for number in range(3)]
    assert answers == [{"state": "SUCCEEDED"}] * 3
    assert ada.get(f"/documents/{document_id}/result")["data"] == {"count": 0}
    assert [name for name, _ in ada.story(document_id)].count("job.succeeded") == 1
    assert worker.fail().json() == {"state": "SUCCEEDED"}


@pytest.mark.parametrize(
    ("data", "refusal", "reason", "pointer"),
    [
        ({}, "result-invalid", "description, at `count`: required.", "/data/count"),
        ({"count": "17"}, "result-invalid", "description, at `count`: type.", "/data/count"),
        ({"count": -17}, "result-invalid", "description, at `count`: minimum.", "/data/count"),
        ({"count": 1, "more 17": 1}, "result-invalid", "description: additionalProperties.", "/data/more 17"),
        ([], "validation-failed", "Input should be a valid dictionary", "/data"),
    ],
    ids=str,
)
def test_a_result_that_does_not_fit(
    ada: Person, worker: Worker, data: Any, refusal: str, reason: str, pointer: str
) -> None:
    """The answer says where and why, and repeats no value: the owner of the document sees it, too."""
    claimed(ada, worker)
    answer = worker.complete(data)
    assert code(answer) == (422, refusal)
    (error,) = answer.json()["errors"]
    assert reason in error["detail"]
    assert error["pointer"] == pointer
    assert "17" not in answer.json()["detail"]
    assert state(ada, worker) == "WAITING"
    assert worker.complete({"count": 2}).json() == {"state": "SUCCEEDED"}


def test_a_result_that_is_too_large(tmp_path: Path) -> None:
    with running(tmp_path / "var", remote_processors=described(tmp_path), max_result_bytes=100) as process:
        process.tick()
        ada, worker = person(process), Worker.of(person(process, Role.OPERATOR))
        claimed(ada, worker, "cut")
        assert code(worker.complete({"parts": "x" * 200})) == (413, "output-too-large")
        assert state(ada, worker) == "WAITING"
        assert worker.complete({"parts": 0}).json() == {"state": "SUCCEEDED"}


def test_a_large_result_is_a_file(ada: Person, worker: Worker) -> None:
    document_id = claimed(ada, worker, "cut")
    data = {"parts": "x" * 200_000}
    assert worker.complete(data).json() == {"state": "SUCCEEDED"}
    assert ada.get(f"/documents/{document_id}/result")["data"] == data
    ada.job(document_id, "count")
    worker.claim()
    assert worker.ask("GET", "results/cut").json() == data
    for missing, said in (("results/count", "no result of that processor"), ("inputs/1", "fewer inputs")):
        answer = worker.ask("GET", missing)
        assert code(answer) == (404, "not-found")
        assert said in answer.json()["detail"]


def test_a_failure_for_good(ada: Person, worker: Worker) -> None:
    document_id = claimed(ada, worker)
    assert worker.fail(code="too-odd", detail="It is odd.").json() == {"state": "FAILED"}
    assert worker.fail().json() == {"state": "FAILED"}
    job = ada.get(f"/jobs/{worker.held['job_id']}")
    assert (job["error"], job["dead"]) == ({"code": "too-odd", "detail": "It is odd."}, False)
    assert ada.get(f"/documents/{document_id}")["status"] == "FAILED"


def test_a_failure_that_may_pass(ada: Person, worker: Worker) -> None:
    claimed(ada, worker)
    assert worker.fail(transient=True, retry_after=0).json() == {"state": "QUEUED"}
    process_of(worker).tick()
    assert worker.claim().json()["attempt"] == 2
    assert worker.complete().json() == {"state": "SUCCEEDED"}


def test_a_job_that_is_given_back(ada: Person, worker: Worker) -> None:
    """Its attempt does not count, and somebody else may begin at once."""
    document_id = claimed(ada, worker)
    for _ in range(2):
        assert worker.ask("POST", "release").json() == {"state": "QUEUED"}
    job = ada.get(f"/jobs/{worker.held['job_id']}")
    assert (job["state"], job["attempt"], job["error"]) == ("QUEUED", 0, None)
    assert ("job.released", "remote:somewhere-1") in ada.story(document_id)
    first = dict(worker.held)
    process_of(worker).tick()
    assert worker.claim().json()["attempt"] == 1
    second, worker.held = worker.held, first
    assert worker.ask("POST", "release").json() == {"state": "WAITING"}  # it was given back before, and not again
    worker.held = second
    assert worker.complete().json() == {"state": "SUCCEEDED"}
    worker.held = first
    assert code(worker.ask("POST", "release")) == (409, "lease-lost")


# Files


def test_documents_and_files_are_published_with_the_result(ada: Person, worker: Worker) -> None:
    document_id = claimed(ada, worker, "cut")
    outputs = worker.send_documents(2)
    third = worker.send(2, document="true").json()
    picture = worker.send(5, b"a picture", "1.png")
    assert picture.json()["content_type"] == "application/octet-stream"
    outputs[1] |= {"filename": "the second", "metadata": {"folder": "out"}}
    assert worker.complete(PARTS, [*outputs, {"number": 2}, {"number": 5}]).json() == {"state": "SUCCEEDED"}
    found = ada.get(f"/documents/{document_id}/children")["items"]
    named = [("0.pdf", None), ("the second.pdf", "out"), ("2.pdf", None)]
    assert [(each["filename"], each["folder"]) for each in found] == named
    assert found[2]["id"] == third["id"]
    assert ada.ask("GET", f"/documents/{found[1]['id']}/content").content == part(1)
    listed = ada.get(f"/documents/{document_id}/results/cut/files")["items"]
    assert [(each["name"], each["size"]) for each in listed] == [("1.png", 9)]
    assert count(worker, remote_outputs) == 0


def test_a_number_that_is_sent_again_replaces_the_file(ada: Person, worker: Worker) -> None:
    document_id = claimed(ada, worker, "cut")
    sent = [worker.send(0, content, "a.png") for content in (b"first", b"second")]
    assert [each.json()["size"] for each in sent] == [5, 6]
    assert worker.complete(PARTS, [{"number": 0}]).json() == {"state": "SUCCEEDED"}
    here = f"/documents/{document_id}/results/cut/files"
    assert ada.ask("GET", f"{here}/a.png").content == b"second"


def test_what_was_sent_and_is_not_named_is_thrown_away(ada: Person, worker: Worker) -> None:
    document_id = claimed(ada, worker, "cut")
    worker.send_documents(3)
    assert worker.complete(PARTS, [{"number": 2}]).json() == {"state": "SUCCEEDED"}
    assert [each["filename"] for each in ada.get(f"/documents/{document_id}/children")["items"]] == ["2.pdf"]
    assert ada.get("/auth/me")["usage"]["documents"] == 2


@pytest.mark.parametrize(
    ("sent", "refusal"),
    [
        ({"content": b"no document", "document": "true"}, "output-not-accepted"),
        ({"name": "\u200b", "document": "true"}, "invalid-filename"),
        ({"name": "../a"}, "validation-failed"),
        ({"name": ".a"}, "validation-failed"),
    ],
    ids=str,
)
def test_files_that_are_refused(ada: Person, worker: Worker, sent: dict[str, Any], refusal: str) -> None:
    claimed(ada, worker, "cut")
    answer = worker.send(0, **sent)
    problem = answer.json()
    assert (answer.status_code, problem.get("error", problem)["code"]) == (422, refusal)
    assert worker.complete(PARTS).json() == {"state": "SUCCEEDED"}


def test_names_of_files_are_taken_once(ada: Person, worker: Worker) -> None:
    claimed(ada, worker, "cut")
    assert worker.send(0, b"a", "a.png").status_code == 200
    assert code(worker.send(1, b"b", "a.png")) == (422, "validation-failed")
    assert worker.send(0, b"c", "a.png").status_code == 200


def test_a_processor_that_makes_no_documents(ada: Person, worker: Worker) -> None:
    claimed(ada, worker)
    assert code(worker.send(0, document="true")) == (422, "validation-failed")
    assert worker.send(0, b"a file", "a.txt").status_code == 200


@pytest.mark.parametrize(
    "outputs",
    [
        [{"number": 1}],
        [{"number": 0}, {"number": 0}],
        [{"number": 0, "filename": "\u200b"}],
        [{"number": 0, "metadata": {"tags": 1}}],
        [{"number": 2, "filename": "a"}],
    ],
    ids=str,
)
def test_outputs_that_are_refused(ada: Person, worker: Worker, outputs: Any) -> None:
    claimed(ada, worker, "cut")
    worker.send_documents(1)
    worker.send(2, b"a file", "a.txt")
    assert worker.complete(PARTS, outputs).status_code == 422
    assert state(ada, worker) == "WAITING"


def test_quotas_hold_elsewhere(tmp_path: Path) -> None:
    with running(tmp_path / "var", remote_processors=described(tmp_path), quota_documents=3) as process:
        process.tick()
        ada, worker = person(process), Worker.of(person(process, Role.OPERATOR))
        document_id = claimed(ada, worker, "cut")
        outputs = worker.send_documents(2)
        assert code(worker.send(2, document="true")) == (403, "document-quota-exceeded")
        ada.upload()
        assert worker.complete(PARTS, outputs).json() == {"state": "FAILED"}
        job = ada.get(f"/jobs/{worker.held['job_id']}")
        assert job["error"]["code"] == "document-quota-exceeded"
        assert ada.get(f"/documents/{document_id}/children")["items"] == []


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with running(tmp_path / "var", remote_processors=described(tmp_path), max_upload_bytes=2000) as process:
        process.tick()
        ada, worker = person(process), Worker.of(person(process, Role.OPERATOR))
        claimed(ada, worker, "cut")
        assert code(worker.send(0, bytes(2001), "a")) == (413, "output-too-large")
        assert worker.send(0, bytes(2000), "a").status_code == 200


def test_what_follows_is_accepted_with_the_documents(ada: Person, worker: Worker) -> None:
    document_id = ada.upload()
    ada.job(document_id, "cut", then={"processor": "count"}, delete_original=True)
    assert worker.claim("cut").json()["params"]["then"]["processor"] == "count"
    assert worker.complete(PARTS, worker.send_documents(2)).json() == {"state": "SUCCEEDED"}
    assert ada.ask("GET", f"/documents/{document_id}").status_code == 404
    for _ in range(2):
        assert worker.claim("count").status_code == 200
        assert worker.complete().json() == {"state": "SUCCEEDED"}
    assert {each["status"] for each in ada.get("/documents")["items"]} == {"COMPLETED"}


# The fence


def test_a_worker_that_is_silent_loses_its_job(ada: Person, worker: Worker, operator: Person) -> None:
    """Whatever it does afterwards changes nothing."""
    document_id = claimed(ada, worker, "cut")
    outputs = worker.send_documents(2)
    lose(worker)
    other = Worker.of(operator, "other")
    assert other.claim("cut").json()["attempt"] == 2
    for answer in (
        worker.beat(0.9),
        worker.ask("GET", "inputs/0"),
        worker.ask("GET", "results/count"),
        worker.send(7, b"late", "late.txt"),
        worker.complete(PARTS, outputs),
        worker.fail(),
    ):
        assert code(answer) == (409, "lease-lost")
    job = ada.get(f"/jobs/{worker.held['job_id']}")
    assert (job["state"], job["progress"]) == ("WAITING", 0)
    assert "job.fenced" in [name for name, _ in ada.story(document_id)]
    assert code(other.complete(PARTS, outputs)) == (422, "validation-failed")  # they were the other's
    assert ada.get(f"/documents/{document_id}/children")["items"] == []
    assert other.complete(PARTS, other.send_documents(1)).json() == {"state": "SUCCEEDED"}
    assert len(ada.get(f"/documents/{document_id}/children")["items"]) == 1
    assert code(worker.complete(PARTS, outputs)) == (409, "lease-lost")


def test_a_worker_that_was_frozen_until_its_lease_was_lost(ada: Person, worker: Worker) -> None:
    claimed(ada, worker, "cut")
    before = stored(process_of(worker))
    outputs = worker.send_documents(2)
    lose(worker)
    assert code(worker.complete(PARTS, outputs)) == (409, "lease-lost")
    assert state(ada, worker) == "QUEUED"
    assert (count(worker, results), count(worker, remote_outputs), stored(process_of(worker))) == (0, 0, before)


def test_what_a_worker_has_sent_goes_when_another_takes_over(ada: Person, worker: Worker, operator: Person) -> None:
    claimed(ada, worker, "cut")
    before = stored(process_of(worker))
    worker.send_documents(2)
    lose(worker)
    assert Worker.of(operator, "other").claim("cut").status_code == 200
    assert (count(worker, remote_outputs), stored(process_of(worker))) == (0, before)


def test_files_are_of_the_claim_that_they_were_sent_under(process: Process) -> None:
    first = Claim(uuid4(), 1, datetime.now(UTC), 60, "w", uuid4(), None)
    second, file = first._replace(fence=2), File(uuid4(), "key", "text/plain", 1, "0" * 64)

    def send(conn: Connection) -> list[list[int]]:
        for number, claim in enumerate((first, second)):
            outputs.stage(conn, claim, outputs.Staged(number, file, "a.txt", is_document=False), 60)
        found = [[each.number for each in outputs.find(conn, claim)] for claim in (first, second)]
        outputs.forget(conn, first.job_id, first.fence)
        return [*found, [each.number for each in outputs.find(conn, second)]]

    assert process.write(send) == [[0], [1], [1]]


def test_a_file_that_arrives_too_late_is_not_kept(ada: Person, worker: Worker) -> None:
    """The lease is lost, and another has the job, while it is on its way."""
    claimed(ada, worker, "cut")
    before, db = stored(process_of(worker)), process_of(worker).services.db
    taken = update(jobs).where(jobs.c.id == UUID(worker.held["job_id"])).values(fence=jobs.c.fence + 1)

    async def late(chunks: AsyncIterator[bytes], _: int) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            yield chunk
        await db.write(lambda conn: conn.execute(taken).rowcount)

    with patch.object(service, "_whole", late):
        assert code(worker.send(0, b"late", "a.txt")) == (409, "lease-lost")
    assert (count(worker, remote_outputs), stored(process_of(worker))) == (0, before)


def test_an_older_token_of_the_same_worker(ada: Person, worker: Worker) -> None:
    claimed(ada, worker)
    first = dict(worker.held)
    lose(worker)
    worker.claim()
    second, worker.held = worker.held, first
    assert code(worker.complete({"count": 1})) == (409, "lease-lost")
    worker.held = second
    assert worker.complete({"count": 2}).json() == {"state": "SUCCEEDED"}
    worker.held = first
    assert code(worker.complete({"count": 1})) == (409, "lease-lost")


def test_a_cancelled_job(ada: Person, worker: Worker) -> None:
    document_id = claimed(ada, worker)
    assert ada.ask("POST", f"/jobs/{worker.held['job_id']}/cancel").is_success
    told = worker.beat().json()
    assert (told["cancelled"], told["lease_seconds"], told["inputs"]) == (True, 0, [])
    for answer in (worker.complete(), worker.send(0, b"a", "a"), worker.ask("GET", "inputs/0")):
        assert code(answer) == (409, "lease-lost")
    assert ada.get(f"/documents/{document_id}")["status"] == "UPLOADED"


def test_the_clock_of_the_host_does_not_matter(ada: Person, worker: Worker) -> None:
    """Nor does it when it is wrong by an hour, in either direction."""
    right = time.time
    for wrong in (3600, -3600):
        claimed(ada, worker, "cut")
        with patch.object(time, "time", lambda by=wrong: right() + by):
            assert (
                process_of(worker).http("GET", worker.held["inputs"][0]["url"], token=worker.held["token"]).is_success
            )
            assert worker.ask("POST", "heartbeat", json={"progress": 0.1}).json()["lease_seconds"] == 120
            assert worker.send(0, b"a", "a").status_code == 200
            assert worker.complete(PARTS, [{"number": 0}]).json() == {"state": "SUCCEEDED"}


def test_at_the_deadline_a_job_is_lost_whatever_its_worker_says(ada: Person, worker: Worker) -> None:
    claimed(ada, worker)
    until(worker, 20)
    assert worker.beat().json()["lease_seconds"] == pytest.approx(20, abs=1)
    until(worker, 0)
    assert code(worker.beat()) == (409, "lease-lost")
    assert worker.complete().json() == {"state": "SUCCEEDED"}  # nobody has noticed before


def test_a_token_expires_after_the_deadline(ada: Person, worker: Worker) -> None:
    """By the clock of the database; the job is still held under its fence."""
    claimed(ada, worker)
    until(worker, -59)
    assert worker.ask("GET", "inputs/0").is_success
    until(worker, -61)
    for answer in (worker.ask("GET", "inputs/0"), worker.complete(), worker.fail(), worker.send(0, b"a", "a")):
        assert code(answer) == (409, "lease-lost")
    assert state(ada, worker) == "WAITING"


def test_a_token_is_of_its_secret_and_says_what_was_claimed() -> None:
    claim = Claim(uuid4(), 3, datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC), 12.5, "worker-1", uuid4(), uuid4())
    old, new = "o" * 32, "n" * 32
    token = ClaimTokens([old]).issue(claim)
    assert ClaimTokens([old]).verify(token) == ClaimTokens([new, old]).verify(token) == claim
    with pytest.raises(InvalidToken):
        ClaimTokens([new]).verify(token)


# What is offered


def test_they_are_offered_as_any(process: Process, ada: Person) -> None:
    offered = {each["name"]: each for each in ada.get("/processors")["items"]}
    assert offered["count"]["params"]["properties"]["of"]["enum"] == ["bytes", "lines"]
    assert offered["count"]["result"]["required"] == ["count"]
    assert offered["cut"]["content_types"] == ["application/pdf"]
    assert {"then", "delete_original", "parts"} <= offered["cut"]["params"]["properties"].keys()
    described = process.http("GET", "/openapi.json").json()["components"]["schemas"]
    assert described["CountParams"]["properties"]["of"]["enum"] == ["bytes", "lines"]
    assert described["CutParams"]["properties"]["parts"]["$ref"] in {
        f"#/components/schemas/{name}" for name in described
    }
    assert "count" in described["ProcessorName"]["enum"]


@pytest.mark.parametrize(
    ("processor", "params", "pointer"),
    [
        ("count", {"of": "letters"}, "/params/of"),
        ("count", {"more": 1}, "/params/more"),
        ("cut", {"parts": 0}, "/params/parts"),
        ("cut", {"then": {"processor": "nobody"}}, "/params/then/processor"),
    ],
    ids=str,
)
def test_params_are_validated(ada: Person, processor: str, params: Any, pointer: str) -> None:
    said = {"processor": processor, "params": params}
    answer = ada.ask("POST", f"/documents/{ada.upload()}/process", json=said)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert "letters" not in answer.text


def test_none_is_a_stage_of_a_pipeline(ada: Person, tmp_path: Path) -> None:
    answer = ada.ask("POST", f"/documents/{ada.upload()}/process", json={"pipeline": ["text", "keywords"]})
    assert (answer.status_code, answer.json()["errors"]) == (
        422,
        [{"detail": "Keywords runs elsewhere, which no stage can.", "pointer": "/pipeline/1"}],
    )
    with pytest.raises(ConfigurationError, match="PIPELINES: quick: keywords runs elsewhere, which no stage can"):
        offer(tmp_path, {"keywords": {}}, pipelines="quick=text,keywords")


def offer(folder: Path, stated: Any, **settings: Any) -> Any:
    found = Settings(_env_file=None, remote_processors=described(folder, stated), **settings)
    processors = adapters.offered(found)
    adapters.pipelines(found, processors)
    return processors


OWN = {"version": "1", "description": "d", "params": {}}


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ("{", "is no JSON"),
        ("[]", "valid dictionary"),
        ({"a": {"versions": "1"}}, "'a': 'versions': Extra"),
        ({"a": {}}, "'a': PROCESSORS has no such processor; one of your own needs params"),
        ({"convert": {}}, "'convert': the service cannot offer its processor convert: it needs CONVERSION_URL"),
        ({"a": {"params": {}}}, "'a': it needs a version and a description"),
        ({"A": OWN}, "'A': its name is not"),
        ({"text": OWN}, "'text': the name is taken"),
        ({"text": {"version": "9"}}, "whose version is its own"),
        ({"pipeline": OWN}, "the name is taken"),
        ({"a": {**OWN, "version": "a b"}}, "its version is not"),
        ({"a": {**OWN, "content_types": ["text/html"]}}, "no documents of its content type"),
        ({"a": {**OWN, "lease_seconds": 9}}, "greater than or equal to 10"),
        ({"a": {**OWN, "lease_seconds": 3601}}, "less than or equal to 3600"),
        ({"a": {**OWN, "params": {"type": 1}}}, "its params is no JSON Schema, at /type"),
        ({"a": {**OWN, "params": {"type": "array"}}}, "its params does not describe an object"),
        ({"a": {**OWN, "params": {"required": ["b"]}}}, "a param has no default"),
        ({"a": {**OWN, "result": {"$ref": "https://example.com"}}}, "its result has a \\$ref that does not lead"),
        ({"a": {**OWN, "makes_documents": True, "params": {"properties": {"then": {}}}}}, "describes `then`"),
    ],
    ids=str,
)
def test_what_the_file_may_say(tmp_path: Path, stated: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"REMOTE_PROCESSORS.*{reason}") as refused:
        offer(tmp_path, stated)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, remote_processors=tmp_path / "none")
    with pytest.raises(ConfigurationError, match=r"REMOTE_PROCESSORS: .*No such file"):
        adapters.offered(settings)


def test_the_command_line_lists_them(tmp_path: Path) -> None:
    environment = {"DATA_DIR": str(tmp_path / "var"), **databases.settings(tmp_path / "var")}
    done = run(
        "processors", "list", REMOTE_PROCESSORS=str(described(tmp_path)), PROCESSORS="text,keywords", **environment
    )
    assert done.stdout.splitlines()[-4:] == [
        "text 3 (built in)",
        "keywords 1 (run elsewhere)",
        "count 1 (run elsewhere)",
        "cut 3 (run elsewhere)",
    ]
