"""Whatever the service executes finds its rows by an index, so nothing becomes slow with a million of them.

SQLite plans by the schema alone: what it would do with a million rows it says of an empty table. PostgreSQL plans by
statistics, so here it has enough rows to prefer an index.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event

from app import events, quotas
from app.accounts.service import Accounts
from app.audit import verify
from app.auth import sessions
from app.auth.principal import Role
from app.database import metadata, statements
from app.database.statements import execute
from app.documents import activity, listing
from app.documents.file_versions import sql as file_versions
from app.documents.models import documents as documents_table
from app.documents.schemas import Filters
from app.files import repository as files
from app.jobs import claims, repository
from app.jobs.models import jobs as jobs_table
from app.main import create_app
from app.operators import workload
from app.processing import kind, previous
from app.processing.bulk_schemas import CancelFilter, CancelRequest, RerunFilter, RerunRequest
from app.settings import Settings
from app.webhooks import repository as repository_of_webhooks
from app.webhooks.models import DeliveryState, deliveries
from tests.benchmarks import growth_rows
from tests.support import databases, elsewhere, maker
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.user import PASSWORD

ACCOUNT = {"email": "ada@example.com", "password": PASSWORD}
SORTS = ("-created_at", "filename", "size")
FILTERS = (
    "",
    "status=FAILED",
    "folder=f",
    "tag=t",
    f"sha256={'0' * 64}",
    f"content_type={PDF_TYPE}",
    "q=report",
    f"parent_id={UUID(int=0)}",
    "created_after=2026-01-01T00:00:00Z&created_before=2026-01-02T00:00:00Z",
    "status=COMPLETED&folder=f&tag=t&q=r",
)
JOB_FILTERS = ("", "state=QUEUED", "dead=true", "dead=false", "state=FAILED&dead=true")

ALL_JOB_FILTERS = ("state=RUNNING", "state=FAILED", "state=SUCCEEDED", "processor=text", "state=CANCELLED&dead=false")

# Tables of a few rows.
SMALL = {
    f"{prefix}{table}{suffix}"
    for table in ("chores", "pauses", "processes", "scrubs")
    for prefix, suffix in (("", ""), ("sqlite_autoindex_", "_1"))
}
# A page of the list of all is read in the order of time, or found by a state that few have, and sorted.
DOCUMENTS_IN_ORDER = {"ix_documents_created_at_id", "ix_documents_held", "unindexed_documents"}
DOCUMENTS_BY_ANY_INDEX = {documents_table.name, *(str(index.name) for index in documents_table.indexes)}
JOBS_BY_ANY_INDEX = {jobs_table.name, "sqlite_autoindex_jobs_1", *(str(index.name) for index in jobs_table.indexes)}
JOBS_IN_ORDER = {
    "ix_jobs_created_at_id",
    "ix_jobs_all_dead",
    "ix_jobs_unsuccessful",
    "ix_jobs_held",
    "ix_jobs_due",
    "ix_jobs_live",
}

# What is read from end to end, and by whom: to count a million rows takes 0.1 s, and is not done all the time; running
# jobs are few; all that is queued is looked through once a minute.
SCANNED = {
    "GET /metrics": {
        "documents",
        "jobs",
        "ix_documents_status",
        "ix_jobs_ended",
        "ix_jobs_all_dead",
        "ix_jobs_dead",
        "ix_jobs_due",
        "ix_jobs_held",
        "ix_jobs_owner_id_state_created_at_id",
    },
    "GET /admin/status": {
        "jobs",
        "ix_jobs_ended",
        "ix_jobs_all_dead",
        "ix_jobs_dead",
        "ix_jobs_due",
        "ix_jobs_held",
        "ix_jobs_owner_id_state_created_at_id",
    },
    "GET /admin/documents": DOCUMENTS_IN_ORDER,
    "GET /admin/jobs": JOBS_IN_ORDER,
    "POST /admin/jobs/cancel": JOBS_IN_ORDER,
    "POST /admin/jobs/rerun": JOBS_IN_ORDER,
    "GET /admin/documents searched": {*DOCUMENTS_IN_ORDER, documents_table.name, "document_texts"},
    "GET /admin/jobs searched": {*JOBS_IN_ORDER, jobs_table.name},
    # To count, all are read, if only in some index.
    "GET /admin/documents counted": {*DOCUMENTS_IN_ORDER, *DOCUMENTS_BY_ANY_INDEX, "document_texts"},
    "GET /admin/jobs counted": {*JOBS_IN_ORDER, *JOBS_BY_ANY_INDEX},
    "GET /admin/accounts": {"users", "sqlite_autoindex_users_1"},
    "GET /documents": {"unindexed_documents"},  # what came in the last seconds and waits for the index of texts
    # In the order of the index, up to a limit; of the seals no more than have so many events.
    "the console": {*JOBS_IN_ORDER, "sqlite_autoindex_audit_seals_1"},
    "the console, counting up to ten": {"documents"},  # which are there at once, if most of all are the owner's
    # The users by a part of the address, in the order of the ids; one document that waits for the index is enough.
    "the operator": {"users", "sqlite_autoindex_users_1", "unindexed_documents"},
    # Once an hour, the keys of each account are counted; the sort is of a batch that gets its turns.
    "the upkeep": {
        *("ix_jobs_held", "ix_jobs_due", "ix_jobs_queued", "a sort"),
        "unindexed_documents",  # one of which is enough
        "ix_audit_seals_kept",  # as above
        # Once an hour, to add up the sizes, and for those that belong to no document.
        *("ix_stage_results_last_used_at_size", "stage_results"),
        "events",  # from the end, for unsigned ones, until there is a seal
        *("idempotency_keys", "pk_idempotency_keys", "sqlite_autoindex_idempotency_keys_1"),
    },
    "POST /remote/{id}/claim": {"a sort"},  # of the one that it may claim
    "the runner": {"a sort"},  # of as many jobs as it may claim, or of such a batch
    "GET /documents/{id}/result": {"a sort"},  # of the results of one document
    "GET /documents/{id}/results": {"a sort"},
    "GET /admin/documents/{id}/result": {"a sort"},
}
PEOPLE = """
INSERT INTO users (id, email, password_hash, active, created_at)
    SELECT gen_random_uuid(), n, 'x', true, now() FROM generate_series(1, 20000) n;
INSERT INTO files (id, key, content_type, size, created_at) SELECT id, id, 'x', 1, now() FROM users;
INSERT INTO token_families (id, user_id, expires_at) SELECT gen_random_uuid(), id, now() + '1 day' FROM users;
INSERT INTO refresh_tokens (id, family_id, parent_id, token_hash, expires_at)
    SELECT gen_random_uuid(), id, gen_random_uuid(), sha256(id::text::bytea), expires_at FROM token_families;
INSERT INTO usage (user_id, bytes, documents, announced) SELECT id, 1, 1, 0 FROM users ON CONFLICT DO NOTHING;
INSERT INTO quotas (user_id, bytes) SELECT id, 1000000000 FROM users;
INSERT INTO login_attempts (key, failures, until, expires_at)
    SELECT sha256(id::text::bytea), 1, now(), now() + '1 day' FROM users;
INSERT INTO api_keys (id, owner_id, name, scopes, prefix, created_at, expires_at)
    SELECT gen_random_uuid(), id, 'x', '[]', 'x', now(), now() + '90 days' FROM users;
INSERT INTO api_key_secrets (hash, key_id, last4, created_at)
    SELECT sha256(id::text::bytea), id, 'x', now() FROM api_keys;
INSERT INTO audit_seals (id, from_seq, to_seq, count, unsigned_to, digest, previous, key_id, mac, sealed_at)
    SELECT n, n, n, 1, 0, '', '', '', '', now() FROM generate_series(1000000, 1020000) n;
INSERT INTO stage_results (key, owner_id, input_sha256, data, size, length, created_at, last_used_at)
    SELECT encode(sha256(id::text::bytea), 'hex'), id, 'x', '{}', 2, 2, now(), now() + '1 day' FROM users;
INSERT INTO documents (id, owner_id, filename, content_type, size, status, version, tags, created_at, updated_at)
    SELECT id, id, 'x', 'x', 1, 'UPLOADED', 1, '[]', now(), now() FROM users;
INSERT INTO document_results (document_id, processor, job_id, processor_version, params, input_sha256, data, created_at)
    SELECT id, 'x', id, 'x', '{}', 'x', '{}', now() FROM users;
INSERT INTO result_files (document_id, processor, number, name, owner_id, file_id, size)
    SELECT id, 'x', 1, 'x', id, id, 1 FROM users;
INSERT INTO previous_files (document_id, number, owner_id, file_id, filename, content_type, size, sha256, keep,
    stored_at, replaced_at) SELECT id, 1, id, id, 'x', 'x', 1, 'x', false, now(), now() FROM users;
INSERT INTO previous_results (document_id, file_number, processor, owner_id, job_id, processor_version, params,
    input_sha256, data, created_at) SELECT id, 1, 'x', id, id, 'x', '{}', 'x', '{}', now() FROM users;
INSERT INTO previous_result_files (document_id, file_number, processor, number, name, owner_id, file_id, size)
    SELECT id, 1, 'x', 1, 'x', id, id, 1 FROM users;
INSERT INTO idempotency_keys (user_id, key, expires_at) SELECT id, 'key', now() + '1 day' FROM users;
INSERT INTO webhook_endpoints (id, owner_id, url, state, secret, version, created_at, updated_at)
    SELECT gen_random_uuid(), id, 'x', 'ACTIVE', 'x', 1, now(), now() FROM users;
INSERT INTO webhook_messages (event_id, owner_id, type, body, created_at)
    SELECT gen_random_uuid(), id, 'document.uploaded', 'x', now() FROM users;
INSERT INTO webhook_deliveries (id, endpoint_id, event_id, "trigger", state, created_at)
    SELECT gen_random_uuid(), e.id, m.event_id, 'recovery', 'PENDING', now()
    FROM webhook_endpoints e JOIN webhook_messages m USING (owner_id) WHERE m.body = 'x';
INSERT INTO webhook_attempts (delivery_id, fence, at, url)
    SELECT id, 1, now(), 'x' FROM webhook_deliveries WHERE "trigger" = 'recovery';
"""

# Without these all that one user has would be read, which a plan shows as a search like any other.
NEEDED = {
    "ix_documents_owner_id_created_at_id",
    "ix_documents_owner_id_folder_created_at_id",
    "ix_documents_owner_id_sha256_created_at_id",
    "ix_documents_owner_id_status_created_at_id",
    "ix_documents_parent",
    "ix_documents_created_at_id",
    "ix_events_account",
    "ix_events_document_id_seq",
    "ix_events_user_id_seq",
    "ix_jobs_all_dead",
    "ix_jobs_created_at_id",
    "ix_jobs_dead",
    "ix_jobs_live",
    "ix_jobs_turn",
    "ix_jobs_unsuccessful",
    "ix_webhook_deliveries_event_id_endpoint_id",
}

Statements = dict[tuple[str, str], Any]


class Driver:
    """Has one process do all that it can do, and records every statement by whom it is for."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.process = Process(
            data_dir,
            lease_seconds=1,
            operator_content=True,
            processors=f"simulated,text,{maker.NAMED}",
            remote_processors=elsewhere.described(data_dir.parent, {"cut": elsewhere.STATED["cut"]}),
        )
        self.statements: Statements = {}
        self.cause = "the start"
        event.listen(Engine, "before_cursor_execute", self.record)
        self.prepared = patch.object(statements, "execute", self.execute)
        self.prepared.start()
        self.ask("POST", "/auth/register", json=ACCOUNT)
        self.tokens = self.ask("POST", "/auth/login", json=ACCOUNT)
        self.owner = UUID(self.ask("GET", "/auth/me")["id"])

    def close(self) -> None:
        event.remove(Engine, "before_cursor_execute", self.record)
        self.prepared.stop()
        self.process.kill()

    def ask(self, method: str, path: str, **options: Any) -> Any:
        self.cause = f"{method} {_template(path)}"
        if path.startswith("/admin/"):
            self.cause += _manner(path)
        token = options.pop("token", getattr(self, "tokens", {}).get("access_token", ""))
        token = "" if path.startswith("/uploads") else token
        answer = self.process.http(method, path, token=token, **options)
        assert answer.is_success, (self.cause, answer.text)
        return answer.json() if answer.headers.get("content-type") == "application/json" else None

    def sweep(self) -> None:
        self.cause = "the upkeep"
        self.process.tick()
        self.process.write(files.known, ["documents/x"])
        self.process.write(repository.idle, ["process/cut@3"])
        self.process.write(claims.overdue, "process/cut@3", 0.0, 100)

    def work(self, job_id: str) -> None:
        self.cause = "the runner"
        with patch.object(kind, "uniform", lambda _low, _high: 0.0):  # what fails is tried again at once
            self.process.work(UUID(job_id))
        self.process.write(repository.finished, [UUID(job_id)])

    def execute(self, conn: Connection, sql: str, parameters: list[Any]) -> sqlite3.Cursor:
        """As `statements.execute`."""
        self.note(sql, tuple(parameters))
        return execute(conn, sql, parameters)

    def record(self, *execution: Any) -> None:
        _conn, _cursor, sql, parameters, _context, many = execution
        self.note(sql, parameters[0] if many else parameters)

    def note(self, sql: str, parameters: Any) -> None:
        if (
            self.cause
            and sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"))
            and "alembic_version" not in sql
        ):
            self.statements[self.cause, sql] = parameters


def _manner(path: str) -> str:
    """How what all have is read: some filters have an index only together with an owner."""
    if "count=true" in path:
        return " counted"
    slow = re.search(r"[?&](folder|tag|sha256|content_type|q|processor)=", path) and "owner_id" not in path
    return " searched" if slow else ""


def _template(path: str) -> str:
    return re.sub(
        r"[0-9a-f]{8}-[0-9a-f-]{27}|{\w+}|simulated|maker|cut|0\.bin|(?<=files/|pages/|nputs/|tputs/)\d+",
        "{id}",
        path.partition("?")[0],
    )


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path / "var")
    yield driver
    driver.close()


def document(driver: Driver, text: str, **options: Any) -> str:
    """The id of a new one."""
    form = {"files": {"file": ("a.pdf", pdf(text), PDF_TYPE)}, "data": {"metadata": json.dumps({"tags": ["t"]})}}
    found: str = driver.ask("POST", "/documents", **form, **options)["id"]
    return found


def accepted(driver: Driver, document_id: str, key: str | None = None, **params: Any) -> str:
    """The id of its job."""
    body = {"params": {"seconds": 0} | params, "force": True}
    found: str = driver.ask("POST", f"/documents/{document_id}/process", json=body, key=key)["job"]["id"]
    return found


def live(driver: Driver) -> None:
    """Every operation of the API, every end of a job, and all that is swept."""
    first = document(driver, "first", key="upload")
    document(driver, "first", key="upload")
    job = accepted(driver, first, "process", seconds=0.5)
    driver.work(job)
    for path in ("", "/content", "/timeline", "/timeline?limit=1", "/result", "/results", "/results/simulated"):
        driver.ask("GET", f"/documents/{first}{path}")
    driver.ask("GET", f"/documents/{first}/pages/1.png")
    driver.cause = "GET /events"
    driver.process.write(partial(events.of_owner, owner_id=driver.owner, after=0, upto=10**6, limit=100))
    driver.process.write(events.owner_of, events.Reference(1, driver.owner))
    driver.cause = "the console"
    driver.process.write(listing.by_status, driver.owner)
    driver.cause = "the console, counting up to ten"
    driver.process.write(listing.count_up_to, driver.owner, Filters(), 10)
    driver.cause = "the console"
    driver.process.write(listing.some, driver.owner, [UUID(first), driver.owner])
    driver.process.write(events.latest_of, UUID(first), 500)
    browser = driver.process.write(sessions.begin_in_browser, driver.owner, driver.process.services.settings)
    driver.process.write(sessions.of_cookie, browser.cookie, driver.process.services.settings)
    driver.process.write(sessions.use_in_browser, browser.session_id, driver.process.services.settings)
    driver.ask("PATCH", f"/documents/{first}", json={"tags": ["u"], "folder": "f"})
    driver.ask("GET", f"/jobs/{job}")
    driver.work(accepted(driver, first, fail="permanent"))
    driver.work(accepted(driver, first, fail="transient"))
    second = document(driver, "second")
    driver.ask("POST", f"/jobs/{accepted(driver, second)}/cancel")
    accepted(driver, second)
    driver.cause = "the runner"
    assert driver.process.claim(1, lease=-1.0)
    driver.sweep()
    third = document(driver, "third")
    stages = {"pipeline": ["simulated"], "params": {"simulated": {"seconds": 0}}}
    for force in ("last", True):
        body = stages | {"force": force}
        driver.work(driver.ask("POST", f"/documents/{third}/process", json=body)["job"]["id"])
    driver.sweep()
    replace(driver, third)
    throw_away(driver, third)
    for chosen in ({"document_ids": [first, second]}, {"filter": {"folder": "f"}}):
        driver.ask("POST", "/documents/process-batch", json={"params": {"seconds": 0}} | chosen, key=str(chosen)[:40])
    make(driver, document(driver, "made into others"))
    make_elsewhere(driver, document(driver, "made elsewhere"))
    upload_directly(driver)
    tell(driver)
    for path in ("/livez", "/readyz", "/metrics"):
        driver.ask("GET", path)
    pair = driver.ask("POST", "/auth/refresh", json={"refresh_token": driver.tokens["refresh_token"]})
    driver.ask("POST", "/auth/logout", json={"refresh_token": pair["refresh_token"]})
    keep_the_account(driver)
    keep_keys(driver)
    driver.sweep()
    operate(driver)
    audit(driver, first)


def make(driver: Driver, document_id: str) -> None:
    """Documents, and files of a result."""
    wanted = {"documents": 1, "files": 1, "then": {"processor": "simulated", "params": {"seconds": 0}}}
    body = {"processor": "maker", "params": wanted}
    driver.work(driver.ask("POST", f"/documents/{document_id}/process", json=body)["job"]["id"])
    for path in ("/children", "/results/maker/files", "/results/maker/files/0.bin"):
        driver.ask("GET", f"/documents/{document_id}{path}")


def make_elsewhere(driver: Driver, document_id: str) -> None:
    """Every call of a worker."""
    driver.process.operate(lambda accounts: accounts.set_role(ACCOUNT["email"], Role.OPERATOR))
    driver.sweep()
    for path in ("/remote/cut/claim", "/remote/jobs/{}/claim"):
        wanted = {"processor": "cut", "params": {}, "force": True}
        job_id = driver.ask("POST", f"/documents/{document_id}/process", json=wanted)["job"]["id"]
        held = driver.ask("POST", path.format(job_id), json={"worker": "w"})
        here, token = f"/remote/jobs/{job_id}", held["token"]
        driver.ask("POST", f"{here}/heartbeat", json={}, token=token)
        driver.ask("GET", f"{here}/inputs/0", token=token)
        for _ in range(2):
            driver.ask("PUT", f"{here}/outputs/0?name=a&document=true", content=elsewhere.part(0), token=token)
        if path.endswith("cut/claim"):
            said = {"data": {"parts": 1}, "outputs": [{"number": 0}]}
            driver.ask("POST", f"{here}/complete", json=said, token=token)
        else:
            driver.ask("GET", f"{here}/results/cut", token=token)
            driver.ask("POST", f"{here}/release", token=token)
            held = driver.ask("POST", path.format(job_id), json={"worker": "w"})
            said = {"code": "c", "detail": "d"}
            driver.ask("POST", f"{here}/fail", json=said, token=held["token"])
    driver.process.operate(lambda accounts: accounts.set_role(ACCOUNT["email"], Role.USER))


def replace(driver: Driver, document_id: str) -> None:
    """Files, with what was made of them, by all ways; and what becomes of those before."""
    path, any_version = f"/documents/{document_id}", [("If-Match", "*")]
    driver.work(driver.ask("POST", f"{path}/process", json={"processor": "maker", "params": {"files": 1}})["job"]["id"])
    for text in ("one", "two"):
        driver.ask("PUT", f"{path}/content", content=pdf(text), kind=PDF_TYPE, headers=any_version, key=text)
    sent = {"document_id": upload_directly(driver, "to be another's")}
    driver.ask("PUT", f"{path}/content", json=sent, headers=any_version)
    driver.ask("POST", f"{path}/files/1/restore")
    for where in ("files", "files?limit=1", "content?file=1", "result?file=1", "results?file=1"):
        driver.ask("GET", f"{path}/{where}")
    for where in ("", "/files", "/files/0.bin"):
        driver.ask("GET", f"{path}/results/maker{where}?file=1")
    for number in (1, 5):
        driver.ask("PATCH", f"{path}/files/{number}", json={"label": "a"})
    driver.cause = "of the release before"
    driver.process.write(partial(file_versions.numbers, documents_of={"documents/x": UUID(document_id)}))
    driver.cause = "GET a result that is gone"
    driver.process.write(partial(previous.had_result, document_id=UUID(document_id), number=1))
    driver.ask("DELETE", f"{path}/files/1")
    driver.sweep()


def throw_away(driver: Driver, document_id: str) -> None:
    """Into the trash and out of it, and for good."""
    driver.ask("DELETE", f"/documents/{document_id}")
    for query in ("", "&count=true", "&folder=f", "&sort=size"):
        driver.ask("GET", f"/documents?trashed=true{query}")
    driver.ask("POST", f"/documents/{document_id}/restore")
    driver.ask("PATCH", f"/documents/{document_id}", json={"expires_at": "2026-01-01T00:00:00Z"})
    driver.sweep()
    driver.ask("DELETE", f"/documents/{document_id}?permanent=true")
    driver.ask("DELETE", f"/documents/{document(driver, 'thrown away')}")
    driver.ask("DELETE", "/trash")


def tell(driver: Driver) -> None:
    """Webhooks that are told, fail, recover, and are told again."""
    body = {"url": "http://127.0.0.1:1024"}
    path = f"/webhooks/{driver.ask('POST', '/webhooks', json=body, key='webhook')['id']}"
    driver.ask("PATCH", path, json={"event_types": ["document.uploaded"]})
    for text in ("told", "told again"):
        document(driver, text)
        driver.cause = "the runner"
        driver.process.deliver()
    driver.ask("POST", f"{path}/rotate-secret")
    delivery = driver.ask("POST", f"{path}/test")["id"]
    told = [UUID(each["event_id"]) for each in driver.ask("GET", f"{path}/deliveries")["items"]]
    driver.cause = "the console"
    about = repository_of_webhooks.about(driver.owner, (told * 100)[:100], 20)
    assert driver.process.write(lambda conn: conn.execute(about).all())
    for method, where in (
        *(("GET", each) for each in ("/webhooks", "/webhooks?limit=1", path, f"{path}/deliveries/{delivery}")),
        *(("GET", f"{path}/deliveries?{each}") for each in ("limit=1", "state=PENDING", "type=ping")),
        ("POST", f"{path}/deliveries/{delivery}/redeliver"),
    ):
        driver.ask(method, where)
    event_id = UUID(driver.ask("GET", f"{path}/deliveries/{delivery}")["event_id"])
    driver.cause = "the console"
    driver.process.write(repository_of_webhooks.message_of, event_id)
    cursor = driver.ask("GET", f"{path}/deliveries?limit=1")["next_cursor"]
    driver.ask("GET", f"{path}/deliveries?cursor={cursor}")
    driver.cause = ""
    driver.process.write(lambda conn: conn.execute(deliveries.update().values(state=DeliveryState.FAILED)))
    now = datetime.now(UTC)
    span = {"since": (now - timedelta(days=1)).isoformat(), "until": (now + timedelta(days=1)).isoformat()}
    assert driver.ask("POST", f"{path}/recover", json=span)["deliveries"]
    driver.ask("PATCH", path, json={"state": "ACTIVE"})
    driver.ask("POST", "/webhooks", json=body)
    driver.ask("DELETE", path)


def keep_the_account(driver: Driver) -> None:
    form = {"username": ACCOUNT["email"], "password": PASSWORD}
    driver.ask("POST", "/auth/token", data=form)
    driver.tokens = driver.ask("POST", "/auth/token", data=form)
    sessions = driver.ask("GET", "/auth/sessions")["items"]
    driver.ask("GET", f"/auth/sessions?cursor={driver.ask('GET', '/auth/sessions?limit=1')['next_cursor']}")
    driver.ask("DELETE", f"/auth/sessions/{next(each['id'] for each in sessions if not each['current'])}")
    driver.ask("POST", "/auth/password", json={"current_password": PASSWORD, "new_password": PASSWORD})
    driver.ask("DELETE", "/auth/sessions")


def keep_keys(driver: Driver) -> None:
    wanted = {"name": "a program", "scopes": ["documents:read"], "expires_in": 3600}
    first, second = (driver.ask("POST", "/api-keys", json=wanted, key=str(number)) for number in range(2))
    driver.ask("GET", f"/api-keys?cursor={driver.ask('GET', '/api-keys?limit=1')['next_cursor']}")
    driver.ask("GET", f"/api-keys/{first['id']}")
    for _ in range(2):
        driver.ask("POST", f"/api-keys/{first['id']}/rotate", json={"previous_valid_for": 0})
    driver.tokens, tokens = {"access_token": second["key"]}, driver.tokens
    driver.ask("GET", "/documents")
    driver.tokens = tokens
    driver.ask("DELETE", f"/api-keys/{first['id']}")


def operate(driver: Driver) -> None:
    driver.ask("POST", "/auth/register", json=ACCOUNT | {"email": "bob@example.com"})
    driver.cause = "the operator"

    async def listed(accounts: Accounts) -> None:
        assert [account async for account in accounts.find("bob")]

    driver.process.operate(listed)
    oversee(driver)
    for work in (Accounts.enable, Accounts.disable, Accounts.sign_out, Accounts.revoke_keys, Accounts.erase):
        driver.process.operate(lambda accounts, work=work: work(accounts, "bob@example.com"))


def oversee(driver: Driver) -> None:
    """Every call of operators."""
    driver.process.operate(lambda accounts: accounts.set_role(ACCOUNT["email"], Role.OPERATOR))
    driver.process.announce()
    driver.ask("POST", "/auth/register", json=ACCOUNT | {"email": "carol@example.com"})
    driver.ask("GET", "/admin/status")
    failed = document(driver, "fails")
    driver.work(accepted(driver, failed, fail="permanent"))
    for path in ("", "/timeline", "/content", "/result"):
        read = failed if path != "/result" else document(driver, "done")
        if path == "/result":
            driver.work(accepted(driver, read))
        driver.ask("GET", f"/admin/documents/{read}{path}", headers=[("X-Break-Glass", "a test")])
    for method, body in (("PUT", {"json": {"reason": "a test"}}), ("DELETE", {})):
        driver.ask(method, f"/documents/{failed}/hold", **body)
    driver.ask("GET", "/admin/documents?trashed=true")
    driver.ask("GET", "/admin/documents?held=true")
    driver.ask("GET", "/documents?held=true&sort=size")
    driver.ask("POST", "/admin/jobs/rerun", json={"filter": {"dead": False}, "confirm": 100})
    job = accepted(driver, document(driver, "cancelled"))
    driver.ask("GET", f"/admin/jobs/{job}")
    driver.ask("POST", f"/admin/jobs/{job}/cancel")
    accepted(driver, document(driver, "cancelled, too"))
    for given in ({}, {"state": "QUEUED"}, {"owner_id": str(driver.owner)}):
        driver.ask("POST", "/admin/jobs/cancel", json={"filter": given, "confirm": 100})
    accepted(
        driver, document(driver, "waits")
    )  # of an index of unfinished jobs, PostgreSQL has to know that it has some
    for what in ("pause", "resume"):
        driver.ask("POST", f"/admin/processors/simulated/{what}")
    bob = driver.ask("GET", "/admin/accounts?search=bob")["items"][0]["id"]
    driver.ask("GET", f"/admin/accounts/{bob}")
    driver.ask("PATCH", f"/admin/accounts/{bob}", json={"active": True, "role": "operator"})
    driver.ask("POST", f"/admin/accounts/{bob}/sign-out")
    for method in ("GET", "PUT"):
        driver.ask(method, f"/admin/accounts/{bob}/quota", **({"json": {}} if method == "PUT" else {}))
    driver.cause = "the operator"


def watch(driver: Driver) -> None:
    """What only pages of the console ask, most of them those of operators."""
    driver.cause = "the console"
    for owner_id in (driver.owner, None):
        for asked in (
            RerunRequest(filter=RerunFilter(owner_id=owner_id)),
            CancelRequest(filter=CancelFilter(owner_id=owner_id)),
        ):
            driver.process.operate(lambda _, asked=asked: driver.process.services.bulk.count(asked))
    driver.process.write(sessions.alive, [UUID(int=0)])
    driver.process.write(workload.held)
    with patch.object(workload, "RECENT_EVENTS", 500):  # as few among all as there are of a million
        driver.process.write(workload.records)
    driver.process.write(quotas.own, driver.owner)
    driver.process.write(partial(verify.latest, most=100))


def audit(driver: Driver, document_id: str) -> None:
    driver.ask("GET", f"/auth/me/activity?cursor={driver.ask('GET', '/auth/me/activity?limit=1')['next_cursor']}")
    driver.cause = ""
    driver.process.operate(lambda accounts: accounts.set_role(ACCOUNT["email"], Role.OPERATOR))
    cursor = driver.ask("GET", "/audit?limit=1")["next_cursor"]
    times = "since=2026-01-01T00:00:00Z&until=2999-01-01T00:00:00Z"
    for query in (f"document_id={document_id}", f"user_id={driver.owner}&event=user.logged_in&ip=127.0.0.1", times):
        driver.ask("GET", f"/audit?{query}")
        driver.ask("GET", f"/audit?{query}&cursor={cursor}")
        driver.ask("GET", f"/audit/export?{query}")


def upload_directly(driver: Driver, text: str = "direct") -> str:
    """The id of a new document."""
    content = pdf(text)
    announced = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": len(content)}
    announced["sha256"] = hashlib.sha256(content).hexdigest()
    upload = driver.ask("POST", "/documents/initiate-upload", json=announced, key=text)
    path = upload["upload_url"].removeprefix("http://app")
    driver.ask("PUT", path, content=content, kind=PDF_TYPE)
    found: str = driver.ask("POST", f"/documents/{upload['document_id']}/complete-upload")["id"]
    return found


def list_everything(driver: Driver) -> None:
    for query in (f"{each}&sort={sort}&limit=1" for each in FILTERS for sort in SORTS):
        cursor = driver.ask("GET", f"/documents?sort={query.partition('sort=')[2]}")["next_cursor"]
        driver.ask("GET", f"/documents?{query}")
        driver.ask("GET", f"/documents?{query}&cursor={cursor}&count=true")
    cursor = driver.ask("GET", "/jobs?limit=1")["next_cursor"]
    for query in JOB_FILTERS:
        driver.ask("GET", f"/jobs?{query}")
        driver.ask("GET", f"/jobs?{query}&cursor={cursor}&count=true")
    list_what_all_have(driver)
    driver.cause = "the overview"
    driver.process.write(partial(activity.by_hour, owner_id=driver.owner))


def list_what_all_have(driver: Driver) -> None:
    cursor = driver.ask("GET", "/admin/documents?limit=1")["next_cursor"]
    for query in FILTERS:
        driver.ask("GET", f"/admin/documents?{query}&limit=1")
        driver.ask("GET", f"/admin/documents?{query}&cursor={cursor}&count=true")
    driver.ask("GET", f"/admin/documents?owner_id={driver.owner}&limit=1")
    cursor = driver.ask("GET", "/admin/jobs?limit=1")["next_cursor"]
    for query in (*JOB_FILTERS, *ALL_JOB_FILTERS):
        driver.ask("GET", f"/admin/jobs?{query}")
        driver.ask("GET", f"/admin/jobs?{query}&cursor={cursor}&count=true")
    cursor = driver.ask("GET", "/admin/accounts?limit=1")["next_cursor"]
    for query in ("", "&search=carol"):
        driver.ask("GET", f"/admin/accounts?limit=1{query}")
        driver.ask("GET", f"/admin/accounts?cursor={cursor}{query}")
    for given in ({}, {"dead": True}, {"processor": "text"}, {"owner_id": str(driver.owner)}):
        driver.ask("POST", "/admin/jobs/rerun", json={"filter": given})


def test_every_statement_uses_an_index(driver: Driver) -> None:
    live(driver)
    list_everything(driver)
    with patch.object(listing, "FEW", -1):  # as if every filter fitted many
        list_everything(driver)
    if databases.POSTGRESQL:
        many_rows(driver)
    watch(driver)
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]
    operations = {f"{method.upper()} {_template(path)}" for path, methods in paths.items() for method in methods}
    causes = {cause for cause, _ in driver.statements}
    assert operations - causes == {"GET /livez", "GET /readyz", "GET /processors"}, "which read no rows"
    used: set[str] = set()
    for (cause, sql), parameters in driver.statements.items():
        plan = driver.process.explain(sql, parameters)
        assert scanned(sql, plan) - SMALL <= SCANNED.get(cause, set()), (cause, sql, plan)
        used.update(re.findall(r"\bix_\w+", "\n".join(plan)))
    # Of a handful of dead letters, PostgreSQL takes the list of all.
    assert used >= NEEDED - ({"ix_jobs_dead"} if databases.POSTGRESQL else set())


@pytest.mark.sqlite
def test_the_jobs_of_a_document_are_not_looked_for_among_all_of_its_owner(driver: Driver) -> None:
    first = document(driver, "first")
    driver.ask("GET", f"/jobs?document_id={first}")
    [(sql, parameters)] = [
        (sql, parameters) for (_, sql), parameters in driver.statements.items() if "jobs.document_id = ?" in sql
    ]
    assert "ix_jobs_document_id_created_at_id" in driver.process.explain(sql, parameters)[0]


def scanned(sql: str, plan: list[str]) -> set[str]:
    """What a plan reads from end to end, or sorts however much it is: tables and indexes by their names."""
    steps = "\n".join(plan)
    scans = re.findall(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?$|Seq Scan on (\w+)", steps, re.MULTILINE)
    found = {index or table or other for table, index, other in scans if (table or other) in metadata.tables}
    # A list that is told not to use the index of its order is one of FEW.
    return found | ({"a sort"} if "TEMP B-TREE FOR ORDER BY" in steps and "ORDER BY +" not in sql else set())


SENT = """
INSERT INTO remote_outputs
SELECT gen_random_uuid(), 1, 1, gen_random_uuid(), 'a', false, 'a/b', 1, '', now() + interval '1 hour'
FROM generate_series(1, 5000)
"""


def many_rows(driver: Driver) -> None:
    """The user's own, and those of somebody else."""
    stranger = UUID(driver.ask("POST", "/auth/register", json=ACCOUNT | {"email": "eve@example.com"})["id"])
    driver.cause = ""
    engine = databases.engine(driver.data_dir)
    with engine.begin() as conn:
        conn.exec_driver_sql(PEOPLE)
        conn.exec_driver_sql(SENT)
    growth_rows.fill(engine, driver.owner.hex, range(2_000))
    growth_rows.fill(engine, stranger.hex, range(2_000, 22_000))
