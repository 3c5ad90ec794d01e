"""The service and its function on AWS's services: settings from a secret, files in a bucket, work in a function."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.database import now
from app.events import events
from app.jobs.models import jobs
from tests.support import databases
from tests.support.amazon import PROCESSOR, Cloud, cloud as opened, emptied
from tests.support.brokers import MINISTACK
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.pages import texts
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

FILE_MAP = [{"pages": [0, 1], "name": "first.pdf"}, {"pages": [2], "metadata": {"folder": "rest"}}]
HANGS = "import time\nclass Permanent(Exception): ...\ndef work(*_): time.sleep(60)\n"


@pytest.fixture(scope="module")
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    if MINISTACK is None:
        pytest.skip("there is no server of AWS's services in .venv/ministack")
    with opened(request.getfixturevalue("sqs")) as made:
        yield made


@pytest.fixture(scope="module")
def server(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("aws")
    running = Server(folder / "var", cloud.environment)
    cloud.settings(folder, JWT_SECRET="s" * 32, PROCESSORS="text", PUBLIC_URL=running.url, LEASE_SECONDS="6")
    with running:
        wanted = {"name": "function", "scopes": ["worker"]}
        cloud.keep("key", running.operator().http.post("/api-keys", json=wanted).json()["key"])
        cloud.function(running.url)
        yield running


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


def uploaded(user: User, pages: int = 3, **params: Any) -> dict[str, Any]:
    """The document of one call that uploads and has it split."""
    answer = user.http.post(
        "/documents",
        files={"file": ("report.pdf", pdf("a", pages))},
        data={"process": PROCESSOR, "process_params": json.dumps({"file_map": FILE_MAP} | params)},
    )
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def children(user: User, document_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.http.get(f"/documents/{document_id}/children").json()["items"]
    return found


def told(server: Server, job_id: str) -> Counter[str]:
    """What happened to the job, and how often."""
    found = Ledger(server.data_dir).rows(select(events.c.event).where(events.c.job_id == UUID(job_id)))
    return Counter(row.event for row in found)


def test_an_upload_is_split_by_the_function(cloud: Cloud, user: User) -> None:
    """And what it has made is processed further."""
    document = uploaded(user, then={"processor": "text"})
    job = user.finished(document["job"]["id"])
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 1), job
    until(lambda: {each["status"] for each in children(user, document["id"])} == {"COMPLETED"})
    made = children(user, document["id"])
    assert [(each["filename"], each["folder"]) for each in made] == [("first.pdf", None), ("report_2.pdf", "rest")]
    contents = [user.http.get(f"/documents/{each['id']}/content").content for each in made]
    assert [texts(each) for each in contents] == [["a 1", "a 2"], ["a 3"]]
    assert user.http.get(job["result_url"]).json()["data"] == {"page_count": 3, "made": 2}
    emptied(cloud)


def test_a_message_that_comes_twice(cloud: Cloud, server: Server, user: User) -> None:
    document = uploaded(user)
    for _ in range(3):
        cloud.hint(json.dumps({"job_id": document["job"]["id"]}))
    assert user.finished(document["job"]["id"])["attempt"] == 1
    emptied(cloud)
    assert len(children(user, document["id"])) == 2
    assert told(server, document["job"]["id"])["job.succeeded"] == 1


def test_a_function_that_is_killed(cloud: Cloud, server: Server, user: User) -> None:
    """The job comes again, and is done once."""
    cloud.replace(work=HANGS)
    try:
        document = uploaded(user)
        job_id = document["job"]["id"]
        until(lambda: user.job(job_id)["state"] == "WAITING")
        cloud.kill()
    finally:
        cloud.replace()
    with databases.engine(server.data_dir).begin() as conn:  # its lease ends
        conn.execute(update(jobs).where(jobs.c.id == UUID(job_id)).values(locked_until=now(-1)))
    job = user.finished(job_id)
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2)
    assert len(children(user, document["id"])) == 2
    assert told(server, job_id)["job.succeeded"] == 1
    emptied(cloud)


@pytest.mark.parametrize(("pages", "code"), [(2, "page-out-of-range")], ids=["no such page"])
def test_work_that_cannot_be_done(user: User, pages: int, code: str) -> None:
    document = uploaded(user, pages)
    job = user.finished(document["job"]["id"])
    assert (job["state"], job["attempt"], job["error"]["code"]) == ("FAILED", 1, code)
    assert children(user, document["id"]) == []
