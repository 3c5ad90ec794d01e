"""What a sweep announces, and to whom it leaves the rest."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.factories import pdf
from tests.inprocess import Process
from tests.server import PASSWORD


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "var", lease_seconds=0.001)
    yield process
    process.kill()


def test_a_process_that_cannot_send_leaves_what_is_due_to_others(process: Process) -> None:
    account = {"email": "ada@example.com", "password": PASSWORD}
    process.http("POST", "/auth/register", json=account)
    token = process.http("POST", "/auth/login", json=account).json()["access_token"]
    document = process.http("POST", "/documents", token=token, files={"file": ("a.pdf", pdf("a"))}).json()
    answer = process.http("POST", f"/documents/{document['id']}/process", token=token, json={})
    job_id = UUID(answer.json()["job"]["id"])
    process.hints.clear()
    process.ready = False
    process.announce_all()
    process.tick()
    assert not process.hints
    process.ready = True
    process.tick()
    assert process.hints[job_id]
