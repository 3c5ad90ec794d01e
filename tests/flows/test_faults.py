"""The process is killed at each fault point once; after a restart nothing is lost, doubled or half done."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from sqlalchemy import select

from app.jobs.models import jobs
from app.telemetry.faults import POINTS
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.invariants import Ledger
from tests.support.server import Server
from tests.support.torture import LONG
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import Forked, run

SETTINGS = {"LEASE_SECONDS": "1", "ORPHAN_GRACE_SECONDS": "1.5", "JOB_MAX_TRIES": "2", "DRAIN_SECONDS": "0.2"}
CONTENT = pdf("killed on purpose")
WORK = {"seconds": 0.3}
FAILURE = {"seconds": 0, "fail": "transient"}


class Life:
    """All that a user does, each step with a key, so that it can be taken up again after a crash."""

    def __init__(self, server: Server) -> None:
        self.user = server.register()
        self.doomed = self.user.upload()["id"]
        self.answers: dict[str, httpx2.Response] = {}

    def live(self, server: Server) -> None:
        """Take every step that has no answer yet; raises TransportError when the server dies under it."""
        user = self.user = self.user.at(server)
        uploaded = self._step("upload", lambda: user.post_file(CONTENT, key="upload"))
        document = uploaded.json()["id"]
        job = self._step("process", lambda: user.process(document, key="process", params=WORK)).json()["job"]["id"]
        self._step("finished", lambda: user.http.get(f"/jobs/{job}", params={"wait": 5}))
        self._step("announce", lambda: announced(user))
        self._step("put", lambda: put(server, self.answers["announce"].json()))
        direct = f"/documents/{self.answers['announce'].json()['document_id']}"
        self._step("complete", lambda: user.http.post(f"{direct}/complete-upload"))
        self._step("replace", lambda: replace(user, direct))
        self._step("restore", lambda: user.http.post(f"{direct}/files/1/restore"))
        failing = self._step("upload 2", lambda: user.post_file(pdf("failing"), key="upload 2")).json()["id"]
        self._step("process 2", lambda: user.process(failing, key="process 2", params=FAILURE))
        self._step(
            "refresh", lambda: user.http.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]})
        )
        self._step("delete", lambda: user.http.delete(f"/documents/{self.doomed}?permanent=true"))

    def _step(self, name: str, call: Callable[[], httpx2.Response]) -> httpx2.Response:
        if name not in self.answers:
            # What was under way when the server died holds its key for a lease.
            answer = until(lambda: (answer := call()).status_code != 409 and answer)
            # What was carried out before the crash cannot be done again.
            assert answer.is_success or (name, answer.status_code) in {("delete", 404), ("put", 412)}, answer.text
            self.answers[name] = answer
        return self.answers[name]


def announced(user: User) -> httpx2.Response:
    wanted = {"filename": "direct.pdf", "content_type": PDF_TYPE, "size": len(CONTENT)}
    return user.http.post("/documents/initiate-upload", json=wanted, headers={"Idempotency-Key": "announce"})


def put(server: Server, upload: dict[str, Any]) -> httpx2.Response:
    """The URL is of the server that was; it is good for every one on the same data."""
    url = urlsplit(upload["upload_url"])
    return httpx2.put(f"{server.url}{url.path}?{url.query}", content=CONTENT, headers=upload["headers"], timeout=60)


def replace(user: User, document: str) -> httpx2.Response:
    headers = {"If-Match": "*", "Idempotency-Key": "replace", "Content-Type": PDF_TYPE}
    return user.http.put(f"{document}/content", content=pdf("another"), headers=headers)


def serving(data_dir: Path, **settings: str) -> Server:
    return Server(data_dir, SETTINGS | settings, module="tests.support.impatient")


def armed(data_dir: Path, fault: str) -> Server:
    return serving(data_dir, FAULT=fault)


def outlive(server: Server, life: Life, *, stop: bool) -> None:
    """Live until the server dies of the fault; where that is in its shutdown, begin one."""
    try:
        life.live(server)
        if stop:
            life.user.begin(seconds=2)
            server.signal(signal.SIGTERM)
        assert server.process is not None
        server.process.wait(20)
    except httpx2.TransportError:
        pass
    assert server.process is not None
    assert server.process.wait(20) == -signal.SIGKILL


RUNTIME = [
    # The first upload is the one to be deleted.
    f"{point}:{2 if point.startswith('upload') else 1}"
    for point in POINTS
    # No result of this life is large, nothing is processed in a batch or in stages, nor makes files, and nobody is told
    # of it: others test that.
    if not point.startswith(
        ("migration", "transfer", "backup", "restore", "batch", "bulk", "deliver", "inbox", "stage", "output")
    )
    and point not in {"rescue.midway", "result.after_store"}
] + ["finish.before_commit:2", "finish.after_commit:2"]  # a success comes first, then a retry


@pytest.mark.parametrize("_repetition", range(5 if LONG else 1))
@pytest.mark.parametrize("fault", RUNTIME)
def test_killed_at(
    fault: str, _repetition: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    ledger = Ledger(tmp_path / "var")
    stop = fault.startswith("shutdown")
    with armed(tmp_path / "var", fault) as server:
        life = Life(server)
        outlive(server, life, stop=stop)
    restarted_at = time.monotonic()
    with serving(tmp_path / "var") as server:
        life.live(server)
        ledger.settle()
        record_property("fault", f"{fault}: all settled {time.monotonic() - restarted_at:.1f} s after the restart")
        ledger.check()
        assert_promises_kept(life, server, jobs=3 if stop else 2)


def test_killed_in_the_middle_of_a_sweep(tmp_path: Path) -> None:
    """Two lives: the first leaves a lost lease behind, the second dies while taking it back."""
    ledger = Ledger(tmp_path / "var")
    with serving(tmp_path / "var") as server:
        life = Life(server)
        job = life.user.start(life.user.upload()["id"], params={"seconds": 30})
        until(lambda: life.user.job(job["id"])["state"] == "RUNNING")
        server.kill()
    assert armed(tmp_path / "var", "rescue.midway:1").launch().wait(20) == -signal.SIGKILL
    assert ledger.rows(select(jobs))[0].state == "RUNNING", "the sweep was one transaction"
    with serving(tmp_path / "var") as server:
        user = life.user.at(server)
        until(lambda: user.job(job["id"])["attempt"] == 2)
        assert user.http.post(f"/jobs/{job['id']}/cancel").status_code == 202
        ledger.settle()
        ledger.check()


def test_killed_in_a_migration(tmp_path: Path) -> None:
    environment = {**databases.settings(tmp_path / "var"), "DATA_DIR": str(tmp_path / "var")}
    fatal = {"FAULT": "migration.each_step:1"}
    assert run("migrate", **environment, **fatal).returncode == -signal.SIGKILL
    starters = [Forked(["migrate"], environment, tmp_path / "log") for _ in range(2)]
    assert [starter.wait(20) for starter in starters] == [0, 0]
    with Server(tmp_path / "var") as server:
        server.register()


def test_production_refuses_a_fault(tmp_path: Path) -> None:
    environment = {
        "DATA_DIR": str(tmp_path / "var"),
        "FAULT": "job.midway:1",
        "ENVIRONMENT": "production",
        "JWT_SECRET": "x" * 32,
    }
    done = run("serve", **environment)
    assert done.returncode == 1
    assert done.stderr == "configuration: FAULT must not be set when ENVIRONMENT=production\n"


def assert_promises_kept(life: Life, server: Server, jobs: int) -> None:
    user: User = life.user.at(server)
    for name, content in (("upload", CONTENT), ("upload 2", pdf("failing"))):
        document: dict[str, Any] = life.answers[name].json()
        assert user.http.get(f"/documents/{document['id']}/content").content == content
        again = user.post_file(content, key=name)
        assert (again.status_code, again.content) == (201, life.answers[name].content)
    completed, failed = (life.answers[name].json()["id"] for name in ("upload", "upload 2"))
    assert user.document(completed)["status"] == "COMPLETED"
    assert user.document(failed)["status"] == "FAILED"
    for name, document_id, params in (
        ("process", completed, WORK),
        ("process 2", failed, FAILURE),
    ):
        again = user.process(document_id, key=name, params=params)
        assert (again.status_code, again.content) == (202, life.answers[name].content)
        assert again.headers["idempotent-replayed"] == "true"
    direct = user.document(life.answers["announce"].json()["document_id"])
    assert (direct["status"], direct["file_number"]) == ("UPLOADED", 3)
    assert user.http.get(f"/documents/{direct['id']}/content").content == CONTENT
    assert announced(user).content == life.answers["announce"].content
    assert len(user.http.get("/documents").json()["items"]) == jobs + 1
    assert len(user.http.get("/jobs").json()["items"]) == jobs
    tokens = life.answers["refresh"].json()
    assert user.http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).status_code == 200
