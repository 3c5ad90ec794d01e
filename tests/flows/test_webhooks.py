"""Deliveries outlive whoever makes them: none is lost or settled twice, and nobody waits for another's endpoint."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError
from uuid_utils.compat import uuid7

from app.database import now
from app.jobs import claims
from app.jobs.kinds import Succeeded
from app.jobs.models import Job, jobs
from app.webhooks.kind import Attempt
from app.webhooks.models import attempts, deliveries, endpoints, messages
from tests.flows.test_crashes import freeze
from tests.support import databases
from tests.support.factories import pdf
from tests.support.inprocess import Process, unshared
from tests.support.invariants import Ledger
from tests.support.receiver import Receiver, receiving
from tests.support.server import Server, free_port
from tests.support.torture import LONG
from tests.support.user import PASSWORD, User
from tests.support.waiting import until

LEASE = {"LEASE_SECONDS": "1.5"}
DEAD = 10_000 if LONG else 1_000  # deliveries to an endpoint that is not there
UPLOADS = 100 if LONG else 10


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def delivered(user: User, webhook: str) -> dict[str, Any]:
    """The only delivery, with its attempts, once it is over."""

    def over() -> Any:
        [delivery] = user.http.get(f"{webhook}/deliveries").json()["items"]
        return delivery["state"] != "PENDING" and delivery

    found: dict[str, Any] = user.http.get(f"{webhook}/deliveries/{until(over)['id']}").json()
    return found


@pytest.mark.parametrize(("point", "requests"), [("deliver.after_claim", 1), ("deliver.after_send", 2)])
def test_a_delivery_killed_midway_is_made_by_the_next_start(
    point: str, requests: int, receiver: Receiver, tmp_path: Path
) -> None:
    with Server(tmp_path / "var", LEASE | {"FAULT": f"{point}:1"}) as server:
        user = server.register()
        webhook = receiver.told_of(user)
        user.upload()
        assert server.process is not None
        assert server.process.wait(30) == -signal.SIGKILL
        user = server.restarted(user, FAULT="")
        found = delivered(user, webhook)
        assert found["state"] == "DELIVERED"
        lost, made = found["attempts"]
        assert (lost["error"]["code"], lost["status"], made["status"]) == ("lease-lost", None, 200)
        assert receiver.ids == {found["event_id"]: requests}
        assert not any(secret in server.log_file.read_text() for secret in receiver.secrets)
        Ledger(tmp_path / "var").check_deliveries(receiver)


def test_a_sender_that_was_frozen_settles_nothing(receiver: Receiver, tmp_path: Path) -> None:
    with Server(tmp_path / "var", LEASE) as zombie:
        user = zombie.register()
        webhook = receiver.told_of(user)
        receiver.delay = 0.5
        user.upload()
        until(lambda: receiver.received)
        freeze(zombie)
        receiver.delay = 0
        with Server(tmp_path / "var", LEASE) as server:
            found = delivered(user.at(server), webhook)
            zombie.signal(signal.SIGCONT)
            until(lambda: [line for name in ("stopped", "fenced") for line in zombie.logs(f"job.{name}")])
            assert delivered(user.at(server), webhook) == found
        assert found["state"] == "DELIVERED"
        assert [each["error"] and each["error"]["code"] for each in found["attempts"]] == ["lease-lost", None]
        assert receiver.ids == {found["event_id"]: 2}
        assert Ledger(tmp_path / "var").check_deliveries(receiver) == 1


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """A process in which nothing happens by itself."""
    process = Process(tmp_path / "var")
    yield process
    process.kill()


@pytest.fixture
def token(process: Process) -> str:
    """That of a user who has a webhook, and has uploaded a document."""
    account = {"email": "ada@example.com", "password": PASSWORD}
    process.http("POST", "/auth/register", json=account)
    token: str = process.http("POST", "/auth/login", json=account).json()["access_token"]
    process.http("POST", "/webhooks", token=token, json={"url": "http://127.0.0.1:1025/"})
    process.http("POST", "/documents", token=token, files={"file": ("a.pdf", pdf())})
    return token


def claimed(process: Process, lease: float) -> Job:
    process.tick()
    [job] = process.write(claims.claim_due, unshared({"deliver": 1}, 1), lease, 0.0)
    return job


def test_an_attempt_that_lost_its_lease_leaves_no_trace(process: Process, token: str) -> None:
    assert token
    stale, latest = claimed(process, -1.0), claimed(process, 30.0)
    assert stale.id == latest.id
    done = Succeeded(Attempt(latest.created_at, "http://127.0.0.1/", 1, 200, "ok"))
    assert not process.settle(stale, done)
    rows = process.write(lambda conn: conn.execute(select(attempts.c.fence, attempts.c.error)).all())
    assert [(row.fence, row.error["code"]) for row in rows] == [(stale.fence, "lease-lost")]
    assert process.settle(latest, done)
    assert not process.settle(stale, done)
    rows = process.write(lambda conn: conn.execute(select(attempts.c.fence, attempts.c.status)).all())
    assert [tuple(row) for row in rows] == [(stale.fence, None), (latest.fence, 200)]
    assert process.write(lambda conn: conn.scalars(select(deliveries.c.state)).all()) == ["DELIVERED"]


def test_an_event_is_delivered_to_an_endpoint_once(process: Process, token: str) -> None:
    assert token

    def again(conn: Connection) -> None:
        row = dict(conn.execute(select(deliveries)).mappings().one())
        conn.execute(insert(deliveries).values(row | {"id": uuid7()}))

    with pytest.raises(IntegrityError):
        process.write(again)


def to_nobody(data_dir: Path, owner_id: str, number: int) -> None:
    """So many deliveries to an endpoint that is not there, due now: as the events of so many documents would leave."""
    ids = [(uuid7(), uuid7()) for _ in range(number)]
    with databases.engine(data_dir).begin() as conn:
        [endpoint_id] = conn.scalars(select(endpoints.c.id).where(endpoints.c.owner_id == UUID(owner_id)))
        told = {"owner_id": UUID(owner_id), "type": "document.uploaded", "body": b"{}", "created_at": now()}
        conn.execute(insert(messages).values(told), [{"event_id": event_id} for event_id, _ in ids])
        state = {"endpoint_id": endpoint_id, "trigger": "event", "state": "PENDING", "created_at": now()}
        conn.execute(insert(deliveries).values(state), [{"id": id_, "event_id": event_id} for event_id, id_ in ids])
        args = {"webhook_id": str(endpoint_id), "trigger": "event", "type": "document.uploaded", "document_id": None}
        job = {"kind": "deliver", "queue": "deliver", "args": args, "owner_id": UUID(owner_id), "state": "QUEUED"}
        job |= {"fence": 0, "tries": 0, "max_tries": 10, "run_at": now(), "queued_at": now(), "progress": 0.0}
        job |= {"dead": False, "created_at": now(), "turn": bindparam("at_turn")}
        start = time.time()
        rows = [{"id": id_, "at_turn": start + turn} for turn, (_, id_) in enumerate(ids)]
        conn.execute(insert(jobs).values(job), rows)


@pytest.mark.parametrize("endpoint", ["silent", "not there"] if LONG else ["silent"])
def test_nobody_waits_for_the_endpoint_of_another(
    endpoint: str, receiver: Receiver, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with Server(tmp_path / "var", {"WEBHOOK_TIMEOUT": "2"}) as server, receiving(delay=30) as silent:
        eve, ada = server.register(), server.register()
        silent.url = silent.url if endpoint == "silent" else f"http://127.0.0.1:{free_port()}/"
        silent.told_of(eve)
        receiver.told_of(ada, event_types=["document.uploaded"])
        to_nobody(tmp_path / "var", eve.http.get("/auth/me").json()["id"], DEAD)
        waits = []
        for number in range(1, UPLOADS + 1):
            began = time.monotonic()
            ada.upload()
            until(lambda number=number: len(receiver.received) == number)
            waits.append(time.monotonic() - began)
        waits.sort()
        record_property(
            "deliveries beside a dead endpoint",
            f"{DEAD} to one that is {endpoint}: p50 {waits[UPLOADS // 2]:.3f} s, p99 {waits[-1]:.3f} s",
        )
        assert waits[-1] < 10, "one after the other, they would take minutes"
        job = ada.finished(ada.start(ada.upload()["id"])["id"])
        assert job["state"] == "SUCCEEDED"


def test_bodies_are_made_once(process: Process, token: str) -> None:
    process.http("POST", "/webhooks", token=token, json={"url": "http://127.0.0.1:1026/"})
    process.http("POST", "/documents", token=token, files={"file": ("b.pdf", pdf("b"))})
    bodies = process.write(lambda conn: conn.scalars(select(messages.c.body).order_by(messages.c.created_at)).all())
    assert [json.loads(body)["data"]["document"]["filename"] for body in bodies] == ["a.pdf", "b.pdf"]
    made = process.write(lambda conn: conn.scalars(select(deliveries.c.event_id)).all())
    assert (len(made), len(set(made))) == (3, 2)
