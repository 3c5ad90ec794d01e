"""Webhooks: what owners can do with them, what is sent, and what becomes of it."""

import json
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import func, select

from app.accounts.service import Accounts
from app.auth.principal import Role, Scope
from app.database import delete_batch
from app.encryption import Rotated, rotate
from app.errors import TooBusy
from app.events import events
from app.idempotency import records
from app.jobs import transitions
from app.jobs.models import jobs
from app.webhooks import repository, service
from app.webhooks.models import attempts, deliveries, endpoints, messages
from app.webhooks.payloads import EventType, WebhookDocument
from app.wiring.encryption import ENCRYPTED
from tests.support.factories import pdf
from tests.support.inprocess import Process
from tests.support.receiver import Receiver, receiving
from tests.support.user import PASSWORD
from tests.support.waiting import until

SCHEDULE = "0,0.05,0.1,0.2"
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A process in which nothing happens by itself, shared: each test has its own user."""
    process = Process(tmp_path_factory.mktemp("webhooks") / "var", webhook_retry_schedule=SCHEDULE)
    yield process
    process.kill()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class Owner:
    """Somebody who has a program to be told."""

    def __init__(self, process: Process, receiver: Receiver) -> None:
        self.process, self.receiver = process, receiver
        account = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        self.email = account["email"]
        process.http("POST", "/auth/register", json=account)
        self.token = process.http("POST", "/auth/login", json=account).json()["access_token"]

    def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        answer = self.send(method, path, **options)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return self.process.http(method, path, token=self.token, **options)

    def webhook(self, **values: Any) -> str:
        """The path of a new one."""
        webhook = self.ask("POST", "/webhooks", 201, json={"url": self.receiver.url} | values)
        self.receiver.secrets.append(webhook["secret"])
        return f"/webhooks/{webhook['id']}"

    def upload(self) -> str:
        """The id of a new document."""
        document = self.ask("POST", "/documents", 201, files={"file": ("a.pdf", pdf(uuid4().hex))})
        return str(document["id"])

    def run(self, document_id: str, **params: Any) -> None:
        body = {"params": {"seconds": 0} | params}
        self.process.work(UUID(self.ask("POST", f"/documents/{document_id}/process", 202, json=body)["job"]["id"]))

    def deliveries(self, webhook: str, **filters: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.ask("GET", f"{webhook}/deliveries", params=filters)["items"]
        return items

    def settled(self, webhook: str) -> list[dict[str, Any]]:
        """The deliveries, once none is pending any more."""

        def over() -> list[dict[str, Any]]:
            self.process.deliver()
            found = self.deliveries(webhook)
            return found if all(each["state"] != "PENDING" for each in found) else []

        return until(over)

    def attempts(self, webhook: str, delivery: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", f"{webhook}/deliveries/{delivery['id']}")["attempts"]
        return found


@pytest.fixture
def owner(process: Process, receiver: Receiver) -> Owner:
    return Owner(process, receiver)


def test_the_life_of_a_document_is_told(owner: Owner) -> None:
    webhook = owner.webhook()
    document_id = owner.upload()
    owner.run(document_id)
    owner.run(document_id, fail="permanent")
    document = owner.ask("GET", f"/documents/{document_id}")
    owner.ask("DELETE", f"/documents/{document_id}", 204)
    assert {each["state"] for each in owner.settled(webhook)} == {"DELIVERED"}
    told = sorted((each.body for each in owner.receiver.received), key=lambda body: body["data"]["document"]["version"])
    assert [body["type"] for body in told] == [
        *("document.uploaded", "document.processing", "document.completed"),
        *("document.processing", "document.failed", "document.deleted"),
    ]
    assert [body["data"]["document"]["version"] for body in told] == [1, 2, 3, 4, 5, 6]
    assert all(each.verified for each in owner.receiver.received)
    *_, completed, _, failed, deleted = told
    assert deleted["data"] == {"document": {"id": document_id, "version": 6}}
    assert failed["data"]["document"] == {name: document[name] for name in WebhookDocument.model_fields}
    assert (failed["data"]["job"]["state"], failed["data"]["result_url"]) == ("FAILED", None)
    assert completed["data"]["result_url"] == f"/documents/{document_id}/results/simulated"
    moments = [datetime.fromisoformat(body["timestamp"]) for body in told]
    assert moments == sorted(moments)


def test_what_becomes_of_a_deleted_document_is_told(owner: Owner) -> None:
    webhook = owner.webhook(event_types=["document.deleted", "document.restored", "document.purged"])
    document_id = owner.upload()
    owner.ask("DELETE", f"/documents/{document_id}", 204)
    owner.ask("POST", f"/documents/{document_id}/restore")
    owner.ask("DELETE", f"/documents/{document_id}?permanent=true", 204)
    assert {each["state"] for each in owner.settled(webhook)} == {"DELIVERED"}
    told = Counter((each.body["type"], each.body["data"]["document"]["version"]) for each in owner.receiver.received)
    assert told == {
        ("document.deleted", 2): 1,
        ("document.restored", 3): 1,
        ("document.deleted", 4): 1,
        ("document.purged", 4): 1,
    }


def test_the_id_is_that_of_the_event_and_the_timeline_shows_the_delivery(owner: Owner) -> None:
    owner.webhook(event_types=["document.uploaded"])
    document_id = owner.upload()
    owner.process.deliver()
    uploaded, delivered = owner.ask("GET", f"/documents/{document_id}/timeline")["items"]
    [received] = owner.receiver.received
    assert (received.id, received.body["type"]) == (uploaded["id"], uploaded["event"])
    assert delivered["event"] == "webhook.delivered"
    assert (delivered["data"]["type"], delivered["data"]["attempt"]) == ("document.uploaded", 1)


def test_a_job_that_used_up_its_tries_is_told(owner: Owner, process: Process) -> None:
    owner.webhook(event_types=["job.dead", "document.failed"])
    with patch("app.processing.kind.uniform", lambda _low, _high: 0.0):
        owner.run(owner.upload(), fail="transient")
    process.deliver()
    assert sorted(owner.receiver.types) == ["document.failed", "job.dead"]
    assert all(each.body["data"]["job"]["dead"] for each in owner.receiver.received)


def test_each_gets_what_it_asked_for_and_nobody_else_s(owner: Owner, process: Process, receiver: Receiver) -> None:
    stranger = Owner(process, receiver)
    all_of_it, some, theirs = owner.webhook(), owner.webhook(event_types=["document.deleted"]), stranger.webhook()
    owner.ask("DELETE", f"/documents/{owner.upload()}", 204)
    assert [each["type"] for each in owner.settled(all_of_it)] == ["document.deleted", "document.uploaded"]
    assert [each["type"] for each in owner.settled(some)] == ["document.deleted"]
    assert stranger.deliveries(theirs) == []
    assert len(receiver.received) == 3
    assert len(receiver.ids) == 2, "one id for one event, whoever is told"


def test_a_delivery_is_no_job_of_its_owner_s(owner: Owner) -> None:
    webhook = owner.webhook()
    owner.upload()
    [delivery] = owner.deliveries(webhook)
    assert owner.ask("GET", "/jobs?count=true") == {"items": [], "next_cursor": None, "total": 0}
    assert owner.send("GET", f"/jobs/{delivery['id']}").status_code == 404
    assert owner.send("POST", f"/jobs/{delivery['id']}/cancel").status_code == 404
    operator = owner.process.enter(f"{uuid4()}@example.com", Role.OPERATOR)[1]
    assert owner.process.http("GET", f"/admin/jobs/{delivery['id']}", token=operator).status_code == 404
    assert owner.ask("GET", "/auth/me")["usage"]["jobs"] == 0

    async def listed(accounts: Accounts) -> list[int]:
        return [account.live_jobs async for account in accounts.find(owner.email)]

    assert owner.process.operate(listed) == [0]


def test_who_may_not_read_documents_has_nobody_told_of_them(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    with process.limited(Scope.WEBHOOKS_MANAGE):
        for method, path, body in (
            ("POST", "/webhooks", {"url": owner.receiver.url}),
            ("PATCH", webhook, {"url": owner.receiver.url}),
            ("PATCH", webhook, {"state": "ACTIVE"}),
        ):
            refused = owner.send(method, path, json=body)
            assert refused.status_code == 403
            assert 'scope="documents:read"' in refused.headers["www-authenticate"]
        owner.ask("PATCH", webhook, json={"description": "d"})
        owner.ask("PATCH", webhook, json={"state": "PAUSED"})
    with process.limited(Scope.WEBHOOKS_MANAGE, Scope.DOCUMENTS_READ):
        owner.ask("PATCH", webhook, json={"state": "ACTIVE"})
        owner.webhook()


def test_the_secret_is_shown_once(owner: Owner, process: Process) -> None:
    asked = {"json": {"url": owner.receiver.url, "description": "d"}, "key": uuid4().hex}
    first, again = (owner.send("POST", "/webhooks", **asked) for _ in range(2))
    secret = first.json()["secret"]
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json() | {"secret": None}
    path = first.headers["location"]
    rotated = owner.ask("POST", f"{path}/rotate-secret", json={})["secret"]
    assert secret.startswith("whsec_")
    assert "secret" not in owner.ask("GET", path)
    assert "secret" not in owner.ask("GET", "/webhooks")["items"][0]
    for table in (records, events, endpoints, jobs, messages):
        rows = str(process.write(lambda conn, table=table: conn.execute(select(table)).all()))
        assert secret not in rows
        assert rotated not in rows


def test_a_secret_that_is_replaced_signs_for_a_while(owner: Owner, receiver: Receiver) -> None:
    webhook = owner.webhook()
    [first] = receiver.secrets
    rotated = owner.ask("POST", f"{webhook}/rotate-secret")
    assert datetime.fromisoformat(rotated["previous_valid_until"]) > datetime.now(UTC) + DAY * 0.99
    for known in ([first], [rotated["secret"]]):
        receiver.secrets = known
        owner.ask("POST", f"{webhook}/test", 202)
        owner.settled(webhook)
    assert [each.verified for each in receiver.received] == [True, True]
    refused = owner.send("POST", f"{webhook}/rotate-secret")
    assert (refused.status_code, refused.json()["code"]) == (409, "rotation-in-progress")
    last = owner.ask("POST", f"{webhook}/rotate-secret", json={"previous_valid_for": 0})
    assert (last["previous_valid_until"], owner.ask("GET", webhook)["previous_valid_until"]) == (None, None)
    for known in ([first, rotated["secret"]], [last["secret"]]):
        receiver.secrets = known
        owner.ask("POST", f"{webhook}/test", 202)
        owner.settled(webhook)
    assert [each.verified for each in receiver.received[2:]] == [False, True], "the older ones end at once"


def encrypted_again(process: Process) -> Rotated:
    services = process.services
    return process.operate(lambda _: rotate(services.db, services.encryption, ENCRYPTED))


def test_encryption_keys_are_replaced_with_deliveries_under_way(receiver: Receiver, tmp_path: Path) -> None:
    """Each process sends what the one before has left, signed with both secrets of the webhook."""
    old, new = (urlsafe_b64encode(byte * 32).decode() for byte in (b"o", b"n"))
    process = Process(tmp_path / "var", encryption_keys=old)
    owner = Owner(process, receiver)
    webhook = owner.webhook()
    owner.ask("POST", f"{webhook}/rotate-secret")
    for keys, changed in ((f"{old},{new}", 0), (f"{new},{old}", 2), (new, 0)):
        owner.upload()
        process.kill()
        owner.process = process = Process(tmp_path / "var", encryption_keys=keys)
        owner.settled(webhook)
        assert encrypted_again(process) == (changed, 0)
    assert [each.verified for each in receiver.received] == [True] * 3, "with the secret that was replaced"
    process.kill()


def test_a_webhook_is_changed_at_the_version_that_is_known(owner: Owner) -> None:
    webhook = owner.webhook(description="one")
    answer = owner.send("GET", webhook)
    old = [("If-Match", answer.headers["etag"])]
    changed = owner.ask("PATCH", webhook, json={"description": None, "event_types": ["job.dead"]}, headers=old)
    assert changed == answer.json() | {
        "description": None,
        "event_types": ["job.dead"],
        "version": 2,
        "updated_at": changed["updated_at"],
    }
    assert owner.send("PATCH", webhook, json={"state": "PAUSED"}, headers=old).status_code == 412
    assert owner.send("DELETE", webhook, headers=old).status_code == 412
    owner.ask("DELETE", webhook, 204, headers=[("If-Match", '"2"')])
    assert owner.send("GET", webhook).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "ftp://example.com"},
        {"url": "https://example.com", "event_types": []},
        {"url": "https://example.com", "event_types": ["ping"]},
        {"url": "https://example.com", "secret": "s"},
        {"url": "https://example.com/\n"},
    ],
)
def test_what_is_no_webhook_is_refused(owner: Owner, body: dict[str, Any]) -> None:
    assert owner.send("POST", "/webhooks", json=body).status_code == 422
    assert owner.send("PATCH", owner.webhook(), json=body or {"state": "DISABLED"}).status_code == 422


def test_webhooks_of_an_account_are_counted(owner: Owner, process: Process) -> None:
    for _ in range(10):
        owner.webhook()
    refused = owner.send("POST", "/webhooks", json={"url": owner.receiver.url})
    assert (refused.status_code, refused.json()["code"]) == (409, "too-many-webhooks")
    with patch.dict(vars(process.services.settings), quota_webhooks=0):
        webhook = owner.webhook()
    first = owner.ask("GET", "/webhooks?limit=6")
    rest = owner.ask("GET", f"/webhooks?limit=6&cursor={first['next_cursor']}")
    assert [len(page["items"]) for page in (first, rest)] == [6, 5]
    assert first["items"][0]["id"] == webhook.rpartition("/")[2], "newest first"
    assert rest["next_cursor"] is None


def test_others_see_nothing(owner: Owner, process: Process, receiver: Receiver) -> None:
    stranger, webhook = Owner(process, receiver), owner.webhook()
    owner.upload()
    [delivery] = owner.settled(webhook)
    path = f"{webhook}/deliveries"
    span = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    for method, where, body in (
        *(("GET", each, None) for each in (webhook, path, f"{path}/{delivery['id']}")),
        *(("POST", f"{webhook}/{each}", None) for each in ("test", "rotate-secret")),
        *(("PATCH", webhook, {}), ("DELETE", webhook, None), ("POST", f"{webhook}/recover", span)),
        ("POST", f"{path}/{delivery['id']}/redeliver", None),
    ):
        sent = {} if body is None else {"json": body}
        assert stranger.send(method, where, **sent).status_code == 404, (method, where)
    another = stranger.webhook()
    assert stranger.send("GET", f"{another}/deliveries/{delivery['id']}").status_code == 404
    assert stranger.send("POST", f"{another}/deliveries/{delivery['id']}/redeliver").status_code == 404


def test_what_is_refused_is_tried_again_as_scheduled(owner: Owner, receiver: Receiver) -> None:
    receiver.answers = [500, 302, (503, {"Location": "/x"}), 200]
    webhook = owner.webhook()
    owner.upload()
    [delivery] = owner.settled(webhook)
    assert delivery["state"] == "DELIVERED"
    made = owner.attempts(webhook, delivery)
    assert [(each["number"], each["status"]) for each in made] == [(1, 500), (2, 302), (3, 503), (4, 200)]
    assert made[0]["error"] == {"code": "refused", "detail": "The endpoint answered 500."}
    assert (made[0]["url"], made[0]["response"], made[3]["error"]) == (receiver.url, "answered 500", None)
    moments = [datetime.fromisoformat(each["at"]) for each in made]
    waits = [(later - earlier).total_seconds() for earlier, later in pairwise(moments)]
    assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True)), waits
    assert set(receiver.ids.values()) == {4}, "the same id each time"
    assert owner.ask("GET", webhook)["failing_since"] is None


def test_a_delivery_that_used_up_its_attempts_has_failed(owner: Owner, receiver: Receiver) -> None:
    receiver.answers = [404]
    webhook = owner.webhook()
    document_id = owner.upload()
    [delivery] = owner.settled(webhook)
    assert (delivery["state"], len(owner.attempts(webhook, delivery))) == ("FAILED", 4)
    told = owner.ask("GET", f"/documents/{document_id}/timeline")["items"][-1]
    assert (told["event"], told["data"]["error"]["code"], told["data"]["attempt"]) == ("webhook.failed", "refused", 4)
    assert owner.ask("GET", webhook)["failing_since"] is not None
    receiver.answers = [200]
    again = owner.ask("POST", f"{webhook}/deliveries/{delivery['id']}/redeliver", 202)
    assert (again["trigger"], again["event_id"]) == ("manual", delivery["event_id"])
    assert [each["state"] for each in owner.settled(webhook)] == ["DELIVERED", "FAILED"]
    assert len(receiver.ids) == 1
    assert owner.ask("GET", webhook)["failing_since"] is None


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        ((503, {"Retry-After": "600"}), 600, 600),
        ((503, {"Retry-After": "999999"}), 3600, 3600),
        ((503, {"Retry-After": "0"}), 0, 1),
        (429, 60, 60),
    ],
)
def test_an_endpoint_may_ask_for_time(owner: Owner, answer: Any, least: float, most: float) -> None:
    owner.receiver.answers = [answer]
    webhook = owner.webhook()
    owner.upload()
    owner.process.deliver()
    [delivery] = owner.deliveries(webhook, state="PENDING")
    [made] = owner.attempts(webhook, delivery)
    wait = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.fromisoformat(made["at"])
    assert least - 0.1 <= wait.total_seconds() <= most + 1


def test_while_an_endpoint_asks_for_time_nothing_else_is_sent_to_it(owner: Owner) -> None:
    owner.receiver.answers = [(429, {"Retry-After": "3600"})]
    webhook = owner.webhook()
    owner.upload()
    owner.process.deliver()
    for _ in range(3):
        owner.upload()
        owner.process.deliver()
    assert len(owner.receiver.received) == 1
    owner.receiver.answers = [204]
    owner.ask("PATCH", webhook, json={"state": "ACTIVE"})
    owner.process.deliver()
    assert len(owner.receiver.received) == 5


def test_many_deliveries_go_with_their_webhook_in_batches(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.ask("PATCH", webhook, json={"state": "PAUSED"})
    for _ in range(5):
        owner.upload()
    version = owner.ask("GET", webhook)["version"]
    transactions = process.services.db.write
    with (
        patch.object(repository, "BATCH", 2),
        patch.object(repository, "delete_batch", partial(delete_batch, limit=2)),
        patch.object(process.services.db, "write", wraps=transactions) as written,
    ):
        headers = [("If-Match", f'"{version}"')]
        assert owner.send("DELETE", webhook, headers=headers).status_code == 204
        assert written.await_count >= 3
    assert owner.send("GET", webhook).status_code == 404
    of_it = deliveries.c.endpoint_id == UUID(webhook.rpartition("/")[2])
    assert process.write(lambda conn: conn.scalar(select(func.count()).where(of_it))) == 0


def test_of_many_deliveries_that_wait_each_is_advanced_once(owner: Owner) -> None:
    webhook = owner.webhook()
    owner.ask("PATCH", webhook, json={"state": "PAUSED"})
    for _ in range(5):
        owner.upload()
    owner.process.deliver()
    with (
        patch.object(repository, "ADVANCED", 2),
        patch.object(transitions, "advance", wraps=transitions.advance) as made,
    ):
        owner.ask("PATCH", webhook, json={"state": "ACTIVE"})
        owner.process.deliver()
    advanced = [each for call in made.call_args_list for each in call.args[1]]
    assert len(advanced) == len(set(advanced)) == 5
    owner.settled(webhook)
    assert len(owner.receiver.received) == 5


def test_whatever_a_request_runs_into_counts_against_its_endpoint(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.upload()
    with patch.object(process.services.outbound, "post", side_effect=OverflowError):
        process.deliver()
    [delivery] = owner.deliveries(webhook)
    made = owner.attempts(webhook, delivery)
    assert (made[0]["url"], made[0]["error"]["code"]) == (owner.receiver.url, "unexpected")
    assert owner.ask("GET", webhook)["failing_since"] is not None


def test_what_others_leave_no_room_for_counts_for_nothing(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.upload()
    with patch.object(process.services.outbound, "post", side_effect=TooBusy):
        process.deliver()
    [delivery] = owner.deliveries(webhook, state="PENDING")
    assert owner.attempts(webhook, delivery) == []
    assert owner.ask("GET", webhook)["failing_since"] is None
    tries = select(jobs.c.tries).where(jobs.c.id == UUID(delivery["id"]))
    assert process.write(lambda conn: conn.scalar(tries)) == 0


def test_an_endpoint_that_is_gone_is_told_no_more(owner: Owner, receiver: Receiver) -> None:
    receiver.answers = [410]
    webhook = owner.webhook()
    owner.upload()
    [delivery] = owner.settled(webhook)
    assert (delivery["state"], len(receiver.received)) == ("FAILED", 1)
    gone = owner.ask("GET", webhook)
    assert (gone["state"], gone["disabled_reason"]) == ("DISABLED", "gone")
    owner.upload()
    assert len(owner.deliveries(webhook)) == 1
    for path in ("test", f"deliveries/{delivery['id']}/redeliver"):
        refused = owner.send("POST", f"{webhook}/{path}")
        assert (refused.status_code, refused.json()["code"]) == (409, "webhook-inactive")
    receiver.answers = [200]
    paused = owner.ask("PATCH", webhook, json={"state": "PAUSED"})
    assert (paused["state"], paused["disabled_reason"]) == ("PAUSED", None)
    active = owner.ask("PATCH", webhook, json={"state": "ACTIVE"})
    assert (active["state"], active["disabled_reason"], active["failing_since"]) == ("ACTIVE", None, None)
    assert recovered(owner, webhook) == {"deliveries": 2, "complete": True}
    assert recovered(owner, webhook) == {"deliveries": 0, "complete": True}, "they are under way"
    owner.settled(webhook)
    assert sorted(receiver.ids.values()) == [1, 2]
    assert recovered(owner, webhook) == {"deliveries": 0, "complete": True}, "they were delivered"
    assert recovered(owner, owner.webhook()) == {"deliveries": 0, "complete": True}, "it was made later"


def recovered(owner: Owner, webhook: str) -> Any:
    moments = {"since": datetime.now(UTC) - DAY, "until": datetime.now(UTC) + DAY}
    span = {name: moment.isoformat() for name, moment in moments.items()}
    return owner.ask("POST", f"{webhook}/recover", 202, json=span)


def test_what_is_missed_is_searched_for_once_and_added_in_small_transactions(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.receiver.answers = [410]
    for _ in range(3):
        owner.upload()
    owner.settled(webhook)
    owner.ask("PATCH", webhook, json={"state": "ACTIVE"})
    db, search = process.services.db, process.services.db.search
    with (
        patch.multiple(service, RECOVERED_AT_ONCE=1, MOST_RECOVERED=2),
        patch.object(db, "search", wraps=search) as asked,
    ):
        assert recovered(owner, webhook) == {"deliveries": 2, "complete": False}
        assert asked.await_count == 1
        assert recovered(owner, webhook) == {"deliveries": 1, "complete": True}
    ids = [UUID(each["event_id"]) for each in owner.deliveries(webhook)]
    with patch.object(db, "search", return_value=ids):
        assert recovered(owner, webhook) == {"deliveries": 0, "complete": True}, "somebody else was faster"


@pytest.mark.parametrize(("days", "status"), [(-1, 422), (0, 422), (14, 202), (14.1, 422)])
def test_recovery_is_of_two_weeks_at_the_most(owner: Owner, days: float, status: int) -> None:
    now = datetime.now(UTC)
    span = {"since": now.isoformat(), "until": (now + DAY * days).isoformat()}
    owner.ask("POST", f"{owner.webhook()}/recover", status, json=span)


def set_since(process: Process, webhook: str, days: float) -> None:
    """Have it failed for so long."""
    since = datetime.now(UTC) - DAY * days
    own = endpoints.c.id == UUID(webhook.rpartition("/")[2])
    process.write(lambda conn: conn.execute(endpoints.update().where(own).values(failing_since=since)))


def test_five_days_of_failure_disable_a_webhook(owner: Owner, process: Process) -> None:
    owner.receiver.answers = [500]
    webhook = owner.webhook()
    for days in (4.9, 5):
        assert owner.ask("GET", webhook)["state"] == "ACTIVE"
        set_since(process, webhook, days)
        owner.ask("POST", f"{webhook}/test", 202)
        process.deliver()
    disabled = owner.ask("GET", webhook)
    assert (disabled["state"], disabled["disabled_reason"]) == ("DISABLED", "failing")
    told = process.write(lambda conn: conn.execute(select(events).where(events.c.event == "webhook.disabled")).all())
    assert {"webhook_id": disabled["id"], "reason": "failing"} in [row.data for row in told]


def test_while_an_endpoint_fails_one_tries_and_the_others_keep_their_tries(owner: Owner, process: Process) -> None:
    owner.receiver.answers, owner.receiver.delay = [500], 0.05
    webhook = owner.webhook()
    set_since(process, webhook, 1)
    for _ in range(4):
        owner.upload()
    process.deliver()
    assert len(owner.receiver.received) == 1
    waiting = [each for each in owner.deliveries(webhook) if not owner.attempts(webhook, each)]
    soonest = datetime.now(UTC) + timedelta(seconds=55)
    assert all(datetime.fromisoformat(each["next_attempt_at"]) > soonest for each in waiting)
    rows = process.write(lambda conn: conn.execute(select(jobs.c.id, jobs.c.tries)).all())
    tries = {str(row.id): row.tries for row in rows}
    assert [tries[each["id"]] for each in waiting] == [0, 0, 0]
    owner.receiver.answers = [200]
    owner.ask("POST", f"{webhook}/test", 202)
    assert {each["state"] for each in owner.settled(webhook)} == {"DELIVERED"}, "one success lets the others through"


def test_an_endpoint_gets_few_requests_at_once(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.receiver.delay = 0.05
    for _ in range(7):
        owner.upload()
    process.deliver()
    assert owner.receiver.most_at_once == 4
    assert len(owner.deliveries(webhook, state="DELIVERED")) == 7


def test_what_a_paused_webhook_would_be_told_waits(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.ask("PATCH", webhook, json={"state": "PAUSED"})
    owner.upload()
    process.deliver()
    [delivery] = owner.deliveries(webhook)
    assert (delivery["state"], owner.receiver.received) == ("PENDING", [])
    owner.ask("PATCH", webhook, json={"state": "ACTIVE"})
    assert [each["state"] for each in owner.settled(webhook)] == ["DELIVERED"]
    [made] = owner.attempts(webhook, delivery)
    assert made["number"] == 1


def test_with_a_webhook_goes_what_it_was_not_told(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.upload()
    [delivery] = owner.deliveries(webhook)
    owner.ask("DELETE", webhook, 204)
    process.deliver()
    assert owner.receiver.received == []
    assert not process.write(lambda conn: conn.execute(select(jobs).where(jobs.c.id == UUID(delivery["id"]))).all())


def test_deliveries_are_found_by_state_type_and_document(owner: Owner) -> None:
    webhook = owner.webhook()
    first, second = owner.upload(), owner.upload()
    owner.settled(webhook)
    owner.ask("DELETE", f"/documents/{first}", 204)
    assert [each["document_id"] for each in owner.deliveries(webhook, state="PENDING")] == [first]
    assert [each["document_id"] for each in owner.deliveries(webhook, type="document.uploaded")] == [second, first]
    assert [each["type"] for each in owner.deliveries(webhook, document_id=first, type="document.deleted")] == [
        "document.deleted"
    ]
    page = owner.ask("GET", f"{webhook}/deliveries?limit=2")
    rest = owner.ask("GET", f"{webhook}/deliveries?limit=2&cursor={page['next_cursor']}")
    assert [each["type"] for each in page["items"] + rest["items"]] == ["document.deleted", *["document.uploaded"] * 2]


def test_an_account_that_is_disabled_or_erased_is_told_nothing(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    document_id = owner.upload()
    body = {"params": {"seconds": 60}}
    owner.ask("POST", f"/documents/{document_id}/process", 202, json=body)
    process.operate(lambda accounts: accounts.disable(owner.email))
    process.deliver()
    assert owner.receiver.received == []
    own = deliveries.c.endpoint_id == UUID(webhook.rpartition("/")[2])
    rows = process.write(lambda conn: conn.execute(select(deliveries).where(own)).all())
    assert [row.state for row in rows] == ["DISCARDED", "DISCARDED"], "and none for the job that was cancelled"
    process.operate(lambda accounts: accounts.erase(owner.email))
    ids = [row.id for row in rows]
    for column in (deliveries.c.id, attempts.c.delivery_id, jobs.c.id):
        assert not process.write(lambda conn, column=column: conn.execute(select(column).where(column.in_(ids))).all())
    events_told = [row.event_id for row in rows]
    assert not process.write(
        lambda conn: conn.execute(select(messages).where(messages.c.event_id.in_(events_told))).all()
    )


def test_what_was_sent_is_forgotten_in_time(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.upload()
    [old] = owner.settled(webhook)
    month = datetime.now(UTC) - timedelta(days=31)

    def age(conn: Any) -> None:
        conn.execute(deliveries.update().where(deliveries.c.id == UUID(old["id"])).values(finished_at=month))
        conn.execute(messages.update().where(messages.c.event_id == UUID(old["event_id"])).values(created_at=month))

    owner.upload()
    owner.settled(webhook)
    process.write(age)
    process.tick()
    [kept] = owner.deliveries(webhook)
    assert kept["id"] != old["id"]
    of_old = messages.c.event_id == UUID(old["event_id"])
    assert not process.write(lambda conn: conn.execute(select(messages).where(of_old)).all())


def test_the_description_has_every_type_with_an_example(process: Process) -> None:
    described = process.http("GET", "/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    assert described["webhooks"].keys() == {*EventType, "ping"}
    for name, item in described["webhooks"].items():
        operation = item["post"]
        content = operation["requestBody"]["content"]["application/json"]
        assert content["example"]["type"] == name
        assert {each["name"] for each in operation["parameters"]} == {
            *("webhook-id", "webhook-timestamp", "webhook-signature")
        }
        assert {"2XX", "410"} <= operation["responses"].keys()


def test_bodies_are_sent_to_the_byte(owner: Owner, process: Process) -> None:
    webhook = owner.webhook()
    owner.upload()
    [delivery] = owner.settled(webhook)
    of_event = messages.c.event_id == UUID(delivery["event_id"])
    [row] = process.write(lambda conn: conn.execute(select(messages).where(of_event)).all())
    assert json.loads(row.body) == owner.receiver.received[0].body
    assert int(owner.receiver.received[0].headers["content-length"]) == len(row.body)
