"""The workers elsewhere that are shipped: each does its work, whatever happens to it and to the service meanwhile."""

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.flows.test_remote import begun, children, hold, lose, told
from tests.support.elsewhere import STATED, described
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.remote_workers import EXAMPLES, KINDS, Kind, elsewhere
from tests.support.server import Server, free_port
from tests.support.user import User
from tests.support.waiting import until

QUICK = {"lease_seconds": 10}
OWN = ("simulated", "text", "keywords", "split", "merge")
OTHER_RESULT = {"result": {"required": ["pages"]}}  # than the examples have
REMOTE = {"count": STATED["count"] | QUICK, "pages": STATED["count"] | OTHER_RESULT} | dict.fromkeys(OWN, QUICK)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("elsewhere")
    with Server(folder / "var", {"REMOTE_PROCESSORS": str(described(folder, REMOTE))}) as running:
        yield running
        ledger = Ledger(running.data_dir)
        ledger.settle()
        ledger.check()


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    wanted = {"name": "a worker", "scopes": ["worker"]}
    made: str = server.operator().http.post("/api-keys", json=wanted).json()["key"]
    return made


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    shipped: Kind = request.param
    return shipped


def test_it_does_the_work_and_stops_what_was_cancelled(server: Server, user: User, key: str, kind: Kind) -> None:
    cancelled = user.start(user.upload()["id"], processor=kind.processor, params=kind.params(60))
    with kind.run(server, key, "cancelled", seconds=60) as worker:
        begun(user, cancelled["id"])
        assert user.http.post(f"/jobs/{cancelled['id']}/cancel").is_success
        until(lambda: "lost" in worker.said, failure=lambda: worker.said)
    with kind.run(server, key, "working"):
        for _ in range(2):
            document = user.upload()
            job = user.finished(user.start(document["id"], processor=kind.processor, params=kind.params(0))["id"])
            assert (job["state"], job["attempt"]) == ("SUCCEEDED", 1)
            assert user.http.get(f"/documents/{document['id']}/result").json()["data"] == kind.result(document)
            assert user.document(document["id"])["status"] == "COMPLETED"


def test_after_one_is_killed_another_does_its_work(server: Server, user: User, key: str, kind: Kind) -> None:
    job = user.start(user.upload()["id"], processor=kind.processor, params=kind.params(2))
    with kind.run(server, key, "first", seconds=2):
        begun(user, job["id"])
    lose(server, job["id"])
    with kind.run(server, key, "second"):
        done = user.finished(job["id"])
    assert (done["state"], done["attempt"]) == ("SUCCEEDED", 2)
    happened = told(server, job["id"])
    assert (happened["job.lease_lost"], happened["job.succeeded"]) == (1, 1)


def test_one_that_is_frozen_until_another_has_done_its_work(server: Server, user: User, key: str, kind: Kind) -> None:
    job = user.start(user.upload()["id"], processor=kind.processor, params=kind.params(2))
    with kind.run(server, key, "frozen", seconds=2) as first:
        begun(user, job["id"])
        first.signal(signal.SIGSTOP)
        lose(server, job["id"])
        with kind.run(server, key, "other"):
            assert user.finished(job["id"])["attempt"] == 2
        first.signal(signal.SIGCONT)
        until(lambda: "lost" in first.said, failure=lambda: first.said)  # as it hears from its heartbeat, or at the end
        assert "SUCCEEDED" not in first.said
    assert told(server, job["id"])["job.succeeded"] == 1


def test_the_service_is_away_when_the_work_is_done(server: Server, user: User, key: str, kind: Kind) -> None:
    job = user.start(user.upload()["id"], processor=kind.processor, params=kind.params(1))
    with kind.run(server, key, "waiting", seconds=1) as worker:
        begun(user, job["id"])
        server.stop()
        hold(server, job["id"], 60)  # however long this machine takes to start it again
        until(lambda: kind.alone in worker.said, failure=lambda: worker.said)
        user = server.restarted(user)
        done = user.finished(job["id"])
    assert (done["state"], done["attempt"]) == ("SUCCEEDED", 1)


@pytest.mark.parametrize("kind", EXAMPLES, indirect=True)
def test_a_result_that_is_refused_fails_the_job(server: Server, user: User, key: str, kind: Kind) -> None:
    job = user.start(user.upload()["id"], processor="pages")
    with replace(kind, processor="pages").run(server, key, "refused"):
        done = user.finished(job["id"])
    assert (done["state"], done["error"]["code"], done["attempt"]) == ("FAILED", "result-invalid", 1)


def test_a_file_that_is_not_what_it_should_be_is_not_worked_on(
    server: Server, user: User, key: str, kind: Kind
) -> None:
    """It was changed on its way, say; another time it is right."""
    content, stored = pdf(f"as it was sent to {kind.name}"), (server.data_dir / "files").rglob("*")
    document = user.upload(content)
    [file] = [each for each in stored if each.is_file() and each.read_bytes() == content]
    file.write_bytes(content.replace(b"sent", b"read"))
    job = user.start(document["id"], processor=kind.processor, params=kind.params(0))
    with kind.run(server, key, "careful") as worker:
        until(lambda: user.job(job["id"])["error"] or "SHA-256" in worker.said, failure=lambda: worker.said)
        file.write_bytes(content)
        assert user.finished(job["id"])["state"] == "SUCCEEDED"
    assert user.http.get(f"/documents/{document['id']}/result").json()["data"] == kind.result(document)


# What `python -m app worker --remote` does beyond the examples


@pytest.fixture
def worker(server: Server, key: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """A worker for all that is run elsewhere and that it has, with JOB_CONCURRENCY=1."""
    log = server.data_dir.parent / f"{request.node.name}.log"
    running = elsewhere(server.url, key, log)
    yield
    running.kill()
    running.wait()


def processed(user: User, document_id: str, processor: str, **params: Any) -> dict[str, Any]:
    """The result's data."""
    job = user.finished(user.start(document_id, processor=processor, params=params)["id"])
    assert job["state"] == "SUCCEEDED", job
    found: dict[str, Any] = user.http.get(f"/documents/{document_id}/result").json()
    return found["data"]


def logged(log: Path) -> list[str]:
    """The events that a worker has logged by names of ours."""
    whole, _, _ = log.read_text().rpartition("\n")  # the last line may be half written
    events = [json.loads(line)["event"] for line in whole.splitlines()]
    return [each for each in events if each.islower() and " " not in each]


@pytest.mark.usefixtures("worker")
def test_it_makes_documents_and_reads_other_results(user: User) -> None:
    document_id = user.upload(pdf("invoices about invoices", pages=2))["id"]
    assert "invoices" in processed(user, document_id, "text")["text"]
    assert processed(user, document_id, "keywords")["keywords"][0]["word"] == "invoices"
    named = [{"pages": [1], "name": "last.pdf", "metadata": {"folder": "out"}}, {"pages": [0]}]
    data = processed(user, document_id, "split", file_map=named, then={"processor": "text"})
    found = children(user, document_id)
    assert [each["id"] for each in data["children"]] == [each["id"] for each in found]
    assert (found[0]["filename"], found[0]["folder"], found[1]["folder"]) == ("last.pdf", "out", None)
    for each in found:
        until(lambda each=each: user.document(each["id"])["status"] == "COMPLETED")
    assert "invoices 2" in user.http.get(f"/documents/{found[0]['id']}/result").json()["data"]["text"]
    merged = processed(user, found[0]["id"], "merge", **{"with": [found[1]["id"]]})
    assert merged["children"][0]["sha256"] == children(user, found[0]["id"])[0]["sha256"]


@pytest.mark.usefixtures("worker")
def test_a_failure_is_what_it_would_be_here(user: User) -> None:
    job = user.finished(user.start(user.upload()["id"], processor="split", params={"ranges": "7"})["id"])
    assert (job["state"], job["error"]["code"], job["attempt"]) == ("FAILED", "page-out-of-range", 1)


def test_told_to_stop_it_gives_its_job_back_and_the_try_is_not_counted(
    server: Server, user: User, key: str, tmp_path: Path
) -> None:
    first = elsewhere(server.url, key, tmp_path / "log", "--processor", "simulated", DRAIN_SECONDS="0.5")
    document_id = user.upload()["id"]
    job = user.start(document_id, processor="simulated", params={"seconds": 60})
    begun(user, job["id"])
    until(lambda: "job.claimed" in logged(tmp_path / "log"))
    first.terminate()
    assert first.wait(15) == 0
    back = user.job(job["id"])
    assert (back["state"], back["attempt"], back["error"]) == ("QUEUED", 0, None)
    assert user.story(document_id) == ["queued", "started", "released"]
    assert logged(tmp_path / "log") == [
        "remote.opened",
        "server.started",
        "job.claimed",
        "server.draining",
        "job.settled",
        "server.stopped",
    ]
    user.http.post(f"/jobs/{job['id']}/cancel")


def test_in_the_image_it_needs_no_secret_of_the_service_and_says_that_it_is_alive(
    server: Server, user: User, key: str, tmp_path: Path
) -> None:
    port = free_port()
    running = elsewhere(
        server.url, key, tmp_path / "log", "--health-port", str(port), ENVIRONMENT="production", DATA_DIR="/nowhere"
    )
    try:
        job = user.start(user.upload()["id"], processor="simulated", params={"seconds": 0})
        assert user.finished(job["id"])["state"] == "SUCCEEDED"
        for path in ("livez", "readyz", "metrics"):
            assert httpx2.get(f"http://127.0.0.1:{port}/{path}", timeout=60).status_code == 200
    finally:
        running.terminate()
        assert running.wait(20) == 0


def test_that_the_service_is_away_is_told_once(server: Server, user: User, key: str, tmp_path: Path) -> None:
    server.stop()
    log = tmp_path / "log"
    log.touch()
    running = elsewhere(server.url, key, log, JOB_CONCURRENCY="4")
    try:
        until(lambda: "remote.away" in logged(log))
        time.sleep(2)  # for more claims in vain
        server.restarted(user)
        until(lambda: "remote.back" in logged(log))
    finally:
        running.kill()
        running.wait()
    told = [each for each in logged(log) if each != "remote.not_offered"]  # of processors that are not run elsewhere
    assert told == ["remote.opened", "server.started", "remote.away", "remote.back"]


@pytest.mark.parametrize(
    ("options", "settings", "line"),
    [
        ([], {"DOCUMENT_API_KEY": "dla_no"}, "stopped: 401 invalid-token"),
        (["--processor", "language"], {}, "stopped: there is nothing to do for language"),
        (["--processor", "nobody"], {}, "configuration: PROCESSORS: there is no processor nobody"),
        ([], {"JOB_CONCURRENCY": "0"}, "configuration: JOB_CONCURRENCY: a worker with 0 would run nothing"),
        (["--data-dir", "var"], {}, "Usage: "),
    ],
    ids=str,
)
def test_what_it_cannot_do_ends_it_with_one_line(
    server: Server, key: str, tmp_path: Path, options: list[str], settings: dict[str, str], line: str
) -> None:
    refused = elsewhere(server.url, key, tmp_path / "log", *options, **settings)
    assert refused.wait(20) in {1, 2}
    assert any(each.startswith(line) for each in (tmp_path / "log").read_text().splitlines())
