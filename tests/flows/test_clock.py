"""The clock is put an hour forward or back while the server runs: nothing is lost, doubled, or stuck for the hour."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert

from app.auth.models import users
from app.auth.principal import SCOPES_OF, Principal, Role
from app.database import now
from app.database.sqlite import SqliteDatabase
from app.documents.intake import Intake
from app.documents.service import DocumentService
from app.errors import StorageUnavailable
from app.files.claim import Claim
from app.files.downloads import Downloads
from app.files.multipart import Form
from app.files.receive import Receiver
from app.files.removal import Removal
from app.files.stored import StoredFiles
from app.jobs.repository import live_count
from app.quotas import Quotas
from app.quotas.reserve import Reserve
from app.settings import Settings
from app.storage.local import LocalStorage
from tests.api.test_uploads import END, part
from tests.support import wrong_clock
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

HOUR = 3600
LEASE = 1.5


def put(tmp_path: Path, process: float = 0, database: float = 0) -> None:
    wrong_clock.put(tmp_path / "clock", process=process, database=database)


def server_with_clock(tmp_path: Path, **settings: str) -> Server:
    put(tmp_path)
    shrunk = {"LEASE_SECONDS": str(LEASE), wrong_clock.VARIABLE: str(tmp_path / "clock")}
    return Server(tmp_path / "var", shrunk | settings, module="tests.support.wrong_clock")


def logged_in_anew(user: User) -> User:
    return user.server.log_in(user.email)


def job(user: User, job_id: str) -> Any:
    return user.http.get(f"/jobs/{job_id}").json()


@pytest.mark.parametrize("shift", [HOUR, -HOUR], ids=["forward", "back"])
def test_jobs_outlive_an_hour_s_jump(tmp_path: Path, shift: int) -> None:
    """One job is at work, one waits for its retry, one for a place."""
    with server_with_clock(tmp_path, JOB_CONCURRENCY="1") as server:
        user = server.register()
        documents = [user.upload()["id"] for _ in range(3)]
        waiting = user.start(documents[0], params={"seconds": 0, "flaky": 1})["id"]
        until(lambda: job(user, waiting)["error"])
        working = user.start(documents[1], params={"seconds": 2})["id"]
        until(lambda: job(user, working)["state"] == "RUNNING")
        queued = user.start(documents[2])["id"]
        put(tmp_path, shift, shift)
        user = logged_in_anew(user)
        jumped_at = time.monotonic()
        finished = [user.finished(job_id) for job_id in (waiting, working, queued)]
        assert time.monotonic() - jumped_at < 15
        assert [each["state"] for each in finished] == ["SUCCEEDED"] * 3
        assert [each["attempt"] for each in finished][::2] == [2, 1]
        Ledger(tmp_path / "var").settle()
        Ledger(tmp_path / "var").check()


@pytest.mark.long
def test_a_lease_left_by_the_dead_does_not_last_the_hour_that_comes_again(tmp_path: Path) -> None:
    with server_with_clock(tmp_path) as server:
        user = server.register()
        job_id = user.start(user.upload()["id"], params={"seconds": 1})["id"]
        until(lambda: job(user, job_id)["state"] == "RUNNING")
        server.kill()
        put(tmp_path, -HOUR, -HOUR)
        server.start()
        finished = logged_in_anew(user).finished(job_id, timeout=15)
        assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 2)
        Ledger(tmp_path / "var").check()


def test_leases_go_by_the_database_s_clock(tmp_path: Path) -> None:
    """A server whose own clock is wrong neither takes the jobs of others nor loses its own."""
    with server_with_clock(tmp_path) as wrong, Server(tmp_path / "var", wrong.settings) as right:
        users = [right.register(), wrong.register()]
        started = [(user, user.start(user.upload()["id"], params={"seconds": 2 * LEASE})["id"]) for user in users]
        for shift in (HOUR, -HOUR):
            put(tmp_path, process=shift)
            time.sleep(LEASE / 2)
        put(tmp_path)
        for user, job_id in started:
            finished = user.finished(job_id)
            assert (finished["state"], finished["attempt"]) == ("SUCCEEDED", 1)
            (begun,) = [each for each in user.events(finished["document_id"]) if each["event"] == "job.started"]
            assert begun["actor"].endswith(f":{user.server.pid}")


class JumpsFirst:
    """A database whose writes come after the clock was put an hour forward."""

    def __init__(self, db: SqliteDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
        self._db = db
        self._monkeypatch = monkeypatch

    async def write(self, work: Any, **options: Any) -> Any:
        self._monkeypatch.setattr(time, "time", lambda: wrong_clock.right() + HOUR)
        return await self._db.write(work, **options)


async def test_a_file_that_a_sweep_may_have_taken_for_an_orphan_gets_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock that the sweep goes by: it jumps between the storing of the file and the commit of its row."""

    async def body() -> AsyncIterator[bytes]:
        yield part(pdf()) + END

    db = SqliteDatabase(tmp_path / "app.db")
    db.migrate()
    owner: dict[str, Any] = {"id": uuid4(), "email": "a@b.c", "password_hash": "", "active": True}
    await db.write(lambda conn: conn.execute(insert(users).values(**owner, created_at=now())))
    storage = LocalStorage(tmp_path / "files")
    removal = Removal(storage, Claim(db, storage))
    reserve = Reserve([], 0)
    receiver, quotas = Receiver(storage, reserve, Settings()), Quotas(live_count, reserve, Settings())
    service = DocumentService(
        JumpsFirst(db, monkeypatch),
        StoredFiles(db, storage),
        receiver,
        Intake(db, removal, grace=Settings().orphan_grace_seconds),
        Downloads(1),
        quotas=quotas,
        settings=Settings(),
        job_for=None,  # type: ignore[arg-type]
    )
    with pytest.raises(StorageUnavailable):
        await service.upload(
            Principal(owner["id"], "user:x", SCOPES_OF[Role.USER], "jwt"), Form(b"frontier", 10_000), body(), None, 0
        )
    await db.close()


def test_tokens_by_a_clock_that_is_off(tmp_path: Path) -> None:
    """By seconds they are good for; by an hour they are not, and are refreshed."""
    with server_with_clock(tmp_path) as server:
        user = server.register()
        for shift in (5, -5):
            put(tmp_path, shift, shift)
            assert user.http.get("/auth/me").status_code == 200
        for shift in (HOUR, 0, -HOUR):
            put(tmp_path, shift, shift)
            refused = user.http.get("/auth/me")
            assert (refused.status_code, refused.json()["code"]) == (401, "invalid-token")
            refreshed = user.http.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]})
            assert refreshed.status_code == 200
            user.tokens = refreshed.json()
            user.http.headers["Authorization"] = f"Bearer {user.tokens['access_token']}"
            assert user.http.get("/auth/me").status_code == 200
