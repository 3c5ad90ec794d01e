"""The trash, what expires, and holds: what leaves, when, and what comes back."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from app.auth.principal import Role, Scope
from app.documents import trash
from app.documents.models import documents
from app.events import events
from app.files import claim
from app.processing.models import results
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.invariants import Ledger
from tests.support.maker import NAMED
from tests.support.person import Person, person, running
from tests.support.waiting import until

DAY = 86400.0
DIRECT = pdf("sent directly")


class World:
    """A process whose clock is the test's."""

    def __init__(self, data_dir: Path, **settings: Any) -> None:
        self.data_dir, self.settings = (
            data_dir,
            {"refresh_token_ttl": 1000 * DAY, "refresh_family_ttl": 1000 * DAY} | settings,
        )
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def pass_by(self, seconds: float) -> None:
        """Let time pass, and what is due be done."""
        self.now += timedelta(seconds=seconds)
        self.process.tick()

    def __enter__(self) -> Self:
        self._open = ExitStack()
        self._open.enter_context(databases.clock(lambda: self.now))
        self._open.enter_context(patch.object(claim, "SETTLED", 0))  # no other database will object
        self.process = self._open.enter_context(running(self.data_dir, **self.settings))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.data_dir)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path / "var") as world:
        yield world
        world.ledger.check()


@pytest.fixture
def ada(world: World) -> Person:
    return person(world.process)


@pytest.fixture
def operator(world: World) -> Person:
    return person(world.process, Role.OPERATOR)


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"] if answer.content else ""


def found(who: Person, query: str = "") -> list[str]:
    """The ids in the list."""
    return [each["id"] for each in who.get(f"/documents?limit=100{query}")["items"]]


def delete(who: Person, document_id: str, query: str = "") -> None:
    assert who.ask("DELETE", f"/documents/{document_id}{query}").status_code == 204


def processed(world: World, who: Person, **metadata: Any) -> str:
    """The id of a new document that has a result."""
    document_id = who.upload(**metadata)
    world.process.work(UUID(who.job(document_id, seconds=0)))
    return document_id


def test_a_deleted_document_is_gone_from_every_read_and_comes_back_as_it_was(world: World, ada: Person) -> None:
    document_id = processed(world, ada, tags=["t"], folder="f", description="d")
    path = f"/documents/{document_id}"
    before, result = ada.get(path), ada.get(f"{path}/result")
    job, timeline = ada.get(f"/jobs/{before['job_id']}"), ada.get(f"{path}/timeline")
    delete(ada, document_id)
    for gone in ("", "/content", "/result", "/results", "/results/simulated", "/timeline", "/children"):
        assert code(ada.ask("GET", path + gone)) == (404, "not-found"), gone
    for method, gone, body in (
        ("PATCH", path, {"json": {"folder": "g"}}),
        ("POST", f"{path}/process", {}),
        ("POST", f"{path}/complete-upload", {}),
        ("DELETE", path, {}),
        ("GET", f"/jobs/{before['job_id']}", {}),
        ("POST", f"/jobs/{before['job_id']}/cancel", {}),
    ):
        assert code(ada.ask(method, gone, **body)) == (404, "not-found"), gone
    for query in ("", "&tag=t", "&folder=f", "&q=d", f"&sha256={before['sha256']}", "&status=COMPLETED", "&sort=size"):
        assert found(ada, query) == [], query
    assert ada.get("/documents?count=true")["total"] == 0
    assert ada.get("/jobs")["items"] == ada.get(f"/jobs?document_id={document_id}")["items"] == []

    [trashed] = ada.get("/documents?trashed=true&tag=t&count=true")["items"]
    assert trashed == before | {name: trashed[name] for name in ("deleted_at", "updated_at", "version")}
    assert datetime.fromisoformat(trashed["deleted_at"]) == world.now

    restored = ada.ask("POST", f"{path}/restore")
    assert (restored.status_code, restored.headers["etag"]) == (200, '"5"')
    assert restored.json() == ada.get(path) == before | {"version": 5, "updated_at": restored.json()["updated_at"]}
    assert ada.get(f"{path}/result") == result
    assert ada.get(f"/jobs/{before['job_id']}") == job
    assert found(ada) == found(ada, "&tag=t") == [document_id]
    told = ada.get(f"{path}/timeline")["items"]
    assert told[: len(timeline["items"])] == timeline["items"]
    assert [(each["event"], each["data"]) for each in told[-2:]] == [
        ("document.deleted", {"version": 4}),
        ("document.restored", {"version": 5}),
    ]
    again = ada.ask("POST", f"{path}/restore")
    assert (again.status_code, again.json()["version"]) == (200, 5)


def test_others_find_nothing_in_a_trash(world: World, ada: Person) -> None:
    document_id, bob = ada.upload(), person(world.process)
    delete(ada, document_id)
    assert found(bob, "&trashed=true") == []
    assert code(bob.ask("POST", f"/documents/{document_id}/restore")) == (404, "not-found")
    assert code(bob.ask("DELETE", f"/documents/{document_id}?permanent=true")) == (404, "not-found")
    assert bob.ask("DELETE", "/trash").status_code == 204
    assert found(ada, "&trashed=true") == [document_id]


def test_the_trash_counts_and_is_purged_in_time(world: World, ada: Person) -> None:
    document_id = processed(world, ada)
    used = ada.get("/auth/me")["usage"]
    delete(ada, document_id)
    assert ada.get("/auth/me")["usage"] == used
    world.pass_by(30 * DAY - 1)
    assert found(ada, "&trashed=true") == [document_id]
    world.pass_by(1)
    assert found(ada, "&trashed=true") == []
    assert world.ledger.files() == {}
    assert ada.get("/auth/me")["usage"] == dict.fromkeys(used, 0)
    assert code(ada.ask("POST", f"/documents/{document_id}/restore")) == (410, "document-purged")
    assert code(ada.ask("GET", f"/documents/{document_id}")) == (404, "not-found")
    purged = world.ledger.rows(select(events).where(events.c.event == "document.purged"))
    assert [(str(row.document_id), row.actor.partition(":")[0], row.data) for row in purged] == [
        (document_id, "worker", {"version": 5})
    ]


@pytest.mark.parametrize("trashed", [False, True])
def test_for_good_at_once(world: World, ada: Person, *, trashed: bool) -> None:
    document_id = processed(world, ada)
    if trashed:
        delete(ada, document_id)
    delete(ada, document_id, "?permanent=true")
    assert found(ada) == found(ada, "&trashed=true") == []
    assert code(ada.ask("POST", f"/documents/{document_id}/restore")) == (410, "document-purged")
    until(lambda: world.ledger.files() == {})
    names = [row.event for row in world.ledger.rows(select(events).where(events.c.document_id == UUID(document_id)))]
    assert (names.count("document.deleted"), names.count("document.purged")) == (1, 1)


def test_without_a_trash(tmp_path: Path) -> None:
    with World(tmp_path / "var", trash_seconds=0) as world:
        ada = person(world.process)
        document_id = ada.upload()
        delete(ada, document_id)
        assert found(ada, "&trashed=true") == []
        assert code(ada.ask("POST", f"/documents/{document_id}/restore")) == (410, "document-purged")
        until(lambda: world.ledger.files() == {})


def test_what_is_not_here_yet_is_deleted_at_once(ada: Person) -> None:
    body = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": len(DIRECT)}
    document_id = ada.post("/documents/initiate-upload", **body)["document_id"]
    delete(ada, document_id)
    assert found(ada, "&trashed=true") == []


def test_the_trash_is_emptied_whatever_there_is(world: World, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash, "PURGE_BATCH", 2)
    kept = ada.upload()
    for _ in range(5):
        delete(ada, ada.upload())
    assert ada.ask("DELETE", "/trash").status_code == 204
    assert (found(ada), found(ada, "&trashed=true")) == ([kept], [])
    until(lambda: world.ledger.files().keys() == {UUID(kept)})
    assert ada.ask("DELETE", "/trash").status_code == 204


def test_a_version_that_changed_is_not_deleted(ada: Person) -> None:
    document_id = ada.upload()
    headers = [("If-Match", '"2"')]
    for query in ("", "?permanent=true"):
        answer = ada.ask("DELETE", f"/documents/{document_id}{query}", headers=headers)
        assert code(answer) == (412, "precondition-failed")
    delete(ada, document_id)
    assert ada.ask("DELETE", f"/documents/{document_id}?permanent=true", headers=headers).status_code == 204


def test_a_key_is_forgotten_with_its_document(ada: Person) -> None:
    form = {"files": {"file": ("a.pdf", DIRECT, PDF_TYPE)}}
    first = ada.ask("POST", "/documents", key="k", **form).json()["id"]
    delete(ada, first)
    second = ada.ask("POST", "/documents", key="k", **form)
    assert (second.status_code, second.json()["id"] != first) == (201, True)


def test_deleting_and_restoring_take_their_scopes(world: World, ada: Person) -> None:
    document_id = ada.upload()
    with world.process.limited(Scope.DOCUMENTS_READ, Scope.DOCUMENTS_WRITE):
        assert ada.ask("DELETE", f"/documents/{document_id}?permanent=true").status_code == 403
        assert ada.ask("DELETE", "/trash").status_code == 403
    delete(ada, document_id)
    with world.process.limited(Scope.DOCUMENTS_READ, Scope.DOCUMENTS_DELETE):
        assert ada.ask("POST", f"/documents/{document_id}/restore").status_code == 403


def test_children_come_back_with_their_parent(world: World, ada: Person) -> None:
    parent, child = ada.upload(), ada.upload()
    of_it = update(documents).where(documents.c.id == UUID(child)).values(parent_id=UUID(parent))
    world.process.write(lambda conn: conn.execute(of_it))
    delete(ada, parent)
    assert found(ada, f"&parent_id={parent}") == [child]
    ada.post(f"/documents/{parent}/restore")
    assert [each["id"] for each in ada.get(f"/documents/{parent}/children")["items"]] == [child]


@pytest.mark.parametrize("how", ["at upload", "by an edit"])
def test_a_document_expires_when_it_says_so(world: World, ada: Person, how: str) -> None:
    moment = world.now + timedelta(seconds=100)
    if how == "at upload":
        document_id = ada.upload(expires_in=100)
    else:
        document_id = ada.upload()
        ada.ask("PATCH", f"/documents/{document_id}", json={"expires_at": moment.isoformat()})
    assert datetime.fromisoformat(ada.get(f"/documents/{document_id}")["expires_at"]) == moment
    world.pass_by(99)
    assert found(ada) == [document_id]
    world.pass_by(1)
    assert (found(ada), found(ada, "&trashed=true")) == ([], [document_id])
    restored = ada.post(f"/documents/{document_id}/restore")
    assert restored["expires_at"] is None
    world.pass_by(1)
    assert found(ada) == [document_id]
    told = ada.get(f"/documents/{document_id}/timeline")["items"]
    assert [each["data"].get("reason") for each in told if each["event"] == "document.deleted"] == ["expired"]


def test_an_expiry_can_be_taken_back(world: World, ada: Person) -> None:
    document_id = ada.upload(expires_in=100)
    ada.ask("PATCH", f"/documents/{document_id}", json={"expires_at": None})
    world.pass_by(1000)
    assert found(ada) == [document_id]


def test_what_is_processed_expires_afterwards(world: World, ada: Person) -> None:
    document_id = ada.upload(expires_in=100)
    job_id = ada.job(document_id, seconds=0)
    world.pass_by(200)
    assert found(ada) == [document_id]
    world.process.work(UUID(job_id))
    world.pass_by(1)
    assert found(ada) == []


def test_a_direct_upload_can_expire(world: World, ada: Person) -> None:
    body = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": len(DIRECT), "metadata": {"expires_in": 100}}
    upload = ada.post("/documents/initiate-upload", **body)
    sent = world.process.http("PUT", upload["upload_url"].removeprefix("http://app"), content=DIRECT, kind=PDF_TYPE)
    assert sent.status_code == 200
    ada.post(f"/documents/{upload['document_id']}/complete-upload")
    world.pass_by(100)
    assert found(ada, "&trashed=true") == [upload["document_id"]]


@pytest.mark.parametrize("sent", [0, -1, 1.5, "9", True, 10**12])
def test_expiries_that_are_none(ada: Person, sent: object) -> None:
    answer = ada.ask("POST", "/documents", files={"file": ("a.pdf", DIRECT, PDF_TYPE)}, data={"metadata": _json(sent)})
    assert code(answer) == (422, "validation-failed")
    assert answer.json()["errors"][0]["pointer"] == "/metadata/expires_in"


def _json(seconds: object) -> str:
    return json.dumps({"expires_in": seconds})


def test_policy_forgets_what_nobody_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash, "BATCH", 2)
    with World(tmp_path / "var", retention_seconds=100 * DAY) as world:
        ada = person(world.process)
        old = {ada.upload() for _ in range(5)}
        own = ada.upload(expires_in=int(50 * DAY))
        world.pass_by(60 * DAY)
        assert set(found(ada)) == old
        path = f"/documents/{min(old)}"
        for days, status in ((39, 200), (41, 422), (38, 200), (39, 200)):
            changed = ada.ask("PATCH", path, json={"expires_at": (world.now + timedelta(days=days)).isoformat()})
            assert changed.status_code == status, days
            assert changed.is_success or changed.json()["errors"][0]["pointer"] == "/expires_at"
        assert ada.ask("PATCH", path, json={"expires_at": None}).is_success
        too_long = ada.ask(
            "POST",
            "/documents",
            files={"file": ("a.pdf", DIRECT, PDF_TYPE)},
            data={"metadata": _json(int(101 * DAY))},
        )
        assert too_long.json()["errors"][0]["pointer"] == "/metadata/expires_in"
        world.pass_by(40 * DAY)
        assert found(ada) == []
        assert set(found(ada, "&trashed=true")) == old, "the other one has been purged"
        restored = ada.post(f"/documents/{min(old)}/restore")
        assert datetime.fromisoformat(restored["expires_at"]) == world.now + timedelta(days=100)
        assert code(ada.ask("POST", f"/documents/{own}/restore")) == (410, "document-purged")
        world.pass_by(1)
        assert found(ada) == [min(old)]


def test_results_expire(tmp_path: Path) -> None:
    with World(tmp_path / "var", result_ttl=DAY) as world:
        ada, operator = person(world.process), person(world.process, Role.OPERATOR)
        document_id, held = processed(world, ada), processed(world, ada)
        operator.ask("PUT", f"/documents/{held}/hold", json={"reason": "r"})
        world.pass_by(DAY - 1)
        assert ada.get(f"/documents/{document_id}/result")
        world.pass_by(1)
        assert code(ada.ask("GET", f"/documents/{document_id}/result")) == (410, "result-expired")
        assert code(ada.ask("GET", f"/documents/{document_id}/results/simulated")) == (404, "not-found")
        assert ada.get(f"/documents/{held}/result")
        told = ada.get(f"/documents/{document_id}/timeline")["items"][-1]
        assert (told["event"], told["data"]) == ("document.results_expired", {"processors": ["simulated"]})
        again = ada.post(f"/documents/{document_id}/process", params={"seconds": 0})
        assert again["started"], "there is no result to be found"
        world.process.work(UUID(again["job"]["id"]))
        assert ada.get(f"/documents/{document_id}/result")


def test_a_hold_is_stronger_than_whatever_removes(world: World, ada: Person, operator: Person) -> None:
    document_id, trashed = ada.upload(expires_in=100), ada.upload()
    delete(ada, trashed)
    for each in (document_id, trashed):
        held = operator.ask("PUT", f"/documents/{each}/hold", json={"reason": "Case 117"})
        assert (held.status_code, held.json()["hold"]) == (200, "Case 117")
    assert ada.get(f"/documents/{document_id}")["hold"] == "Case 117"
    for each, query in ((document_id, ""), (document_id, "?permanent=true"), (trashed, "?permanent=true")):
        assert code(ada.ask("DELETE", f"/documents/{each}{query}")) == (409, "on-hold")
    asked = {"processor": "split", "params": {"ranges": "1", "delete_original": True}}
    assert code(ada.ask("POST", f"/documents/{document_id}/process", json=asked)) == (409, "on-hold")
    assert ada.ask("DELETE", "/trash").status_code == 204
    world.pass_by(60 * DAY)
    assert (found(ada), found(ada, "&trashed=true")) == ([document_id], [trashed])
    assert ada.post(f"/documents/{trashed}/restore")["hold"] == "Case 117"

    for each in (document_id, trashed):
        for _ in range(2):
            assert operator.ask("DELETE", f"/documents/{each}/hold").status_code == 204
    world.pass_by(1)
    assert (found(ada), found(ada, "&trashed=true")) == ([trashed], [document_id])
    told = ada.get(f"/documents/{trashed}/timeline")["items"]
    assert [(each["event"], each["data"], each["actor"]) for each in told if "hold" in each["event"] + "hold"][2:] == [
        ("document.held", {"version": 3, "reason": "Case 117"}, f"operator:{operator.id}"),
        ("document.restored", {"version": 4}, f"user:{ada.id}"),
        ("document.released", {"version": 5}, f"operator:{operator.id}"),
    ]


def test_a_hold_keeps_results_too(world: World, ada: Person, operator: Person) -> None:
    document_id = processed(world, ada)
    path = f"/documents/{document_id}"
    before = ada.get(f"{path}/result")
    late = ada.post(f"{path}/process", params={"seconds": 0}, force=True)["job"]["id"]
    operator.ask("PUT", f"{path}/hold", json={"reason": "Case 117"})
    world.process.work(UUID(late))
    failed = ada.get(f"/jobs/{late}")
    assert (failed["state"], failed["error"]["code"]) == ("FAILED", "on-hold")
    assert ada.get(f"{path}/results/simulated") == before
    for asked in ({"force": True}, {"pipeline": ["simulated"]}):
        assert code(ada.ask("POST", f"{path}/process", json=asked)) == (409, "on-hold")
    other = ada.post(f"{path}/process", processor="text")["job"]["id"]
    world.process.work(UUID(other))
    assert ada.get(f"/jobs/{other}")["state"] == "SUCCEEDED"
    operator.ask("DELETE", f"{path}/hold")
    world.process.work(UUID(ada.post(f"{path}/process", params={"seconds": 0}, force=True)["job"]["id"]))
    assert ada.get(f"{path}/result")["job_id"] != before["job_id"]


def test_what_is_on_hold_is_listed(ada: Person, operator: Person) -> None:
    _, held = ada.upload(), ada.upload()
    operator.ask("PUT", f"/documents/{held}/hold", json={"reason": "Case 117"})
    assert found(ada, "&held=true") == found(ada, "&held=true&sort=size&count=true") == [held]
    assert [each["id"] for each in operator.get("/admin/documents?held=true")["items"]] == [held]


def test_a_job_that_the_release_before_begins_in_the_trash_ends(world: World, ada: Person) -> None:
    document_id = ada.upload()
    job_id = ada.job(document_id, seconds=0)
    trashed = update(documents).where(documents.c.id == UUID(document_id)).values(deleted_at=world.now)
    world.process.write(lambda conn: conn.execute(trashed))
    world.process.work(UUID(job_id))
    assert ada.post(f"/documents/{document_id}/restore")["status"] == "COMPLETED"
    assert ada.get(f"/jobs/{job_id}")["state"] == "SUCCEEDED"


def test_work_in_the_trash_that_is_to_delete_its_document_ends_too(tmp_path: Path) -> None:
    with World(tmp_path / "var", processors=f"simulated,{NAMED}") as world:
        ada = person(world.process)
        document_id = ada.upload()
        job_id = ada.job(document_id, "maker", documents=1, delete_original=True)
        trashed = update(documents).where(documents.c.id == UUID(document_id)).values(deleted_at=world.now)
        world.process.write(lambda conn: conn.execute(trashed))
        world.process.pull()
        assert found(ada, "&trashed=true") == [document_id]
        assert ada.post(f"/documents/{document_id}/restore")["status"] == "COMPLETED"
        assert ada.get(f"/jobs/{job_id}")["state"] == "SUCCEEDED"
        assert len(found(ada, f"&parent_id={document_id}")) == 1


def test_only_operators_hold(ada: Person, operator: Person) -> None:
    document_id = ada.upload()
    for method in ("PUT", "DELETE"):
        answer = ada.ask(method, f"/documents/{document_id}/hold", json={"reason": "r"} if method == "PUT" else None)
        assert code(answer) == (403, "insufficient-scope")
    missing = f"/documents/{uuid4()}/hold"
    assert code(operator.ask("PUT", missing, json={"reason": "r"})) == (404, "not-found")
    assert code(operator.ask("DELETE", missing)) == (404, "not-found")
    for reason in ("", "a\nb", "x" * 201, None):
        answer = operator.ask("PUT", f"/documents/{document_id}/hold", json={"reason": reason})
        assert code(answer) == (422, "validation-failed")


def test_no_statement_can_delete_what_is_on_hold(world: World, ada: Person, operator: Person) -> None:
    document_id = UUID(ada.upload())
    operator.ask("PUT", f"/documents/{document_id}/hold", json={"reason": "r"})
    forced = partial(lambda conn: conn.execute(documents.delete().where(documents.c.id == document_id)))
    with pytest.raises(Exception, match="on hold"):
        world.process.write(forced)


def test_operators_see_the_trash_of_all(ada: Person, operator: Person) -> None:
    document_id = ada.upload()
    delete(ada, document_id)
    assert operator.get("/admin/documents")["items"] == []
    [seen] = operator.get("/admin/documents?trashed=true")["items"]
    assert seen["id"] == document_id
    assert operator.get(f"/admin/documents/{document_id}")["deleted_at"]


def test_a_result_of_a_document_that_expired_meanwhile_is_kept(world: World, ada: Person) -> None:
    document_id = processed(world, ada)
    delete(ada, document_id)
    assert len(world.ledger.rows(select(results))) == 1
    ada.post(f"/documents/{document_id}/restore")
    assert ada.get(f"/documents/{document_id}/result")["data"]
