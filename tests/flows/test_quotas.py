"""What an account may use, exact whoever acts at the same time, and whatever becomes of what was added."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import select

from app.documents.models import documents
from tests.api.test_uploads import answered, begun, part
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.invariants import Ledger
from tests.support.server import Server, pair
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import run

FILE = pdf("x" * 1000)
FITTING = 20  # of such files
QUOTA = str(FITTING * len(FILE) + len(FILE) // 2)


def usage(user: User) -> dict[str, int]:
    used: dict[str, int] = user.http.get("/auth/me").json()["usage"]
    return used


def announce(user: User, size: int = len(FILE), key: str | None = None) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": size}
    return user.http.post("/documents/initiate-upload", json=body, headers=headers)


def operate(data_dir: Path, *arguments: str) -> str:
    """A command of the operator."""
    done = run(*arguments, DATA_DIR=str(data_dir), **databases.settings(data_dir))
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def at_once(users: Sequence[User], call: Any, times: int) -> Counter[Any]:
    """How often each status and code was answered, when so many call at once."""
    gate = threading.Barrier(times)

    def act(n: int) -> Any:
        gate.wait()
        answer = call(users[n % len(users)], n)
        return answer.status_code if answer.is_success else (answer.status_code, answer.json()["code"])

    with ThreadPoolExecutor(times) as threads:
        return Counter(threads.map(act, range(times)))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two processes with small quotas. No job is run."""
    limits = {"QUOTA_BYTES": QUOTA, "QUOTA_ANNOUNCED": "15", "QUOTA_JOBS": "5", "JOB_CONCURRENCY": "0"}
    with pair(tmp_path_factory.mktemp("quotas") / "var", **limits) as servers:
        yield servers
        for server in servers:
            assert "Traceback" not in server.log_file.read_text()
        ledger = Ledger(servers[0].data_dir)
        until(lambda: set(ledger.files()) <= {row.file_id for row in ledger.rows(select(documents))})
        ledger.check_usage()


def test_uploads_at_the_edge(both: tuple[Server, Server]) -> None:
    user = both[0].register()
    users = [user, user.at(both[1])]
    answers = at_once(users, lambda each, n: each.post_file(FILE, key=str(n)), 100)
    assert answers == {201: FITTING, (403, "storage-quota-exceeded"): 100 - FITTING}
    assert usage(user) == {"bytes": FITTING * len(FILE), "documents": FITTING, "announced": 0, "jobs": 0}
    kept = user.http.get("/documents?limit=100").json()["items"]
    assert len(kept) == FITTING
    gone = at_once(users, lambda each, n: each.http.delete(f"/documents/{kept[n]['id']}?permanent=true"), FITTING)
    assert gone == {204: FITTING}
    assert usage(user)["bytes"] == usage(user)["documents"] == 0
    assert user.post_file(FILE).status_code == 201


def test_a_replay_is_neither_counted_nor_refused(both: tuple[Server, Server]) -> None:
    user = both[0].register()
    sent = [user.post_file(FILE, key=str(n)) for n in range(FITTING)]
    assert user.post_file(FILE, key="another").json()["code"] == "storage-quota-exceeded"
    again = [user.post_file(FILE, key=str(n)) for n in range(FITTING)]
    assert [answer.content for answer in again] == [answer.content for answer in sent]
    assert usage(user)["documents"] == FITTING


def test_a_file_that_is_too_large_is_refused_before_it_is_read(both: tuple[Server, Server]) -> None:
    with begun(both[0].register(), part(FILE), length=90_000_000) as connection:
        assert answered(connection) == (403, "storage-quota-exceeded")


def test_announcements_at_the_edge(both: tuple[Server, Server]) -> None:
    user = both[0].register()
    answers = at_once([user, user.at(both[1])], lambda each, n: announce(each, key=str(n)), 50)
    assert answers == {201: 15, (429, "too-many-uploads"): 35}
    assert int(announce(user).headers["retry-after"]) > 0
    assert usage(user) == {"bytes": 15 * len(FILE), "documents": 15, "announced": 15, "jobs": 0}
    one, other = user.http.get("/documents?limit=2").json()["items"]
    assert user.http.delete(f"/documents/{one['id']}?permanent=true").status_code == 204
    assert user.http.delete(f"/documents/{other['id']}?permanent=true").status_code == 204
    assert announce(user, size=int(QUOTA)).json()["code"] == "storage-quota-exceeded"
    completed, rejected = [announce(user).json() for _ in range(2)]
    for upload, content in ((completed, FILE), (rejected, b"x" * len(FILE))):
        assert user.http.put(upload["upload_url"], content=content, headers=upload["headers"]).status_code == 200
    path = "/documents/{}/complete-upload"
    assert user.http.post(path.format(completed["document_id"])).status_code == 200
    assert usage(user) == {"bytes": 15 * len(FILE), "documents": 15, "announced": 14, "jobs": 0}
    assert user.http.post(path.format(rejected["document_id"])).json()["code"] == "upload-rejected"
    assert usage(user) == {"bytes": 14 * len(FILE), "documents": 15, "announced": 13, "jobs": 0}


def test_jobs_at_the_edge(both: tuple[Server, Server]) -> None:
    user = both[0].register()
    users = [user, user.at(both[1])]
    ids = [user.upload(FILE)["id"] for _ in range(FITTING)]
    answers = at_once(users, lambda each, n: each.process(ids[n], key=str(n)), FITTING)
    assert answers == {202: 5, (429, "too-many-jobs"): FITTING - 5}
    jobs = user.http.get("/jobs").json()["items"]
    assert len(jobs) == usage(user)["jobs"] == 5
    started = [job["document_id"] for job in jobs]
    replayed = at_once(users, lambda each, n: each.process(started[n], key=str(ids.index(started[n]))), 5)
    assert replayed == {202: 5}
    assert [user.process(each).status_code for each in started] == [200] * 5, "the work is under way"
    assert user.http.post(f"/jobs/{jobs[0]['id']}/cancel").status_code == 202
    assert user.process(jobs[0]["document_id"]).status_code == 202


def test_an_operator_sets_the_quota_of_one_account(both: tuple[Server, Server]) -> None:
    user, other = both[0].register(), both[0].register()
    data_dir = both[0].data_dir
    operate(data_dir, "users", "quota", user.email, "--documents", "1", "--bytes", "0")
    quota = user.http.get("/auth/me").json()["quota"]
    assert (quota["documents"], quota["bytes"]) == (1, None)
    user.upload(pdf("x" * int(QUOTA)))
    assert user.post_file(FILE).json()["code"] == "document-quota-exceeded"
    other.upload(FILE), other.upload(FILE)
    shown = operate(data_dir, "users", "quota", user.email, "--default")
    assert f"of {QUOTA}" not in shown  # the command has settings of its own
    assert user.http.get("/auth/me").json()["quota"] == other.http.get("/auth/me").json()["quota"]


def test_many_at_once_for_one_account_are_not_refused(tmp_path: Path) -> None:
    with pair(tmp_path / "var", JOB_CONCURRENCY="0") as servers:
        user = servers[0].register()
        users = [user, user.at(servers[1])]
        assert at_once(users, lambda each, _: each.post_file(FILE), 100) == {201: 100}
        ids = [each["id"] for each in user.http.get("/documents?limit=100").json()["items"]]
        assert at_once(users, lambda each, n: each.process(ids[n]), 100) == {202: 100}
        assert usage(user) == {"bytes": 100 * len(FILE), "documents": 100, "announced": 0, "jobs": 100}


def test_expiry_gives_back_and_what_is_done_by_hand_is_counted(tmp_path: Path) -> None:
    """As processes of the release before do it: by statements that know no usage."""
    settings = {"UPLOAD_URL_TTL": "1", "ORPHAN_GRACE_SECONDS": "1", "LEASE_SECONDS": "1"}
    with Server(tmp_path / "var", settings) as server:
        user = server.register()
        kept, *_ = (user.upload(FILE) for _ in range(3))
        assert [announce(user).status_code for _ in range(20)] == [201] * 20
        until(lambda: usage(user)["announced"] == 0)
        assert usage(user) == {"bytes": 3 * len(FILE), "documents": 3, "announced": 0, "jobs": 0}
        own = documents.c.owner_id == UUID(kept["owner_id"])
        with databases.engine(server.data_dir).begin() as conn:
            conn.execute(documents.delete().where(own, documents.c.id != UUID(kept["id"])))
            conn.execute(documents.update().where(own).values(size=7))
        assert usage(user) == {"bytes": 7, "documents": 1, "announced": 0, "jobs": 0}
