"""Whatever happens is an event of the catalogue, with the data that the catalogue says."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, select, update

from app.auth.principal import Role
from app.check.scrubber import ROUND, scrubs
from app.database import now
from app.documents.models import documents
from app.events import events
from app.events.catalogue import CATALOGUE
from app.events.failure import Failure
from app.jobs.kinds import Released, Retryable, Succeeded
from app.jobs.models import Job
from app.processing.models import results
from app.processing.publication import Product
from app.processing.results import Made
from app.processing.schemas import Provenance
from app.quotas import usage
from app.storage.local import LocalStorage
from app.upkeep import Skipped
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.invariants import Ledger
from tests.support.maker import NAMED
from tests.support.receiver import receiving
from tests.support.user import PASSWORD
from tests.support.zygote import run

ACCOUNT = {"email": "ada@example.com", "password": PASSWORD}
BY_OPERATOR = {
    *("user.disabled", "user.enabled", "user.password_changed", "user.role_changed", "user.erased"),
    *("job.cancelled", "document.status_changed", "document.deleted", "document.purged"),
    *("secrets.rotated", "usage.recounted"),
}
BY_USERS = {
    *("document.initiated", "document.uploaded", "document.upload_rejected", "document.edited", "document.deleted"),
    *("document.restored", "document.purged", "job.queued", "job.cancelled"),
    *("user.registered", "user.logged_in", "user.logged_out", "user.refresh_token_reused"),
    *("user.password_changed", "user.session_ended"),
    *("key.created", "key.rotated", "key.revoked"),
    *("webhook.created", "webhook.edited", "webhook.secret_rotated", "webhook.tested", "webhook.deleted"),
    *("webhook.redelivered", "webhook.recovered"),
    *("document.content_read", "document.file_replaced", "document.file_edited", "document.file_removed"),
}
BY_OPERATORS = {
    *("audit.read", "audit.exported", "document.held", "document.released"),
    "operator.content_read",
    "operator.read",
    "processor.paused",
    "processor.resumed",
    "user.quota_changed",
}
DELIVERIES = {"webhook.delivered", "webhook.failed", "webhook.disabled"}
TTL = 10**6  # seconds
FAILURE = Failure(code="broken", detail="It broke.")


class Life:
    """A user and a worker, who do one thing at a time."""

    def __init__(self, data_dir: Path) -> None:
        options = {
            "processors": f"simulated,{NAMED}",
            "job_max_tries": 2,
            "refresh_grace_seconds": 0,
            "audit_reads": "all",
            "operator_content": True,
            "result_ttl": TTL,
            "scrub_bytes_per_second": 10**9,
        }
        self.process = Process(data_dir, **options)
        self.token = ""
        self.post("/auth/register", json=ACCOUNT)
        self.post("/auth/login", 401, json=ACCOUNT | {"password": "not the password"})
        self.tokens = self.post("/auth/login", json=ACCOUNT)
        self.token = self.tokens["access_token"]

    def ask(self, method: str, path: str, status: int | None = None, **options: Any) -> Any:
        answer = self.process.http(method, path, token=self.token, **options)
        assert answer.status_code == status or (status is None and answer.is_success), answer.text
        return answer.json() if answer.content else None

    def post(self, path: str, status: int | None = None, **options: Any) -> Any:
        return self.ask("POST", path, status, **options)

    def upload(self) -> str:
        """The id of a new document."""
        found: str = self.post("/documents", files={"file": ("a.pdf", pdf(uuid4().hex), PDF_TYPE)})["id"]
        return found

    def start(self, **params: Any) -> UUID:
        """The id of a job for a new document."""
        body = {"params": {"seconds": 0, **params}}
        return UUID(self.post(f"/documents/{self.upload()}/process", json=body)["job"]["id"])

    def claim(self, lease: float = 30) -> Job:
        """The job that is due."""
        [job] = self.process.claim(1, lease)
        assert isinstance(job, Job)
        return job

    def announce(self, content: bytes) -> Any:
        wanted = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": len(content)}
        return self.post("/documents/initiate-upload", json=wanted)

    def send(self, content: bytes, status: int) -> None:
        """Upload directly, and expect the completion to be answered so."""
        upload = self.announce(content)
        self.ask("PUT", upload["upload_url"], content=content, kind=PDF_TYPE)
        self.post(f"/documents/{upload['document_id']}/complete-upload", status)


def live(life: Life, data_dir: Path) -> None:
    """Have everything happen that the catalogue knows."""
    life.process.work(life.start())
    life.process.work(life.start(fail="permanent"))
    make(life)
    life.post(f"/jobs/{life.start()}/cancel")
    life.start()
    life.process.settle(life.claim(), Retryable(FAILURE))
    life.start()
    released = life.claim()
    life.process.settle(released, Released())
    made = Succeeded(Product([Made(Provenance.of(released), "{}")]))
    life.process.settle(life.claim(), made)
    life.process.settle(released, made)
    life.start()
    for _ in range(2):  # its tries
        life.claim(lease=-1)
        life.process.tick()
    life.send(pdf("good"), 200)
    life.send(b"no document", 422)
    life.announce(b"never sent")
    life.process.write(expire_uploads)
    life.process.tick()
    document = f"/documents/{life.upload()}"
    replace(life, document)
    life.ask("DELETE", document)
    refresh = {"refresh_token": life.tokens["refresh_token"]}
    life.post("/auth/refresh", json={"refresh_token": life.post("/auth/refresh", json=refresh)["refresh_token"]})
    life.post("/auth/refresh", 401, json=refresh)
    life.post("/auth/logout", json={"refresh_token": life.post("/auth/login", json=ACCOUNT)["refresh_token"]})
    life.token = life.post("/auth/login", json=ACCOUNT)["access_token"]
    life.post("/auth/password", json={"current_password": PASSWORD, "new_password": PASSWORD})
    life.post("/auth/login", json=ACCOUNT)
    life.ask("DELETE", "/auth/sessions")
    key = {"name": "a program", "scopes": ["documents:read"], "expires_in": 3600}
    path = f"/api-keys/{life.post('/api-keys', json=key)['id']}"
    life.post(f"{path}/rotate")
    life.process.tick()
    life.ask("DELETE", path)
    life.process.operate(lambda accounts: accounts.set_role(ACCOUNT["email"], Role.OPERATOR))
    run_the_service(life)
    keep(life)
    tell(life)
    look_after(life, data_dir)
    life.start()
    life.process.operate(lambda accounts: accounts.disable(ACCOUNT["email"]))
    life.process.operate(lambda accounts: accounts.enable(ACCOUNT["email"]))
    life.process.operate(lambda accounts: accounts.set_password(ACCOUNT["email"], PASSWORD))
    life.process.operate(lambda accounts: accounts.erase(ACCOUNT["email"]))
    asyncio.run(LocalStorage(data_dir / "files").write_mark(f"{10**6} {uuid4()}"))
    with pytest.raises(Skipped):
        life.process.tick()


def replace(life: Life, document: str) -> None:
    """Have happen what can happen to a document and its files."""
    life.ask("PATCH", document, json={"folder": "f", "tags": ["t"]})
    life.ask("PUT", f"{document}/content", content=pdf("other"), kind=PDF_TYPE, headers=[("If-Match", "*")])
    life.ask("PATCH", f"{document}/files/1", json={"label": "first"})
    life.ask("DELETE", f"{document}/files/1")


def make(life: Life) -> None:
    """Have documents made, and stages run."""
    params: list[Any] = [{"seconds": 0}, {"seconds": 0, "fail": "permanent"}]
    stages = [{"pipeline": ["simulated"], "params": {"simulated": each}} for each in params]
    for each in ({"processor": "maker", "params": {"documents": 1}}, *stages):
        job = life.post(f"/documents/{life.upload()}/process", json=each)["job"]
        life.process.work(UUID(job["id"]))


def run_the_service(life: Life) -> None:
    """Have happen what operators do."""
    read = f"/documents/{life.upload()}/content"
    assert life.process.http("GET", read, token=life.token).status_code == 200
    reason = [("X-Break-Glass", "The owner asked for it.")]
    assert life.process.http("GET", f"/admin{read}", token=life.token, headers=reason).status_code == 200
    for what in ("pause", "resume"):
        life.post(f"/admin/processors/simulated/{what}")
    me = life.ask("GET", "/auth/me")["id"]
    life.ask("PUT", f"/admin/accounts/{me}/quota", json={"jobs": 100})
    life.ask("GET", f"/admin/accounts/{me}")
    life.ask("GET", "/audit")
    assert life.process.http("GET", "/audit/export", token=life.token).status_code == 200


def keep(life: Life) -> None:
    """Have happen what becomes of documents afterwards."""
    path = f"/documents/{life.upload()}"
    life.ask("DELETE", path)
    life.post(f"{path}/restore")
    life.ask("PUT", f"{path}/hold", json={"reason": "Case 117"})
    life.ask("DELETE", f"{path}/hold")
    life.ask("DELETE", f"{path}?permanent=true")
    life.process.work(life.start())
    life.process.write(lambda conn: conn.execute(update(results).values(created_at=now(-2 * TTL))))
    life.process.tick()


def tell(life: Life) -> None:
    """Have happen what webhooks do."""
    with receiving() as receiver:
        path = f"/webhooks/{life.post('/webhooks', json={'url': receiver.url})['id']}"
        life.ask("PATCH", path, json={"description": "of the tests"})
        life.post(f"{path}/rotate-secret")
        life.post(f"{path}/test")
        life.process.deliver()
        receiver.answers = [410]
        life.upload()
        life.process.deliver()
        life.ask("PATCH", path, json={"state": "ACTIVE"})
        today = datetime.now(UTC)
        span = {"since": today - timedelta(days=1), "until": today + timedelta(days=1)}
        life.post(f"{path}/recover", json={name: moment.isoformat() for name, moment in span.items()})
        life.post(f"{path}/deliveries/{life.ask('GET', f'{path}/deliveries')['items'][0]['id']}/redeliver")
        life.ask("DELETE", path)


def look_after(life: Life, data_dir: Path) -> None:
    """Have happen what the scrubber and the check find."""
    lost, long_ago = life.upload(), now(-2 * ROUND)
    (data_dir / "files" / "documents" / lost[-2:] / lost).unlink()
    life.process.write(lambda conn: conn.execute(update(scrubs).values(began_at=long_ago, completed_at=long_ago)))
    life.process.tick()
    life.process.write(lambda conn: conn.execute(update(usage).values(bytes=1)))
    done = run("check", "--repair", DATA_DIR=str(data_dir), **databases.settings(data_dir))
    assert done.returncode == 1, done.stderr


def expire_uploads(conn: Connection) -> None:
    conn.execute(update(documents).where(documents.c.status == "INITIATED").values(upload_expires_at=now(-10_000)))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row[Any]]:
    """What was recorded of a whole life."""
    data_dir = tmp_path_factory.mktemp("life") / "var"
    life = Life(data_dir)
    live(life, data_dir)
    life.process.kill()
    assert run("rotate-secrets", DATA_DIR=str(data_dir), **databases.settings(data_dir)).returncode == 0
    return Ledger(data_dir).rows(select(events).order_by(events.c.seq))


def test_every_event_is_of_the_catalogue(rows: list[Row[Any]]) -> None:
    for row in rows:
        read = TypeAdapter(CATALOGUE[row.event]).validate_json(json.dumps(row.data), strict=True)
        assert list(read.data.items()) == list(row.data.items()), row
    assert {row.event for row in rows} == set(CATALOGUE), "each has happened"


def test_every_event_says_who_acted_and_for_which_request(rows: list[Row[Any]]) -> None:
    began = {row.job_id: row.request_id for row in rows if row.event == "job.queued"}
    assert None not in began.values()
    operated = set[str]()
    for row in rows:
        if row.actor == "operator":
            assert row.request_id is None
            operated.add(row.event)
        elif row.event in BY_USERS and not (row.event == "document.uploaded" and row.job_id):
            assert row.actor in {f"user:{row.user_id}", f"operator:{row.user_id}"}
            assert row.request_id
        elif row.event == "user.login_failed":
            assert (row.actor, bool(row.user_id), bool(row.request_id)) == ("anonymous", True, True)
        elif row.event in BY_OPERATORS:
            assert re.fullmatch("(operator|user):[0-9a-f-]{36}", row.actor)
            assert row.request_id
        elif row.event == "document.status_changed" or row.event in DELIVERIES:
            assert row.request_id
        else:
            assert row.actor.startswith("worker:")
            assert row.request_id == began.get(row.job_id)
    assert operated == BY_OPERATOR
    cancelled = [row.request_id for row in rows if row.event == "job.cancelled"]
    assert cancelled == [row.request_id for row in rows if row.data == {"old": "PROCESSING", "new": "UPLOADED"}]
    assert not set(cancelled) & set(began.values()), "a cancellation is a request of its own"
