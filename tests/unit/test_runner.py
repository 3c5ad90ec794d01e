"""Turns of a processor that can only run so often at once."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import pytest

from app.processors.simulated import SimulatedProcessor
from tests.support.factories import pdf
from tests.support.inprocess import Process
from tests.support.server import PASSWORD

ACCOUNT = {"email": "ada@example.com", "password": PASSWORD}


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with patch.object(SimulatedProcessor, "at_once", 1):
        process = Process(tmp_path / "var", job_timeout=2)
    yield process
    process.kill()


def test_waiting_for_a_turn_is_not_the_attempts_time(process: Process) -> None:
    process.http("POST", "/auth/register", json=ACCOUNT)
    token = process.http("POST", "/auth/login", json=ACCOUNT).json()["access_token"]
    job_ids = []
    for name in ("one", "two", "three"):
        document = process.http("POST", "/documents", token=token, files={"file": ("a.pdf", pdf(name))}).json()
        wanted = {"params": {"seconds": 0.8}}
        answer = process.http("POST", f"/documents/{document['id']}/process", token=token, json=wanted)
        job_ids.append(UUID(answer.json()["job"]["id"]))
    process.work(*job_ids)
    jobs = [process.http("GET", f"/jobs/{job_id}", token=token).json() for job_id in job_ids]
    assert [job["state"] for job in jobs] == ["SUCCEEDED"] * 3
    began, ended = (sorted(job[moment] for job in jobs) for moment in ("started_at", "finished_at"))
    assert began[2] < ended[0], "all were claimed at once, and took turns"
