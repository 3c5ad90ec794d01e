"""Two server processes on one data folder, and many who want the same at the same time."""

import fcntl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.auth.models import refresh_tokens
from app.jobs.models import jobs
from tests.api.test_uploads import END, LARGE, answered, begun, part
from tests.support import databases
from tests.support.factories import pdf
from tests.support.invariants import Ledger
from tests.support.server import Server, pair
from tests.support.user import User
from tests.support.waiting import until

T = TypeVar("T")
Call = Callable[[User], T]

THREADS = 32
ENDS = {"job.succeeded", "job.failed", "job.cancelled"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    with pair(tmp_path_factory.mktemp("pair") / "var", JOB_CONCURRENCY="8") as servers:
        yield servers
        for server in servers:
            log = server.log_file.read_text()
            assert "Traceback" not in log
            assert "database is locked" not in log


@pytest.fixture
def user(both: tuple[Server, Server]) -> User:
    return both[0].register()


class Crowd:
    """Threads that act for one user, half of them at either server. They start together."""

    def __init__(self, user: User, both: tuple[Server, Server], size: int) -> None:
        self._users = [user.at(both[n % 2]) for n in range(size)]

    def at_once(self, calls: Iterable[Call[T]]) -> list[T]:
        """Make every call from a thread of its own."""
        work = list(zip(self._users, calls, strict=True))
        gate = threading.Barrier(len(work))

        def act(user: User, call: Call[T]) -> T:
            gate.wait()
            return call(user)

        with ThreadPoolExecutor(len(work)) as threads:
            return list(threads.map(act, *zip(*work, strict=True)))

    def in_turn(self, calls: Iterable[Call[T]]) -> list[T]:
        """Make the calls as threads come free."""
        free = list(self._users)

        def act(call: Call[T]) -> T:
            user = free.pop()
            try:
                return call(user)
            finally:
                free.append(user)

        with ThreadPoolExecutor(len(free)) as threads:
            return list(threads.map(act, calls))


def job_id(answer: httpx2.Response) -> str:
    return str(answer.json()["job"]["id"])


def only(values: Iterable[T]) -> T:
    (value,) = set(values)
    return value


def ends(user: User, document_id: str) -> list[str]:
    return [event["event"] for event in user.events(document_id) if event["event"] in ENDS]


def test_one_key_on_both_servers_starts_one_job(user: User, both: tuple[Server, Server]) -> None:
    document_id = user.upload()["id"]
    answers = Crowd(user, both, 50).at_once([methodcaller("process", document_id, key="k")] * 50)
    assert Counter(answer.status_code for answer in answers) == {202: 50}
    assert only(answer.content for answer in answers)
    assert Counter(answer.headers.get("idempotent-replayed") for answer in answers) == {None: 1, "true": 49}
    user.finished(only(map(job_id, answers)))
    assert [event["event"] for event in user.events(document_id)].count("job.queued") == 1
    assert ends(user, document_id) == ["job.succeeded"]


@pytest.mark.parametrize("keyed", [False, True])
def test_many_requests_on_both_servers_start_one_job(user: User, both: tuple[Server, Server], keyed: bool) -> None:  # noqa: FBT001
    document_id = user.upload()["id"]
    keys = [uuid4().hex if keyed else None for _ in range(50)]
    answers = Crowd(user, both, 50).at_once([methodcaller("process", document_id, key=key) for key in keys])
    assert Counter((answer.status_code, answer.json()["started"]) for answer in answers) == {
        (202, True): 1,
        (200, False): 49,
    }
    user.finished(only(map(job_id, answers)))
    assert ends(user, document_id) == ["job.succeeded"]


def test_five_hundred_calls_for_twenty_documents_make_twenty_jobs(user: User, both: tuple[Server, Server]) -> None:
    documents = [user.upload()["id"] for _ in range(20)]
    wanted = [document_id for _ in range(25) for document_id in documents]
    answers = Crowd(user, both, THREADS).in_turn([methodcaller("process", id_) for id_ in wanted])
    assert Counter(answer.status_code for answer in answers) == {202: 20, 200: 480}
    jobs: dict[str, set[str]] = {}
    for document_id, answer in zip(wanted, answers, strict=True):
        jobs.setdefault(document_id, set()).add(job_id(answer))
    for document_id in documents:
        job = user.finished(only(jobs[document_id]))
        assert (job["state"], job["attempt"]) == ("SUCCEEDED", 1)
        assert ends(user, document_id) == ["job.succeeded"]
        assert user.document(document_id)["status"] == "COMPLETED"


def test_many_operators_at_once_run_each_job_again_once(user: User, both: tuple[Server, Server]) -> None:
    """While the processor is paused, on both servers: the new jobs wait, and cannot fail again meanwhile."""
    documents = [user.upload()["id"] for _ in range(8)]
    for document_id in documents:
        user.finished(user.start(document_id, params={"seconds": 0, "fail": "permanent"})["id"])
    operator = both[0].operator()
    assert operator.http.post("/admin/processors/simulated/pause").status_code == 200
    for server in both:
        there = operator.at(server)
        until(lambda there=there: there.http.get("/processors").json()["items"][0]["paused"])
    wanted = {"filter": {"owner_id": me(user)}, "confirm": len(documents)}
    rerun: Call[httpx2.Response] = lambda each: each.http.post("/admin/jobs/rerun", json=wanted)  # noqa: E731
    answers = [answer.json() for answer in Crowd(operator, both, 8).at_once([rerun] * 8)]
    assert sum(answer["changed"] for answer in answers) == len(documents)
    assert {reason for answer in answers for reason in answer["skipped"]} <= {"conflict"}
    waiting = [user.job(user.document(document_id)["job_id"]) for document_id in documents]
    assert [(job["state"], job["attempt"]) for job in waiting] == [("QUEUED", 0)] * len(documents)
    assert operator.http.post("/admin/processors/simulated/resume").status_code == 204
    for job in waiting:
        assert user.finished(job["id"])["attempt"] == 1
        assert user.story(job["document_id"]) == ["queued", "started", "failed"] * 2


def test_a_token_refreshed_twice_at_once_serves_both(both: tuple[Server, Server]) -> None:
    user = both[0].register()
    tabs = Crowd(user, both, 2)

    def refresh(token: str) -> Call[httpx2.Response]:
        return lambda each: each.http.post("/auth/refresh", json={"refresh_token": token})

    before, spent, token, user_id = "", "", user.tokens["refresh_token"], me(user)
    for _ in range(15):
        pairs = tabs.at_once([refresh(token), refresh(token)])
        assert [answer.status_code for answer in pairs] == [200, 200]
        [child] = {answer.json()["refresh_token"] for answer in pairs}
        before, spent, token = spent, token, child
    [session] = user.http.get("/auth/sessions").json()["items"]
    family = select(refresh_tokens).where(refresh_tokens.c.family_id == UUID(session["id"]))
    rows = Ledger(both[0].data_dir).rows(family)
    assert len(rows) == 16, "one child each, and the first"
    assert refresh(spent)(user).status_code == 200, "it may be retried"
    assert refresh(before)(user).status_code == 401, "its child was used: somebody else has a copy"
    assert refresh(token)(user).status_code == 401, "so nobody of the family is trusted any more"
    assert [line["user_id"] for line in both[0].logs("user.refresh_token_reused")].count(user_id) == 1


def me(user: User) -> str:
    return str(user.http.get("/auth/me").json()["id"])


def test_deleting_while_processing_leaves_no_orphan(user: User, both: tuple[Server, Server]) -> None:
    crowd = Crowd(user, both, 2)
    outcomes = Counter[tuple[int, int]]()
    at_work = {}
    for n in range(40):
        document_id = user.upload()["id"]
        process = methodcaller("process", document_id, params={"seconds": 1})
        path = f"/documents/{document_id}?permanent=true"
        delete: Call[httpx2.Response] = lambda each, path=path: each.http.delete(path)  # noqa: E731
        order = 1 if n % 2 else -1
        processed, deleted = crowd.at_once([process, delete][::order])[::order]
        outcomes[processed.status_code, deleted.status_code] += 1
        assert user.http.get(f"/documents/{document_id}").status_code == (404 if deleted.status_code == 204 else 200)
        if processed.status_code == 202:
            at_work[document_id] = job_id(processed)
    assert set(outcomes) <= {(202, 409), (404, 204)}, outcomes
    for document_id, its_job in at_work.items():
        assert user.finished(its_job)["state"] == "SUCCEEDED"
        assert user.document(document_id)["status"] == "COMPLETED"
        assert ends(user, document_id) == ["job.succeeded"]
    assert len(user.http.get("/jobs?limit=100").json()["items"]) == len(at_work)


def test_a_document_is_restored_or_purged(user: User, both: tuple[Server, Server]) -> None:
    crowd, content = Crowd(user, both, 4), pdf("taken back")
    outcomes = Counter[int]()
    for _ in range(25):
        document_id = user.upload(content)["id"]
        assert user.http.delete(f"/documents/{document_id}").status_code == 204
        path = f"/documents/{document_id}/restore"
        restore: Call[httpx2.Response] = lambda each, path=path: each.http.post(path)  # noqa: E731
        empty: Call[httpx2.Response] = lambda each: each.http.delete("/trash")  # noqa: E731
        first, emptied, second, also = crowd.at_once([restore, empty, restore, empty])
        assert (emptied.status_code, also.status_code) == (204, 204)
        assert first.status_code == second.status_code in {200, 410}
        outcomes[first.status_code] += 1
        answer = user.http.get(f"/documents/{document_id}/content")
        assert (answer.status_code, answer.content == content) == ((200, True) if first.is_success else (404, False))
    Ledger(both[0].data_dir).check_usage()
    assert user.http.get("/documents?trashed=true").json()["items"] == []


def test_one_upload_sent_thirty_times_is_stored_once(user: User, both: tuple[Server, Server]) -> None:
    content = pdf("once", pages=400)
    crowd = Crowd(user, both, 30)
    upload = methodcaller("post_file", content, key="upload")
    answers = crowd.at_once([upload] * 30)
    codes = Counter((answer.status_code, answer.json().get("code")) for answer in answers)
    assert set(codes) <= {(201, None), (409, "request-in-progress")}, codes
    stored = only(answer.content for answer in answers if answer.status_code == 201)
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status_code == 409)
    retried = crowd.in_turn([upload] * 5)
    assert [(answer.status_code, answer.content) for answer in retried] == [(201, stored)] * 5
    assert {answer.headers["idempotent-replayed"] for answer in retried} == {"true"}
    (document,) = user.http.get("/documents").json()["items"]
    files = [path for path in both[0].data_dir.glob("files/**/*") if path.is_file()]
    assert [path.name for path in files if path.stat().st_size == len(content)] == [document["id"]]


@contextmanager
def paused(data_dir: Path) -> Iterator[None]:
    """Another server process is frozen in the middle of a transaction."""
    with (data_dir / "app.db.lock").open() as turns:
        fcntl.flock(turns, fcntl.LOCK_EX)
        yield


def test_writes_wait_for_a_locked_database(user: User, both: tuple[Server, Server]) -> None:
    documents = [user.upload()["id"] for _ in both]
    with ThreadPoolExecutor() as threads:
        with databases.locked(both[0].data_dir):
            work = [threads.submit(user.at(at).process, id_) for at, id_ in zip(both, documents, strict=True)]
            time.sleep(3)
            assert not any(each.done() for each in work)
        answers = [each.result() for each in work]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [user.finished(job_id(answer))["attempt"] for answer in answers] == [1, 1]


def timed(call: Callable[[], httpx2.Response]) -> tuple[httpx2.Response, float]:
    asked_at = time.monotonic()
    return call(), time.monotonic() - asked_at


@pytest.mark.sqlite
@pytest.mark.parametrize("held", [databases.locked, paused])
@pytest.mark.long
def test_a_database_locked_for_long_refuses_writes_only(
    held: Callable[[Path], AbstractContextManager[None]], both: tuple[Server, Server]
) -> None:
    users = [server.register() for server in both]
    documents = [user.upload() for user in users]
    jobs = [user.start(user.upload()["id"], params={"seconds": 60}) for user in users]
    calls = [
        call
        for user, document, job in zip(users, documents, jobs, strict=True)
        for call in user.writes(document["id"], job["id"]).values()
    ]
    body = part(LARGE) + END
    with (
        ThreadPoolExecutor(len(calls)) as threads,
        begun(users[0], body[:-1], length=len(body), Idempotency_Key="k") as late,
    ):
        until(lambda: list(both[0].data_dir.glob("files/staging/*")))
        with held(both[0].data_dir):
            work = [threads.submit(timed, call) for call in calls]
            asked_at = time.monotonic()
            late.send(body[-1:])
            assert answered(late) == (503, "database-unavailable")
            assert time.monotonic() - asked_at < 6, "it does not wait a second time, to give up its key"
            while not all(each.done() for each in work):
                for user, document in zip(users, documents, strict=True):
                    assert user.document(document["id"]) == document
                    assert user.http.get("/livez").status_code == 200
                time.sleep(0.1)
        for answer, seconds in (each.result() for each in work):
            assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert seconds < 6
    for user, document, job in zip(users, documents, jobs, strict=True):
        user.http.post(f"/jobs/{job['id']}/cancel")
        assert user.document(document["id"]) == document, "what was refused did not happen later either"
        assert user.finished(user.start(document["id"])["id"])["state"] == "SUCCEEDED"
        until(lambda user=user: user.post_file(LARGE, key="k").status_code == 201)
    assert not list(both[0].data_dir.glob("files/staging/*"))


def test_the_database_itself_refuses_a_second_live_job(user: User, both: tuple[Server, Server]) -> None:
    job = user.start(user.upload()["id"], params={"seconds": 60})
    with databases.engine(both[0].data_dir).connect() as conn:
        row = conn.execute(select(jobs).where(jobs.c.id == UUID(job["id"]))).mappings().one()
        with pytest.raises(IntegrityError, match=r"jobs\.key|uq_jobs_key"):
            conn.execute(insert(jobs).values({**row, "id": uuid4()}))
    user.http.post(f"/jobs/{job['id']}/cancel")


@pytest.mark.long
def test_claims_are_spread_over_both_servers(user: User, both: tuple[Server, Server]) -> None:
    """Not a promise, but what makes the other tests here worth something: both servers do run jobs."""
    crowd = Crowd(user, both, 24)
    documents = [user.upload()["id"] for _ in range(24)]  # more than one server runs at once
    calls = [methodcaller("start", id_, params={"seconds": 0.5}) for id_ in documents]
    started: list[dict[str, Any]] = crowd.at_once(calls)
    actors = set()
    for job in started:
        user.finished(job["id"])
        actors |= {event["actor"] for event in user.events(job["document_id"]) if event["event"] == "job.started"}
    assert len(actors) == 2
