"""An attempt at a job, beside a database that fails in other ways than it should."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from app.jobs import attempt as module
from app.jobs.attempt import Attempt
from app.jobs.kinds import Outcome, Report, Succeeded
from app.jobs.models import Job, JobState
from tests.support.logs import captured

JOB = {"kind": "k", "queue": "q", "key": None, "args": {}, "owner_id": uuid4(), "document_id": None, "fence": 1}
JOB |= {"tries": 1, "max_tries": 5, "progress": 0.0, "error": None, "dead": False, "request_id": None, "locked_by": "w"}
JOB |= dict.fromkeys(("run_at", "locked_at", "created_at", "started_at"), datetime.now(UTC)) | {"finished_at": None}


class Faulty:
    """A database whose first heartbeat raises what no caller expects; and a watch that sees nothing."""

    def __init__(self) -> None:
        self.heartbeats = 0
        self.outcomes: list[Outcome] = []

    async def write(self, unit: Any, *, urgent: bool, alone_with: None = None) -> bool:
        assert urgent
        if "outcome" in unit.keywords:
            self.outcomes.append(unit.keywords["outcome"])
        else:
            self.heartbeats += 1
            if self.heartbeats == 1:
                raise RuntimeError("a bug in the driver")
        return True

    async def wait(self, _job_id: Any, seconds: float) -> bool:
        await asyncio.sleep(seconds)
        return False


class Slow:
    """A kind of job that takes longer than a lease."""

    timeout = 60.0

    async def run(self, _job: Job, _report: Report) -> Outcome:
        await asyncio.sleep(1.2)
        return Succeeded({})


async def test_a_heartbeat_that_fails_unexpectedly_is_made_again() -> None:
    job: Any = Job(id=uuid4(), state=JobState.RUNNING, **JOB)
    db: Any = Faulty()
    kind: Any = Slow()
    with captured(module) as logs:
        await Attempt(db, db, kind, job, lease=0.9, claimed_at=time.monotonic()).run()
    assert db.outcomes == [Succeeded({})]
    assert db.heartbeats > 1
    assert [line["event"] for line in logs] == ["job.lease_not_renewed"]


class Fenced:
    """A database in which another worker holds the job."""

    async def write(self, unit: Any, **_: Any) -> bool:
        return "outcome" not in unit.keywords


class Maker:
    """A kind of job that makes something, and hears what becomes of it."""

    timeout = 60.0

    def __init__(self) -> None:
        self.heard: list[bool] = []

    async def run(self, _job: Job, _report: Report) -> Outcome:
        return Succeeded({}, self.settled)

    async def settled(self, published: bool) -> None:  # noqa: FBT001 - of a callback
        self.heard.append(published)


@pytest.mark.parametrize("held", [True, False])
async def test_its_kind_hears_whether_what_was_made_is_published(*, held: bool) -> None:
    job: Any = Job(id=uuid4(), state=JobState.RUNNING, **JOB)
    db: Any = Faulty() if held else Fenced()
    kind: Any = Maker()
    await Attempt(db, db, kind, job, lease=30, claimed_at=time.monotonic()).run()
    assert kind.heard == [held]
