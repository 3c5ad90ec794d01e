"""Hints to workers elsewhere come through a queue that they watch, and nothing depends on them."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigurationError
from app.settings import Settings
from app.wiring import adapters
from tests.support.brokers import Queue
from tests.support.elsewhere import STATED, Insistent, Worker, described
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

API = "https://documents.example.com"
SQS = pytest.mark.parametrize("queue", ["sqs"], indirect=True)
OFTEN = pytest.mark.parametrize("server", ["1"], indirect=True)  # hints are repeated twice a second


@pytest.fixture
def server(request: pytest.FixtureRequest, queue: Queue, tmp_path: Path) -> Iterator[Server]:
    stated = {name: STATED[name] | {"queue": queue.url} for name in ("count", "cut")}
    settings = {"REMOTE_PROCESSORS": str(described(tmp_path, stated)), "PUBLIC_URL": f"{API}/", **queue.environment}
    with Server(tmp_path / "var", settings | {"LEASE_SECONDS": getattr(request, "param", "30")}) as running:
        yield running


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


@pytest.fixture
def worker(server: Server) -> Worker:
    wanted = {"name": "a worker", "scopes": ["worker"]}
    key: str = server.operator().http.post("/api-keys", json=wanted).json()["key"]
    return Worker(Insistent(server.url), key)


def alarm(server: Server) -> str:
    answer = server.client().get("/readyz")
    assert answer.status_code == 200
    text: str = answer.json()["alarms"].get("hints", "")
    return text


def received(queue: Queue) -> list[dict[str, Any]]:
    """What is in the queue of SQS now, which is empty afterwards."""
    assert queue.sqs is not None
    url, found = queue.sqs.url(queue.place.queue), []
    while messages := queue.sqs.client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for each in messages:
            found.append(json.loads(each["Body"]))
            queue.sqs.client.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
    return found


def hinted(queue: Queue) -> set[str]:
    return {each["job_id"] for each in received(queue)}


def test_a_hint_says_which_job_and_where(user: User, worker: Worker, queue: Queue) -> None:
    job_id = user.start(user.upload()["id"], processor="count")["id"]
    until(lambda: asyncio.run(queue.held()))
    hint = json.loads(asyncio.run(queue.take()))
    assert hint == {"job_id": job_id, "processor": "count", "api": API}
    assert worker.claim_job(hint["job_id"]).status_code == 200
    assert worker.claim_job(hint["job_id"]).status_code == 409, "as a hint that comes twice"
    assert worker.complete().json() == {"state": "SUCCEEDED"}
    assert worker.claim_job(hint["job_id"]).status_code == 409, "as one that comes late"
    assert user.http.delete(f"/documents/{worker.held['document_id']}?permanent=true").status_code == 204
    assert worker.claim_job(hint["job_id"]).status_code == 404


@SQS
@OFTEN
def test_hints_come_until_somebody_claims(server: Server, user: User, worker: Worker, queue: Queue) -> None:
    job_id = user.start(user.upload()["id"], processor="count")["id"]
    for _ in range(3):
        until(lambda: hinted(queue) == {job_id})
    assert worker.claim_job(job_id).status_code == 200
    time.sleep(0.2)
    received(queue)
    time.sleep(1.5)
    assert received(queue) == [], "it is held"
    assert worker.fail(transient=True, retry_after=0).json() == {"state": "QUEUED"}
    until(lambda: hinted(queue) == {job_id})
    operator = server.operator().http
    assert operator.post("/admin/processors/count/pause", json={"reason": "for a while"}).is_success
    time.sleep(0.8)  # every process knows
    received(queue)
    time.sleep(1.5)
    assert received(queue) == [], "it is paused"


@SQS
def test_children_are_hinted_at_once(user: User, worker: Worker, queue: Queue) -> None:
    then = {"processor": "count"}
    job_id = user.start(user.upload()["id"], processor="cut", params={"then": then})["id"]
    assert worker.claim_job(job_id).status_code == 200
    received(queue)
    assert worker.complete({"parts": 1}, worker.send_documents(5)).is_success
    children = user.http.get(f"/documents/{worker.held['document_id']}/children").json()["items"]
    wanted = {each["job_id"] for each in children}
    assert len(wanted) == 5
    found = set[str]()
    until(lambda: found.update(hinted(queue)) or found == wanted)


@SQS
@OFTEN
def test_a_queue_that_is_away_holds_nobody_up(server: Server, user: User, queue: Queue) -> None:
    documents = [user.upload()["id"] for _ in range(10)]
    assert alarm(server) == ""
    queue.relay.freeze()
    began = time.monotonic()
    wanted = {user.start(each, processor="count")["id"] for each in documents}
    assert time.monotonic() - began < 10, "each is given two seconds"
    until(lambda: alarm(server).startswith("queue of count: away: "), timeout=30)
    assert len(server.logs("broker.away")) <= 2, "once for each processor"
    queue.relay.cut()
    queue.relay.mend()
    until(lambda: alarm(server) == "", timeout=30)
    found = set[str]()
    until(lambda: found.update(hinted(queue)) or found >= wanted)


WRONG = {
    "ftp://somewhere": "'count': its queue must be sqs://…, redis://…, rediss://…, amqp://… or amqps://…",
    "sqs://jobs.fifo": "'count': its queue 'queue': must be a queue of up to 80 letters",
    "sqs://jobs?regoin=x": "'count': its queue has an unknown option: 'regoin'",
    "redis://user:s3cret@:6379": "'count': its queue 'url': must be redis://user:password@host:port/0",
}


@pytest.mark.parametrize("url", WRONG)
def test_queues_that_are_none(tmp_path: Path, url: str) -> None:
    file = described(tmp_path, {"count": STATED["count"] | {"queue": url}})
    with pytest.raises(ConfigurationError) as refusal:
        adapters.offered(Settings(_env_file=None, data_dir=tmp_path, remote_processors=file))
    assert str(refusal.value).startswith(f"REMOTE_PROCESSORS: {WRONG[url]}")
    assert "s3cret" not in str(refusal.value)


def test_a_hint_needs_the_address_of_the_service(tmp_path: Path) -> None:
    file = described(tmp_path, {"keywords": {"queue": "sqs://jobs?region=eu-central-1"}})
    settings = Settings(_env_file=None, data_dir=tmp_path, remote_processors=file)
    with pytest.raises(ConfigurationError, match=r"^REMOTE_PROCESSORS: 'keywords': its queue needs PUBLIC_URL"):
        adapters.hint_dispatchers(settings, adapters.offered(settings))


@SQS
async def test_a_queue_must_be_there(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the start ends, as without the broker's own."""
    for name, value in queue.environment.items():
        monkeypatch.setenv(name, value)
    file = described(tmp_path, {"keywords": {"queue": queue.url.replace("sqs://test", "sqs://none")}})
    settings = Settings(_env_file=None, data_dir=tmp_path, remote_processors=file, public_url=API)
    (dispatcher,) = adapters.hint_dispatchers(settings, adapters.offered(settings)).values()

    async def opening() -> None:
        while True:  # one that does not answer in time is away for now
            await dispatcher.open()

    with pytest.raises(ConfigurationError) as refusal:
        await asyncio.wait_for(opening(), 30)
    assert str(refusal.value) == "REMOTE_PROCESSORS: 'keywords': its queue: the queue does not exist"
