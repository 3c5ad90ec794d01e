"""/admin: operators see and steer what all accounts have, and read content for a reason only."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import select, update

from app.auth.models import users
from app.auth.principal import Role
from app.errors import StorageUnavailable
from app.events import events
from app.main import app
from app.processing import bulk
from app.processing.bulk import BulkJobs
from tests.support import databases
from tests.support.factories import DOCX_TYPE, PDF_TYPE
from tests.support.inprocess import Process
from tests.support.invariants import Ledger
from tests.support.person import Person, person, running
from tests.support.processors import LISTED
from tests.support.zygote import run


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with running(tmp_path_factory.mktemp("operators") / "var", operator_content=True, quota_jobs=3) as process:
        yield process


@pytest.fixture
def operator(process: Process) -> Person:
    return person(process, Role.OPERATOR)


@pytest.fixture
def ada(process: Process) -> Person:
    return person(process)


@pytest.fixture
def bob(process: Process) -> Person:
    return person(process)


def told(process: Process, **about: str) -> list[Any]:
    """The events with these columns, oldest first."""
    conditions = [events.c[name] == (UUID(value) if name.endswith("_id") else value) for name, value in about.items()]
    return process.write(lambda conn: conn.execute(select(events).where(*conditions).order_by(events.c.seq)).all())


def pages(operator: Person, path: str) -> list[str]:
    """The ids in a list, two at a time."""
    found, cursor = [], ""
    while True:
        page = operator.get(f"{path}{'&' if '?' in path else '?'}limit=2{cursor}")
        found += [each["id"] for each in page["items"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_documents_of_all_are_listed_by_the_owners_filters(operator: Person, ada: Person, bob: Person) -> None:
    folder = uuid4().hex
    theirs = [each.upload(folder=folder, tags=["t"], description="the quarterly figures") for each in (ada, bob, ada)]
    assert pages(operator, f"/admin/documents?folder={folder}") == theirs[::-1]
    assert pages(operator, f"/admin/documents?owner_id={ada.id}") == [theirs[2], theirs[0]]
    assert pages(operator, "/admin/documents")[:3] == theirs[::-1]
    operator.process.tick()  # they are in the index of texts
    for query in ("tag=t", "q=quarterly", "status=UPLOADED", "q=te", f"content_type={PDF_TYPE}"):
        assert pages(operator, f"/admin/documents?{query}&folder={folder}") == theirs[::-1], query
        assert pages(operator, f"/admin/documents?{query}&owner_id={bob.id}") == [theirs[1]], query
    assert pages(operator, f"/admin/documents?status=FAILED&folder={folder}") == []
    assert operator.get(f"/admin/documents?folder={folder}&count=true")["total"] == 3
    assert operator.ask("GET", "/admin/documents?sort=size").status_code == 422, "in the order of time only"
    document = operator.get(f"/admin/documents/{theirs[1]}")
    assert document == bob.get(f"/documents/{theirs[1]}")
    timeline = operator.get(f"/admin/documents/{theirs[1]}/timeline?limit=1")
    assert timeline == bob.get(f"/documents/{theirs[1]}/timeline?limit=1")


def test_jobs_of_all_are_listed_by_the_owners_filters(operator: Person, ada: Person, bob: Person) -> None:
    begun = operator.get("/admin/jobs?limit=1")["items"]
    after = f"created_after={begun[0]['created_at']}" if begun else "created_after=2020-01-01T00:00:00Z"
    failed = [operator.get(f"/admin/documents/{each.failed()}")["job_id"] for each in (ada, bob)]
    queued = [each.job(each.upload()) for each in (ada, bob)]
    for query, expected in {
        "": failed + queued,
        "&state=FAILED": failed,
        "&state=QUEUED": queued,
        "&state=SUCCEEDED": [],
        "&state=RUNNING": [],
        "&dead=true": [],
        "&dead=false": failed + queued,
        "&processor=simulated": failed + queued,
        "&processor=text": [],
        f"&owner_id={ada.id}": [failed[0], queued[0]],
        f"&owner_id={ada.id}&state=FAILED": [failed[0]],
    }.items():
        assert pages(operator, f"/admin/jobs?{after}{query}") == expected[::-1], query
        assert operator.get(f"/admin/jobs?{after}{query}&count=true")["total"] == len(expected), query
    job = operator.get(f"/admin/jobs/{queued[1]}")
    assert (job["owner_id"], job["locked_by"]) == (bob.id, None)
    assert job.items() >= bob.get(f"/jobs/{queued[1]}").items()
    assert operator.ask("GET", f"/admin/jobs/{uuid4()}").status_code == 404
    assert operator.ask("GET", "/admin/jobs/rerun").status_code == 405


def test_a_job_is_cancelled_in_the_name_of_the_operator(operator: Person, ada: Person) -> None:
    document_id = ada.upload()
    job_id = ada.job(document_id)
    assert operator.post(f"/admin/jobs/{job_id}/cancel")["state"] == "CANCELLED"
    assert ada.get(f"/documents/{document_id}")["status"] == "UPLOADED"
    assert ("job.cancelled", f"operator:{operator.id}") in ada.story(document_id)
    again = operator.ask("POST", f"/admin/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job-finished")


def test_accounts_are_found_and_changed(operator: Person, ada: Person) -> None:
    document_id = ada.upload()
    job_id = ada.job(document_id)
    [listed] = operator.get(f"/admin/accounts?search={ada.email[:20].upper()}")["items"]
    assert (listed["id"], listed["documents"], listed["live_jobs"], listed["role"]) == (ada.id, 1, 1, "user")
    assert operator.id in pages(operator, "/admin/accounts")
    path = f"/admin/accounts/{ada.id}"
    seen = operator.get(path)
    assert seen["usage"] == ada.get("/auth/me")["usage"]
    assert seen["quota"]["jobs"] == 3
    changed = operator.ask("PUT", f"{path}/quota", json={"documents": 5, "jobs": 0}).json()
    assert changed == operator.get(f"{path}/quota")
    assert (changed["quota"]["documents"], changed["quota"]["jobs"]) == (5, None)
    assert operator.ask("PATCH", path, json={"role": "operator"}).json()["role"] == "operator"
    assert ada.get("/admin/status")["version"], "it counts from the next request on"
    assert operator.ask("PATCH", path, json={"active": False, "role": "user"}).json()["active"] is False
    assert ada.ask("GET", "/auth/me").status_code == 401
    assert operator.get(f"/admin/jobs/{job_id}")["state"] == "CANCELLED"
    assert operator.ask("PATCH", path, json={"active": True}).json()["active"] is True
    assert operator.post(f"{path}/sign-out") is None
    mine = f"operator:{operator.id}"
    events_of_ada = told(operator.process, user_id=ada.id, actor=mine)
    changes = [each.event for each in events_of_ada if not each.document_id and each.event != "operator.read"]
    assert changes == [
        f"user.{each}" for each in ("quota_changed", "role_changed", "disabled", "role_changed", "enabled")
    ]
    [quota] = told(operator.process, user_id=ada.id, event="user.quota_changed")
    assert quota.data == {"limits": {"bytes": None, "documents": 5, "announced": None, "jobs": 0}}
    for method, where in (("GET", ""), ("PATCH", ""), ("GET", "/quota"), ("PUT", "/quota"), ("POST", "/sign-out")):
        assert operator.ask(method, f"/admin/accounts/{uuid4()}{where}", json={}).status_code == 404, (method, where)


@pytest.mark.parametrize("change", [{"active": False}, {"role": "user"}])
def test_operators_cannot_shut_themselves_out(operator: Person, change: dict[str, Any]) -> None:
    refused = operator.ask("PATCH", f"/admin/accounts/{operator.id}", json=change)
    assert (refused.status_code, refused.json()["code"]) == (409, "own-account")
    assert operator.get("/auth/me")["role"] == "operator"


def test_a_key_of_an_operator_brings_its_thief_no_login(operator: Person, ada: Person) -> None:
    made = operator.post("/api-keys", name="a program", scopes=["operator"])
    thief, path = replace(operator, token=made["key"]), f"/admin/accounts/{ada.id}"
    for change in ({"role": "operator"}, {"role": "user"}, {"active": True}, {"active": False, "role": "operator"}):
        refused = thief.ask("PATCH", path, json=change)
        assert (refused.status_code, refused.json()["code"]) == (403, "login-required"), change
    assert (thief.get(path)["active"], thief.get(path)["role"]) == (True, "user")
    assert thief.ask("PATCH", path, json={"active": False}).json()["active"] is False


@pytest.mark.parametrize(
    ("method", "path", "body", "by_key"),
    [
        ("PATCH", "accounts/{}", {"active": False}, False),
        ("PUT", "accounts/{}/quota", {"documents": 5}, True),
        ("POST", "jobs/rerun", {"filter": {"owner_id": "{}"}, "confirm": 1}, False),
        ("POST", "jobs/cancel", {"filter": {"owner_id": "{}"}, "confirm": 1}, True),
        ("POST", "processors/text/pause", {"reason": "why"}, False),
    ],
)
def test_a_body_that_arrives_late_does_nothing_for_somebody_demoted(
    operator: Person, ada: Person, method: str, path: str, body: dict[str, Any], *, by_key: bool
) -> None:
    ada.failed()
    ada.job(ada.upload())
    before = told(operator.process, user_id=ada.id)
    token = operator.post("/api-keys", name="k", scopes=["operator"])["key"] if by_key else operator.token
    sent = json.dumps(body).replace("{}", ada.id).encode()

    async def late() -> AsyncIterator[bytes]:
        yield sent[:5]
        with databases.engine(operator.process.services.settings.data_dir).begin() as conn:
            conn.execute(update(users).where(users.c.id == UUID(operator.id)).values(role=Role.USER))
        yield sent[5:]

    headers = [("Content-Type", "application/json")]
    url = f"/admin/{path.format(ada.id)}"
    answer = operator.process.http(method, url, token=token, content=late(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient-scope")
    assert told(operator.process, user_id=ada.id) == before
    assert not operator.process.services.alarms["paused"]()


def test_what_operators_read_is_an_event(operator: Person, ada: Person) -> None:
    document_id = ada.upload()
    job_id = ada.job(document_id)
    before = ada.story(document_id)
    document, job = {"document_id": document_id}, {"job_id": job_id}
    about_ada: dict[str, tuple[str, dict[str, Any]]] = {
        f"documents?owner_id={ada.id}&q=secret&status=PROCESSING": (
            "listAllDocuments", {"owner_id": ada.id, "status": "PROCESSING"}
        ),
        f"documents/{document_id}": ("getAnyDocument", document),
        f"documents/{document_id}/timeline": ("getAnyTimeline", document),
        f"jobs?document_id={document_id}": ("listAllJobs", document),
        f"jobs/{job_id}": ("getAnyJob", job),
        f"accounts/{ada.id}": ("getAccount", {}),
        f"accounts/{ada.id}/quota": ("getQuota", {}),
    }  # fmt: skip
    for path in (*about_ada, "documents?folder=f&tag=t", "jobs?dead=true", "accounts?search=ada", "status"):
        operator.get(f"/admin/{path}")
    assert operator.ask("GET", f"/admin/jobs/{uuid4()}").status_code == 404
    reads = told(operator.process, event="operator.read", actor=f"operator:{operator.id}")
    seen = [(each.data["operation"], each.data["filters"]) for each in reads]
    of_all = [("listAllDocuments", {}), ("listAllJobs", {"dead": True}), ("listAccounts", {})]
    assert seen == [*about_ada.values(), *of_all]
    assert [each.user_id for each in reads] == [UUID(ada.id)] * len(about_ada) + [None] * 3
    activity = ada.get("/auth/me/activity")["items"]
    assert [each["data"]["operation"] for each in activity[: len(about_ada)]] == [
        operation for operation, _ in reversed(about_ada.values())
    ]
    assert {(each["ip"], each["credential_id"]) for each in activity[: len(about_ada)]} == {(None, None)}
    assert None not in {each.ip for each in reads}, "operators see it"
    assert ada.story(document_id) == before


# --- content ---------------------------------------------------------------------------------------------------------


def reading(operator: Person, document_id: str, what: str, *reasons: str) -> httpx2.Response:
    headers = [("X-Break-Glass", reason) for reason in reasons]
    return operator.ask("GET", f"/admin/documents/{document_id}/{what}", headers=headers)


@pytest.mark.parametrize("what", ["content", "result"])
def test_content_is_read_for_a_reason_that_the_owner_sees(operator: Person, ada: Person, what: str) -> None:
    document_id = ada.upload("confidential")
    operator.process.work(UUID(ada.job(document_id, seconds=0)))
    refused = reading(operator, document_id, what)
    assert (refused.status_code, refused.json()["code"]) == (403, "break-glass-required")
    for wrong in ("x" * 201, "\u200b", " ", "a\x85b"):
        assert reading(operator, document_id, what, wrong).json()["code"] == "validation-failed"
    assert "operator.content_read" not in dict(ada.story(document_id))
    answer = reading(operator, document_id, what, "Prüfung, Fall 7")
    assert (answer.status_code, answer.content) == (200, ada.ask("GET", f"/documents/{document_id}/{what}").content)
    last = ada.get(f"/documents/{document_id}/timeline?limit=100")["items"][-1]
    assert (last["event"], last["actor"]) == ("operator.content_read", f"operator:{operator.id}")
    seen = ada.get("/auth/me/activity")["items"][0]
    assert (seen["event"], seen["data"]["filters"]) == ("operator.read", {"document_id": document_id})
    assert last["data"] == {"what": what, "reason": "Prüfung, Fall 7"}


def test_the_owner_is_told_before_a_byte_is_sent(operator: Person, ada: Person) -> None:
    document_id = ada.upload()
    storage = operator.process.services.storage

    async def broken(*_args: Any, **_options: Any) -> Any:
        assert "operator.content_read" in [each.event for each in seen()]
        raise StorageUnavailable
        yield b""

    def seen() -> list[Any]:
        return Ledger(data_dir).rows(select(events).where(events.c.document_id == UUID(document_id)))

    data_dir = operator.process.services.settings.data_dir
    with patch.object(storage, "read", broken):
        assert reading(operator, document_id, "content", "why").json()["code"] == "storage-unavailable"


@pytest.mark.parametrize("what", ["content", "result"])
def test_what_is_not_there_leaves_no_event(operator: Person, ada: Person, what: str) -> None:
    document_id = ada.upload()
    assert reading(operator, str(uuid4()), what, "why").status_code == 404
    if what == "result":
        assert reading(operator, document_id, what, "why").json()["code"] == "result-not-ready"
        assert "operator.content_read" not in dict(ada.story(document_id))


def test_content_is_closed_unless_a_setting_opens_it(tmp_path: Path) -> None:
    with running(tmp_path / "var") as process:
        operator, ada = person(process, Role.OPERATOR), person(process)
        document_id = ada.upload()
        for what in ("content", "result"):
            refused = reading(operator, document_id, what, "why")
            assert (refused.status_code, refused.json()["code"]) == (403, "break-glass-disabled")
        assert "operator.content_read" not in dict(ada.story(document_id))


# --- many jobs -------------------------------------------------------------------------------------------------------


def rerun(operator: Person, confirm: int | None = None, **given: Any) -> Any:
    return operator.post("/admin/jobs/rerun", filter=given, **({} if confirm is None else {"confirm": confirm}))


def test_jobs_are_counted_first_and_run_again_once(operator: Person, ada: Person, bob: Person) -> None:
    process = operator.process
    failed = [each.failed() for each in (ada, bob, bob)]
    bob.upload()
    process.work(UUID(bob.job(failed[2], seconds=0)))  # it has come right since
    since = {"created_after": "2020-01-01T00:00:00Z", "processor": "simulated", "dead": False}
    for owner, matching in ((ada, 1), (bob, 1)):
        counted = rerun(operator, owner_id=owner.id, **since)
        assert counted == {"matching": matching, "changed": 0, "skipped": {}, "next_cursor": None}
    assert ada.jobs(failed[0]) == ["FAILED"], "counting changes nothing"
    refused = operator.ask("POST", "/admin/jobs/rerun", json={"filter": {"owner_id": bob.id}, "confirm": 0})
    assert (refused.status_code, refused.json()["code"]) == (409, "more-jobs-match")
    for owner, document_id in ((ada, failed[0]), (bob, failed[1])):
        assert rerun(operator, 1, owner_id=owner.id)["changed"] == 1
        assert rerun(operator, 1, owner_id=owner.id) == {
            "matching": 0, "changed": 0, "skipped": {}, "next_cursor": None
        }  # fmt: skip
        assert owner.jobs(document_id) == ["QUEUED", "FAILED"]
        assert ("job.queued", f"operator:{operator.id}") in owner.story(document_id)
        latest = owner.get(f"/jobs?document_id={document_id}")["items"]
        assert latest[0]["params"] == latest[1]["params"], "it is the same work"
    assert bob.jobs(failed[2]) == ["SUCCEEDED", "FAILED"]


def test_what_a_disabled_account_has_is_not_run_again(operator: Person, ada: Person) -> None:
    ada.failed()
    for active, matching in ((False, 0), (True, 1)):
        operator.ask("PATCH", f"/admin/accounts/{ada.id}", json={"active": active})
        assert rerun(operator, owner_id=ada.id)["matching"] == matching


def test_who_has_chosen_before_others_acted_runs_nothing_twice(operator: Person, ada: Person) -> None:
    """Two calls at once: the second one's turn comes when the new job has failed, too."""
    document_id = ada.failed()
    choose, chosen = BulkJobs._chosen, list[Any]()  # noqa: SLF001 - between it and the change, anything may happen

    async def once(self: BulkJobs, *args: Any) -> Any:
        chosen.append(await choose(self, *args))
        return chosen[0]

    with patch.object(BulkJobs, "_chosen", once):
        assert rerun(operator, 1, owner_id=ada.id)["changed"] == 1
        operator.process.work(UUID(ada.get(f"/documents/{document_id}")["job_id"]))
        second = rerun(operator, 1, owner_id=ada.id)
    assert (second["changed"], second["skipped"]) == (0, {"conflict": 1})
    assert ada.jobs(document_id) == ["FAILED", "FAILED"]


def test_what_the_owner_could_not_do_is_skipped_for_the_same_reason(operator: Person, ada: Person) -> None:
    failed = [ada.failed() for _ in range(3)]
    ada.job(ada.upload())
    answer = rerun(operator, 3, owner_id=ada.id)
    assert (answer["changed"], answer["skipped"]) == (2, {"too-many-jobs": 1}), "it may have three unfinished ones"
    assert [ada.jobs(each)[0] for each in failed] == ["QUEUED", "QUEUED", "FAILED"]


def test_more_than_one_call_changes_are_left_to_the_next(
    operator: Person, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MAX_BULK", 2)
    monkeypatch.setattr(bulk, "PART", 1)
    failed = [ada.failed() for _ in range(3)]
    assert all_of(operator, "rerun", 3, owner_id=ada.id) == ([2, 1], 3)
    assert [ada.jobs(each)[0] for each in failed] == ["QUEUED"] * 3
    assert all_of(operator, "cancel", 3, owner_id=ada.id, state="QUEUED", processor="simulated") == ([2, 1], 3)
    assert [ada.jobs(each)[0] for each in failed] == ["CANCELLED"] * 3
    assert ada.get(f"/documents/{failed[0]}")["status"] == "FAILED", "as it was before"


def all_of(operator: Person, what: str, confirm: int, **given: Any) -> tuple[list[int], int]:
    """How many jobs each call changes until there are no more, and how many matched at first."""
    changed, cursor, matching = [], None, list[int]()
    while not changed or cursor:
        answer = operator.post(f"/admin/jobs/{what}", filter=given, confirm=confirm, cursor=cursor)
        changed.append(answer["changed"])
        matching.append(answer["matching"])
        cursor = answer["next_cursor"]
    return changed, matching[0]


def test_only_unfinished_jobs_are_cancelled(operator: Person, ada: Person) -> None:
    done, waiting = ada.failed(), ada.upload()
    ada.job(waiting)
    assert operator.post("/admin/jobs/cancel", filter={"owner_id": ada.id, "state": "FAILED"})["matching"] == 0
    assert operator.post("/admin/jobs/cancel", filter={"owner_id": ada.id, "state": "QUEUED"})["matching"] == 1
    assert operator.post("/admin/jobs/cancel", filter={"owner_id": ada.id}, confirm=1)["changed"] == 1
    assert (ada.jobs(done), ada.jobs(waiting)) == (["FAILED"], ["CANCELLED"])
    assert ("job.cancelled", f"operator:{operator.id}") in ada.story(waiting)


# --- processors ------------------------------------------------------------------------------------------------------


def test_a_paused_processor_begins_nothing_and_burns_no_try(tmp_path: Path) -> None:
    with running(tmp_path / "var") as process, running(tmp_path / "var") as other:
        operator, ada = person(process, Role.OPERATOR), person(process)
        texts, simulated = [ada.job(ada.upload(), "text") for _ in range(2)], ada.job(ada.upload())
        unknown = process.http("POST", "/admin/processors/scan/pause", token=operator.token, json={})
        assert unknown.status_code == 404
        assert unknown.json()["detail"].endswith(f". The processors are: {LISTED}, pipeline.")
        paused = operator.post("/admin/processors/text/pause", reason="It fills the disk.")
        assert (paused["actor"], paused["reason"]) == (f"operator:{operator.id}", "It fills the disk.")
        assert operator.post("/admin/processors/text/pause", reason="Another.")["reason"] == "It fills the disk."
        for each in (process, other):
            each.pull()
        later = ada.job(ada.upload(), "text")
        process.pull()
        waiting = [ada.get(f"/jobs/{each}") for each in (*texts, later)]
        assert [(each["state"], each["attempt"]) for each in waiting] == [("QUEUED", 0)] * 3
        assert ada.get(f"/jobs/{simulated}")["state"] == "SUCCEEDED"
        assert [each["name"] for each in ada.get("/processors")["items"] if each["paused"]] == ["text"]
        assert "It fills the disk." in process.services.alarms["paused"]()
        status = operator.get("/admin/status")
        assert [(each["processor"], each["reason"]) for each in status["paused"]] == [("text", "It fills the disk.")]
        assert operator.ask("POST", "/admin/processors/text/resume").status_code == 204
        assert operator.ask("POST", "/admin/processors/text/resume").status_code == 204
        process.work(*map(UUID, (*texts, later)))
        assert {ada.get(f"/jobs/{each}")["attempt"] for each in texts} == {1}
        assert [each.event for each in told(process, actor=f"operator:{operator.id}")] == [
            "processor.paused",
            "processor.resumed",
        ]
        for what in ("pause", "resume"):
            assert operator.ask("POST", f"/admin/processors/nope/{what}").status_code == 404


def test_a_process_that_has_not_looked_yet_claims_nothing(tmp_path: Path) -> None:
    """It does not know what is paused."""
    with running(tmp_path / "var") as process:
        ada = person(process)
        job_id = ada.job(ada.upload(), seconds=0)
        process.pull(polled=False)
        assert ada.get(f"/jobs/{job_id}")["state"] == "QUEUED"
        process.pull()
        assert ada.get(f"/jobs/{job_id}")["state"] == "SUCCEEDED"


# --- status, and the command line ------------------------------------------------------------------------------------


def test_the_status_shows_queues_processes_and_upkeep(tmp_path: Path) -> None:
    with running(tmp_path / "var") as process:
        operator, ada = person(process, Role.OPERATOR), person(process)
        ada.failed()
        held = ada.job(ada.upload())
        [claimed] = process.claim(1)
        ada.job(ada.upload(), "text")
        ada.post("/webhooks", url="https://example.com/")
        ada.upload()
        process.announce()
        process.tick()
        status = operator.get("/admin/status")
        assert (status["deliveries"]["waiting"], status["deliveries"]["under_way"]) == (1, 0)
        assert str(claimed.id) == held
        assert (status["jobs"]["FAILED"], status["jobs"]["QUEUED"], status["dead_letters"]) == (1, 1, 0)
        assert [(each["processor"], each["state"], each["jobs"]) for each in status["queues"]] == [
            ("simulated", "RUNNING", 1),
            ("text", "QUEUED", 1),
        ]
        [each] = status["processes"]
        assert (each["kind"], each["capacity"], each["attempts"]) == ("server", 64, 1)
        assert each["heartbeat_at"] >= each["started_at"][:10]
        assert "results are simulated" not in str(each["alarms"])
        assert status["database"] == ("postgresql" if databases.POSTGRESQL else "sqlite")
        assert {disk["folder"] for disk in status["disks"]["items"]} == {"data", "files"}


def test_the_same_on_the_command_line(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "var"), "LOG_LEVEL": "WARNING"}
    environment |= databases.settings(tmp_path / "var")

    def typed(*arguments: str, **options: Any) -> str:
        done = run(*arguments, **options, **environment)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    with running(tmp_path / "var") as process:
        ada = person(process)
        failed, waiting = ada.failed(), ada.upload()
        queued = ada.job(waiting, "text")
        assert failed in typed("documents", "list", "--status", "FAILED")
        assert [
            json.loads(each)["id"] for each in typed("jobs", "list", "--state", "QUEUED", "--json").splitlines()
        ] == [queued]
        for group, each in (("documents", waiting), ("jobs", queued)):
            assert json.loads(typed(group, "show", each))["owner_id"] == ada.id
        assert json.loads(typed("users", "show", ada.email))["id"] == ada.id
        assert ada.email in typed("users", "list")
        timeline = [json.loads(line) for line in typed("documents", "timeline", failed).splitlines()]
        assert [(each["event"], each["actor"]) for each in timeline] == ada.story(failed)
        assert failed not in typed("documents", "list", "--content-type", DOCX_TYPE)
        reads = [(each.data["operation"], each.user_id) for each in told(process, event="operator.read")]
        about = [(name, UUID(ada.id)) for name in ("getAnyDocument", "getAnyJob", "getAccount")]
        assert reads == [
            *(("listAllDocuments", None), ("listAllJobs", None), *about, ("listAccounts", None)),
            *(("getAnyTimeline", UUID(ada.id)), ("listAllDocuments", None)),
        ]
        operations = (each for methods in app.openapi()["paths"].values() for each in methods.values())
        assert {name for name, _ in reads} <= {each["operationId"] for each in operations}, "by the names of the API"
        assert "is on hold" in typed("documents", "hold", waiting, "--reason", "Case 117")
        assert "is not on hold" in typed("documents", "release", waiting)
        assert ada.story(waiting)[-2:] == [("document.held", "operator"), ("document.released", "operator")]
        assert waiting not in typed("documents", "list", "--trashed")
        declined = run("jobs", "rerun", stdin="n\n", **environment)
        assert (declined.returncode, "Run 1 jobs again?" in declined.stdout) == (1, True)
        assert "Jobs run again: 1; skipped: 0." in typed("jobs", "rerun", "--owner", ada.email, "--yes")
        assert ("job.queued", "operator") in ada.story(failed)
        assert "text is paused since" in typed("processors", "pause", "text", "--reason", "why")
        screen = typed("status")
        for part in (
            "text       QUEUED  1",
            "simulated  QUEUED  1",
            "by operator: why",
            "Deliveries: 0 waiting",
            "Disks",
        ):
            assert part in screen, screen
        assert "Jobs cancelled: 2" in typed("jobs", "cancel", stdin="y\n")
    wrong = run("jobs", "list", "--state", "NONE", **environment)
    assert (wrong.returncode, wrong.stderr.partition(":")[0]) == (1, "state")
