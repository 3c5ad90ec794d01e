"""The files that documents had before: with all that was made of them, exact and whole, whoever dies or comes first."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import Boolean, column, func, select, table, update

from app.documents import holds
from app.documents.models import previous_files
from app.errors import OnHold
from app.files.models import files as stored_files
from app.jobs.models import jobs
from app.processing.models import previous_results, results
from app.telemetry import context
from tests.api.test_split import texts
from tests.api.test_versions import adopt, content, files, processed, replace, replaced, sent_directly, used
from tests.flows.test_object_storage import on
from tests.flows.test_quotas import operate
from tests.flows.test_transfer import moved, on_sqlite
from tests.support import databases
from tests.support.factories import PDF_TYPE, docx, pdf
from tests.support.invariants import Ledger
from tests.support.maker import NAMED
from tests.support.metrics import metric
from tests.support.person import person, running
from tests.support.seaweed import Prefix
from tests.support.server import Server, pair
from tests.support.user import User
from tests.support.waiting import until

SETTINGS = {"PROCESSORS": f"simulated,text,merge,{NAMED}", "FILE_VERSIONS_MAX": "2"}
IN_PLACE: dict[str, Any] = {"kind": PDF_TYPE, "headers": [("If-Match", "*")]}
LARGE = docx("large " * 20_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("versions") / "var", SETTINGS) as running:
        yield running
        ledger = Ledger(running.data_dir)
        ledger.settle()
        ledger.check()


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


def numbers(user: User, document: dict[str, Any]) -> list[int]:
    return [each["number"] for each in files(user, document)]


def stored(server: Server) -> int:
    return len(Ledger(server.data_dir).files())


@pytest.mark.long
def test_all_that_was_made_of_a_file_goes_where_it_goes(server: Server, user: User) -> None:
    document = user.upload(LARGE, "a.docx")
    path = f"/documents/{document['id']}"
    processed(user, document, processor="text")
    assert processed(user, document, processor="maker", params={"files": 2})["state"] == "SUCCEEDED"
    text = user.http.get(f"{path}/results/text").content
    listed = user.http.get(f"{path}/results/maker/files").json()["items"]
    made = {each["name"]: user.http.get(each["url"]).content for each in listed}
    before, kept = used(user), stored(server)
    document = replaced(user, user.document(document["id"]), pdf("two"))
    assert used(user) == before + len(pdf("two"))
    Ledger(server.data_dir).check_usage()
    assert user.http.get(f"{path}/results/text?file=1").content == text
    plain = user.http.get(f"{path}/results/text?file=1", headers={"Accept": "text/plain"})
    assert plain.text.count("large") == 20_000
    moved = user.http.get(f"{path}/results/maker/files?file=1").json()["items"]
    assert moved == [each | {"url": f"{each['url']}?file=1"} for each in listed]
    assert {each["name"]: user.http.get(each["url"]).content for each in moved} == made
    assert user.http.get(f"{path}/results/maker/files/9.bin?file=1").status_code == 404
    assert stored(server) == kept + 1
    processed(user, document, processor="maker", params={"files": 1})
    assert len(user.http.get(f"{path}/results/maker/files").json()["items"]) == 1
    assert user.http.delete(f"{path}/files/1").status_code == 204
    until(lambda: stored(server) == kept - 2)
    Ledger(server.data_dir).check()
    replaced(user, user.document(document["id"]), pdf("three"))
    assert user.http.delete(f"{path}?permanent=true").status_code == 204
    assert used(user) == 0
    until(lambda: stored(server) == kept - 4)


def test_the_oldest_of_too_many_go_but_for_those_to_keep(server: Server, user: User) -> None:
    document = user.upload(pdf("1"))
    user.http.patch(f"/documents/{document['id']}/files/1", json={"keep": True})
    for each in "23456":
        document = replaced(user, document, pdf(each))
    assert numbers(user, document) == [6, 5, 4, 1]
    assert content(user, document, file=1) == pdf("1")
    assert used(user) == 4 * len(pdf("1"))
    told = [event["data"] for event in user.events(document["id"]) if event["event"] == "document.file_removed"]
    assert told == [{"number": number, "reason": "too-many"} for number in (2, 3)]
    until(lambda: Ledger(server.data_dir).settle() is None)


def test_nothing_of_a_document_on_hold_is_removed(server: Server, user: User) -> None:
    document, operator = user.upload(pdf("1")), server.operator()
    path = f"/documents/{document['id']}"
    held = operator.http.put(f"{path}/hold", json={"reason": "a case"})
    assert held.status_code == 200
    document = user.document(document["id"])
    for each in "2345":
        document = replaced(user, document, pdf(each))
    assert numbers(user, document) == [5, 4, 3, 2, 1]
    answer = user.http.delete(f"{path}/files/1")
    assert (answer.status_code, answer.json()["code"]) == (409, "on-hold")
    assert operator.http.delete(f"{path}/hold").status_code == 204
    replaced(user, user.document(document["id"]), pdf("6"))
    assert numbers(user, document) == [6, 5, 4]


@pytest.mark.long
def test_previous_files_go_by_their_age(tmp_path: Path) -> None:
    settings = {"FILE_VERSION_TTL": "3600", "LEASE_SECONDS": "1"}
    with Server(tmp_path / "var", settings) as server:
        user, operator = server.register(), server.operator()
        old, kept, held, young = (user.upload(pdf(name)) for name in ("old", "kept", "held", "young"))
        processed(user, old, processor="text")
        user.http.patch(f"/documents/{kept['id']}/files/1", json={"keep": True})
        operator.http.put(f"/documents/{held['id']}/hold", json={"reason": "a case"})
        for each in (old, kept, held, young):
            replaced(user, user.document(each["id"]), pdf("new"))
        with databases.engine(server.data_dir).begin() as conn:
            ids = [UUID(each["id"]) for each in (old, kept, held)]
            long_ago = datetime.now(UTC) - timedelta(hours=2)
            conn.execute(
                update(previous_files).where(previous_files.c.document_id.in_(ids)).values(replaced_at=long_ago)
            )
        until(lambda: numbers(user, old) == [2])
        assert [numbers(user, each) for each in (kept, held, young)] == [[2, 1]] * 3
        until(lambda: metric(server, "removed_total", what="files") == 1)
        told = [event for event in user.events(old["id"]) if event["event"] == "document.file_removed"]
        assert [event["data"] for event in told] == [{"number": 1, "reason": "expired"}]
        assert told[0]["actor"].startswith("worker:")
        until(lambda: stored(server) == 7)
        Ledger(server.data_dir).check()


def test_too_many_that_a_hold_has_kept_go_when_it_has_ended(tmp_path: Path) -> None:
    settings = SETTINGS | {"FILE_VERSION_TTL": "0", "LEASE_SECONDS": "1", "ORPHAN_GRACE_SECONDS": "2"}
    with Server(tmp_path / "var", settings) as server:
        user, operator = server.register(), server.operator()
        held, still = user.upload(pdf("1")), user.upload(pdf("1"))
        for each in (held, still):
            operator.http.put(f"/documents/{each['id']}/hold", json={"reason": "a case"})
            user.http.patch(f"/documents/{each['id']}/files/2", json={"keep": True})
            for text in "23456":
                replaced(user, user.document(each["id"]), pdf(text))
        user.http.patch(f"/documents/{held['id']}/files/1", json={"keep": True})
        operator.http.delete(f"/documents/{held['id']}/hold")
        until(lambda: numbers(user, held) == [6, 5, 4, 1])
        assert numbers(user, still) == [6, 5, 4, 3, 2, 1]
        told = [event for event in user.events(held["id"]) if event["event"] == "document.file_removed"]
        assert [event["data"] for event in told] == [{"number": number, "reason": "too-many"} for number in (2, 3)]
        assert told[0]["actor"].startswith("worker:")
        until(lambda: stored(server) == 10)
        Ledger(server.data_dir).check()


def test_a_result_of_a_previous_file_expires(tmp_path: Path) -> None:
    settings = SETTINGS | {"RESULT_TTL": "2"}
    with Server(tmp_path / "var", settings) as server:
        user = server.register()
        document = user.upload(pdf("one"))
        processed(user, document)
        document = replaced(user, user.document(document["id"]), pdf("two"))
        document = replaced(user, document, pdf("three"))
        path = f"/documents/{document['id']}/result"
        assert user.http.get(f"{path}?file=1").status_code == 200
        with databases.engine(server.data_dir).begin() as conn:
            conn.execute(update(previous_results).values(created_at=datetime.now(UTC) - timedelta(hours=2)))
        user = server.restarted(user)
        answer = until(lambda: (got := user.http.get(f"{path}?file=1")).status_code != 200 and got)
        assert (answer.status_code, answer.json()["code"]) == (410, "result-expired")
        answer = user.http.get(f"{path}?file=2")
        assert (answer.status_code, answer.json()["code"]) == (409, "result-not-ready"), "nobody has processed it"


def as_the_release_before(server: Server) -> None:
    """Make jobs and results what it leaves: those say nothing of the number of a file."""
    with databases.engine(server.data_dir).begin() as conn:
        conn.execute(update(results).values(file_number=1))
        for job in conn.execute(select(jobs.c.id, jobs.c.args)):
            args = {name: value for name, value in job.args.items() if name != "file_number"}
            conn.execute(update(jobs).where(jobs.c.id == job.id).values(args=args))


def test_work_of_the_release_before_is_of_the_file_that_it_read(tmp_path: Path) -> None:
    with Server(tmp_path / "var", SETTINGS) as server:
        user, operator = server.register(), server.operator()
        document = user.upload(pdf("one"))
        path = f"/documents/{document['id']}"
        first = processed(user, document)
        document = replaced(user, user.document(document["id"]), LARGE, "b.docx")
        assert operator.http.post("/admin/processors/text/pause").status_code == 200
        job = user.start(document["id"], params={"seconds": 60})
        as_the_release_before(server)
        cancelled = user.http.post(f"/jobs/{job['id']}/cancel").json()
        assert cancelled["file_number"] == 2, cancelled
        now = user.document(document["id"])
        assert (now["status"], now["job_id"]) == ("UPLOADED", None), "not as the job left it that read the file before"
        job = user.start(document["id"], processor="text")
        as_the_release_before(server)
        again = user.http.post(f"{path}/process", json={"processor": "text"}).json()
        assert (again["started"], again["job"]["file_number"]) == (False, 2)
        operator.http.post("/admin/processors/text/resume")
        user.finished(job["id"])
        large = user.http.get(f"{path}/result").json()
        assert (large["file_number"], large["input_sha256"]) == (2, document["sha256"]), "in a file"
        second = processed(user, document)
        as_the_release_before(server)
        for who in (user.http.get, operator.http.get):
            listed = who("/jobs" if who == user.http.get else "/admin/jobs").json()["items"]
            assert [each["file_number"] for each in listed] == [2, 2, 2, 1]
        assert user.http.get(f"/jobs/{second['id']}").json()["file_number"] == 2
        assert operator.http.get(f"/admin/jobs/{first['id']}").json()["file_number"] == 1
        assert user.http.get(f"{path}/result").json()["file_number"] == 2
        listed = user.http.get(f"{path}/results").json()["items"]
        assert [each["file_number"] for each in listed] == [2, 2]
        replaced(user, user.document(document["id"]), pdf("three"))
        assert user.http.get(f"{path}/result?file=2").json()["file_number"] == 2
        user.http.delete(f"{path}/files/1")
        assert user.http.get(f"/jobs/{first['id']}").json()["file_number"] is None, "the file is gone"


def test_a_file_of_a_document_on_hold_is_not_taken(server: Server, user: User) -> None:
    document, other, operator = user.upload(pdf("1")), sent_directly(user, pdf("2")), server.operator()
    operator.http.put(f"/documents/{other['id']}/hold", json={"reason": "a case"})
    answer = adopt(user, document, other["id"])
    assert (answer.status_code, answer.json()["code"]) == (409, "on-hold")
    assert user.document(document["id"]) == document
    operator.http.delete(f"/documents/{other['id']}/hold")
    assert adopt(user, document, other["id"]).status_code == 200


def test_a_job_ends_on_the_files_that_it_began_with(tmp_path: Path) -> None:
    """Though no previous file is to be kept, those that a job reads are, until it has ended."""
    with Server(tmp_path / "var", SETTINGS | {"FILE_VERSIONS_MAX": "0"}) as server:
        user, operator = server.register(), server.operator()
        first, second = user.upload(pdf("a")), user.upload(pdf("b"))
        operator.http.post("/admin/processors/merge/pause")
        job = user.start(first["id"], processor="merge", params={"with": [second["id"]]})
        second = replaced(user, second, pdf("c"))
        assert numbers(user, second) == [2, 1], "the job reads it"
        second = replaced(user, second, pdf("d"))
        assert numbers(user, second) == [3, 1], "nobody reads the other one"
        operator.http.post("/admin/processors/merge/resume")
        assert user.finished(job["id"])["state"] == "SUCCEEDED"
        [made] = user.http.get(f"/documents/{first['id']}/children").json()["items"]
        assert texts(content(user, made)) == ["a 1", "b 1"]
        second = replaced(user, second, pdf("e"))
        assert numbers(user, second) == [4]
        assert used(user) == first["size"] + second["size"] + made["size"]
        until(lambda: stored(server) == 3)
        Ledger(server.data_dir).check()


def test_of_two_that_replace_the_same_version_one_does(tmp_path: Path) -> None:
    with pair(tmp_path / "var") as servers:
        user = servers[0].register()
        users = [user, user.at(servers[1])]
        document = user.upload(pdf("0"))
        its_id = document["id"]
        for round_ in range(5):

            def act(n: int, at: dict[str, Any] = document, round_: int = round_) -> Any:
                if n == 0:
                    return users[1].http.post(f"/documents/{at['id']}/process", json={"params": {"seconds": 0}})
                return replace(users[n % 2], at, pdf(f"{round_} {n}"))

            with ThreadPoolExecutor(6) as threads:
                answers = [*threads.map(act, range(6))]
            statuses = Counter(answer.status_code for answer in answers[1:])
            assert statuses[200] <= 1
            assert statuses.keys() <= {200, 409, 412}
            document = until(lambda: (now := user.document(its_id))["status"] != "PROCESSING" and now)
        assert numbers(user, document) == [*range(document["file_number"], 0, -1)]
        ledger = Ledger(servers[0].data_dir)
        ledger.settle()
        ledger.check()


def test_a_file_beyond_the_quota_leaves_nothing_behind(tmp_path: Path) -> None:
    whole = pdf("x" * 1000)
    with Server(tmp_path / "var", {"QUOTA_BYTES": str(len(whole) * 5 // 2)}) as server:
        user = server.register()
        document = replaced(user, user.upload(whole), pdf("y" * 1000))
        for answer in (
            replace(user, document, pdf("z" * 1000)),
            user.http.post(f"/documents/{document['id']}/files/1/restore"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "storage-quota-exceeded")
        assert user.document(document["id"]) == document
        assert stored(server) == 2
        assert user.http.delete(f"/documents/{document['id']}/files/1").status_code == 204
        replaced(user, document, pdf("z" * 1000))
        Ledger(server.data_dir).check_usage()


def test_to_replace_a_file_adds_no_document(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"QUOTA_DOCUMENTS": "3"}) as server:
        user = server.register()
        document, *_ = [user.upload() for _ in range(3)]
        user = server.restarted(user, QUOTA_DOCUMENTS="2")
        document = replaced(user, document, LARGE)
        assert user.http.post(f"/documents/{document['id']}/files/1/restore").status_code == 200
        body = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": 9}
        answer = user.http.post("/documents/initiate-upload", json=body)
        assert answer.json()["code"] == "document-quota-exceeded", "a direct upload is a document until it is taken"


def by_itself(user: User, document: dict[str, Any]) -> httpx2.Response:
    return replace(user, document, pdf("three"), Idempotency_Key="k")


def directly(user: User, document: dict[str, Any]) -> httpx2.Response:
    [other] = [each for each in user.http.get("/documents").json()["items"] if each["id"] != document["id"]] or [{}]
    return adopt(user, document, other.get("id", OTHER[0]), **{"Idempotency-Key": "k"})


def by_restoring(user: User, document: dict[str, Any]) -> httpx2.Response:
    return user.http.post(f"/documents/{document['id']}/files/1/restore")


OTHER: list[str] = []
KILLS = [
    (by_itself, "upload.after_temp:4"),
    (by_itself, "upload.after_rename:4"),
    (by_itself, "replace.in_transaction:2"),
    (by_itself, "replace.after_commit:2"),
    (directly, "replace.in_transaction:2"),
    (directly, "replace.after_commit:2"),
    (by_restoring, "replace.after_copy:1"),
    (by_restoring, "replace.in_transaction:2"),
]


@pytest.mark.parametrize(("change", "point"), KILLS, ids=lambda each: getattr(each, "__name__", each))
def test_killed_at_any_point_it_is_done_once_or_not_at_all(
    tmp_path: Path, change: Callable[[User, dict[str, Any]], httpx2.Response], point: str
) -> None:
    settings = SETTINGS | {"FAULT": point, "LEASE_SECONDS": "1.5", "ORPHAN_GRACE_SECONDS": "1"}
    with Server(tmp_path / "var", settings, module="tests.support.impatient") as server:
        user = server.register()
        document = user.upload(pdf("one"))
        processed(user, document, processor="maker", params={"files": 1})
        document = replaced(user, user.document(document["id"]), pdf("two"))
        OTHER[:] = [sent_directly(user, pdf("three"))["id"]] if change is directly else [user.upload()["id"]]
        if change is not directly:
            user.http.delete(f"/documents/{OTHER[0]}?permanent=true")
        with pytest.raises(httpx2.TransportError):
            change(user, document)
        user = server.restarted(user, FAULT="")
        answer = until(lambda: (again := change(user, document)).status_code != 409 and again)
        assert answer.status_code == 200, answer.text
        now = user.document(document["id"])
        assert (now["file_number"], now["status"], numbers(user, now)) == (3, "UPLOADED", [3, 2, 1])
        assert content(user, now) == pdf("one" if change is by_restoring else "three")
        assert len(user.http.get(f"/documents/{document['id']}/results/maker/files?file=1").json()["items"]) == 1
        ledger = Ledger(server.data_dir)
        ledger.settle()
        ledger.check()


def test_an_account_is_erased_with_all_files_that_it_had(tmp_path: Path) -> None:
    with Server(tmp_path / "var", SETTINGS) as server:
        user, other = server.register(), server.register()
        document = user.upload(pdf("one"))
        processed(user, document, processor="maker", params={"files": 2})
        replaced(user, user.document(document["id"]), pdf("two"))
        other.upload()
        assert stored(server) == 5
        operate(server.data_dir, "users", "erase", user.email, "--yes")
        assert stored(server) == 1
        Ledger(server.data_dir).check()


def test_what_was_put_on_hold_meanwhile_keeps_its_files_when_its_account_is_erased(tmp_path: Path) -> None:
    with running(tmp_path / "var", processors=f"simulated,{NAMED}") as process:
        ada = person(process)
        held, other = ada.upload(), ada.upload()
        process.work(UUID(ada.job(held, "maker", files=2)))
        for document_id in (held, other):
            answer = ada.ask("PUT", f"/documents/{document_id}/content", content=pdf("two"), **IN_PLACE)
            assert answer.status_code == 200
        process.write(holds.hold, UUID(held), "a case")
        looks, look = [list[UUID]()], holds.of_owner  # it is not, a moment before
        seen = lambda *args, **options: looks.pop() if looks else look(*args, **options)  # noqa: E731
        with patch.object(holds, "of_owner", seen), pytest.raises(OnHold):
            process.operate(lambda accounts: accounts.erase(ada.email))
    ledger = Ledger(tmp_path / "var")
    kept = {row.id for row in ledger.rows(select(stored_files).where(stored_files.c.discarded_at.is_(None)))}
    assert len(kept) == 4
    assert kept <= ledger.files().keys()
    ledger.check_usage()


@contextmanager
def held_meanwhile(server: Server, document: dict[str, Any]) -> Iterator[None]:
    """An operator puts a document on hold, and that is committed when whoever acts in the block waits for it."""
    with databases.engine(server.data_dir).connect() as conn, ThreadPoolExecutor(1) as other:
        with context.acting(context.OPERATOR):
            holds.hold(conn, UUID(document["id"]), f"case {document['version']}")
        locks = table("pg_locks", column("granted", Boolean))
        waiting = select(func.count()).select_from(locks).where(~locks.c.granted)
        with databases.engine(server.data_dir).connect().execution_options(isolation_level="AUTOCOMMIT") as looking:

            def commit() -> None:
                until(lambda: looking.scalar(waiting))
                conn.commit()

            committing = other.submit(commit)
            yield
            committing.result()


@pytest.mark.postgresql
def test_a_file_is_not_taken_of_what_was_put_on_hold_just_now(server: Server, user: User) -> None:
    document, sent = user.upload(), sent_directly(user, pdf("two"))
    with held_meanwhile(server, sent):
        answer = adopt(user, document, sent["id"])
        assert (answer.status_code, answer.json()["code"]) == (409, "on-hold")
    assert user.document(sent["id"])["hold"] == "case 2"
    assert user.document(document["id"]) == document


@pytest.mark.postgresql
def test_a_file_does_not_replace_that_of_a_version_that_came_just_now(server: Server, user: User) -> None:
    document, sent = user.upload(), sent_directly(user, pdf("two"))
    with held_meanwhile(server, document):
        assert replace(user, document, pdf("three")).status_code == 412
    document = user.document(document["id"])
    with held_meanwhile(server, document):
        assert adopt(user, document, sent["id"]).status_code == 412
    assert numbers(user, document) == [1]


def test_files_in_a_bucket(prefix: Prefix, tmp_path: Path) -> None:
    with on(prefix, tmp_path) as server:
        user = server.register()
        document = replaced(user, user.upload(pdf("one")), pdf("two"))
        document = adopt(user, document, sent_directly(user, pdf("three"))["id"]).json()
        answer = user.http.post(f"/documents/{document['id']}/files/1/restore")
        assert (answer.status_code, answer.json()["file_number"]) == (200, 4)
        said = [content(user, document, file=number) for number in (1, 2, 3, 4)]
        assert said == [pdf(text) for text in ("one", "two", "three", "one")]
        assert len(prefix.objects()) == 4
        assert replace(user, answer.json(), b"no document").status_code == 415
        assert user.http.delete(f"/documents/{document['id']}/files/2").status_code == 204
        until(lambda: len(prefix.objects()) == 3)


def test_a_damaged_file_is_not_restored(server: Server, user: User) -> None:
    document = replaced(user, user.upload(pdf("one")), pdf("two"))
    before = stored(server)
    [damaged] = [path for path in Ledger(server.data_dir).files().values() if path.read_bytes() == pdf("one")]
    whole = damaged.read_bytes()
    damaged.chmod(0o600)
    damaged.write_bytes(whole[:-1] + b"x")
    answer = user.http.post(f"/documents/{document['id']}/files/1/restore")
    assert (answer.status_code, answer.json()["code"]) == (500, "file-damaged")
    assert user.document(document["id"]) == document
    assert stored(server) == before
    damaged.write_bytes(whole)
    assert user.http.post(f"/documents/{document['id']}/files/1/restore").status_code == 200


def test_a_service_moves_with_all_files_that_its_documents_had(tmp_path: Path) -> None:
    with on_sqlite(tmp_path / "old", **SETTINGS) as server:
        user = server.register()
        document = user.upload(LARGE, "a.docx")
        processed(user, document, processor="text")
        processed(user, document, processor="maker", params={"files": 1})
        replaced(user, user.document(document["id"]), pdf("two"))
        paths = [f"/documents/{document['id']}{path}" for path in ("", "/files", "/content?file=1", "/results?file=1")]
        paths += [f"/documents/{document['id']}/results/{path}" for path in ("text?file=1", "maker/files/0.bin?file=1")]
        seen = [user.http.get(path).content for path in [*paths, "/auth/me"]]
        assert server.stop() == 0
    moved(tmp_path / "new", "--from-data-dir", tmp_path / "old")
    with Server(tmp_path / "new", SETTINGS) as server:
        user = server.log_in(user.email)
        assert [user.http.get(path).content for path in [*paths, "/auth/me"]] == seen
        ledger = Ledger(tmp_path / "new")
        ledger.settle()
        ledger.check()
