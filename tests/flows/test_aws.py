"""The service and its function on AWS's services: settings from a secret, files in a bucket, work in a function."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.database import now
from app.events import events
from app.jobs.models import jobs
from tests.support import databases
from tests.support.amazon import PROCESSOR, Cloud, cloud as opened
from tests.support.brokers import MINISTACK
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.pages import texts
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

FILE_MAP = [{"pages": [0, 1], "name": "first.pdf"}, {"pages": [2], "metadata": {"folder": "rest"}}]
PATIENCE = 60.0  # seconds
HANGS = "import time\nclass Permanent(Exception): ...\ndef work(*_): time.sleep(60)\n"


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    if MINISTACK is None:
        pytest.skip("there is no server of AWS's services in .venv/ministack")
    with opened(request.getfixturevalue("sqs")) as made:
        yield made


@pytest.fixture
def server(cloud: Cloud, tmp_path: Path) -> Iterator[Server]:
    """All its settings but DATA_DIR and PORT are in the secret."""
    running = Server(tmp_path / "var", cloud.environment)
    cloud.settings(tmp_path, JWT_SECRET="s" * 32, PROCESSORS="text", PUBLIC_URL=running.url, LEASE_SECONDS="6")
    with running:
        wanted = {"name": "function", "scopes": ["worker"]}
        cloud.keep("key", running.operator().http.post("/api-keys", json=wanted).json()["key"])
        cloud.function(running.url)
        yield running


def children(user: User, document_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.http.get(f"/documents/{document_id}/children").json()["items"]
    return found


def test_an_upload_is_split_by_a_function(cloud: Cloud, server: Server) -> None:
    """The first function is killed, and the messages come more than once: each document is made once."""
    user = server.register()
    params = json.dumps({"file_map": FILE_MAP, "then": {"processor": "text"}})
    asked = {"process": PROCESSOR, "process_params": params}
    cloud.replace(work=HANGS)
    document = user.http.post("/documents", files={"file": ("report.pdf", pdf("a", 3))}, data=asked).json()
    job_id = document["job"]["id"]
    until(lambda: user.job(job_id)["state"] == "WAITING", PATIENCE)
    cloud.kill()
    cloud.replace()
    with databases.engine(server.data_dir).begin() as conn:  # its lease ends
        conn.execute(update(jobs).where(jobs.c.id == UUID(job_id)).values(locked_until=now(-1)))
    for _ in range(3):
        cloud.hint(json.dumps({"job_id": job_id}))

    job = user.finished(job_id)
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2), job
    assert user.http.get(job["result_url"]).json()["data"] == {"page_count": 3, "made": 2}
    until(lambda: cloud.messages() == 0, PATIENCE)
    until(lambda: {each["status"] for each in children(user, document["id"])} == {"COMPLETED"}, PATIENCE)
    made = children(user, document["id"])
    assert [(each["filename"], each["folder"]) for each in made] == [("first.pdf", None), ("report_2.pdf", "rest")]
    contents = [user.http.get(f"/documents/{each['id']}/content").content for each in made]
    assert [texts(each) for each in contents] == [["a 1", "a 2"], ["a 3"]]
    told = Ledger(server.data_dir).rows(select(events.c.event).where(events.c.job_id == UUID(job_id)))
    assert Counter(row.event for row in told)["job.succeeded"] == 1
