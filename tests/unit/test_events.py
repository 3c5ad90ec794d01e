"""Events: what is recorded, who listens, and that a timeline shows what another version has written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, insert, select
from uuid_utils.compat import uuid7

from app import events
from app.auth.models import users
from app.database import now
from app.events import Record
from app.events.catalogue import CATALOGUE
from app.events.catalogue.base import TimelineEvent
from app.events.catalogue.documents import DocumentDeleted, DocumentEdited, DocumentInitiated
from app.events.catalogue.jobs import JobFailed, JobQueued
from app.events.failure import Failure
from app.telemetry import context
from tests.support.factories import pdf
from tests.support.inprocess import Process
from tests.support.logs import captured
from tests.support.user import PASSWORD

DATA = [
    (DocumentDeleted(), {}),
    (DocumentInitiated(size=1, sha256=None, content_type="a/b"), {"size": 1, "sha256": None, "content_type": "a/b"}),
    (JobQueued(), {}),
    (JobQueued(processor="text"), {"processor": "text"}),
    (
        JobFailed(attempt=2, fence=3, dead=False, error=Failure(code="c", detail="d")),
        {"attempt": 2, "fence": 3, "dead": False, "error": {"code": "c", "detail": "d"}},
    ),
    (
        JobFailed(dead=True, error=Failure(code="c", detail="d")),
        {"dead": True, "error": {"code": "c", "detail": "d"}},
    ),
]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "var")
    yield process
    process.kill()


@pytest.mark.parametrize(("event", "data"), DATA)
def test_what_is_recorded_are_the_fields_in_their_order(event: Any, data: dict[str, Any]) -> None:
    assert list(event.data.items()) == list(data.items())


def test_the_catalogue_can_be_stored() -> None:
    for name, event in CATALOGUE.items():
        assert name == event.name
        assert len(name) <= events.events.c.event.type.length
        assert event.__doc__


def test_an_event_has_the_actor_and_the_request_of_its_context(process: Process) -> None:
    document_id = uuid4()

    def append(conn: Connection) -> list[tuple[str, str | None]]:
        with context.acting("user:1", request="of-the-request"):
            events.append(conn, DocumentEdited(fields=["tags"]), document_id=document_id)
        return [(item.actor, item.request_id) for _, item in events.timeline(conn, document_id, after=0, limit=2)]

    assert process.write(append) == [("user:1", "of-the-request")]


def test_an_event_without_an_actor_is_refused(process: Process) -> None:
    def append(conn: Connection) -> None:
        context.actor.set(None)
        events.append(conn, DocumentDeleted())

    with pytest.raises(AssertionError, match="actor"):
        process.write(append)


class Outbox:
    """A listener that writes a row for each event, into a table that is there, and refuses when it is told to."""

    def __init__(self) -> None:
        self.heard: list[Record] = []
        self.refuses = False

    def __call__(self, conn: Connection, record: Record) -> None:
        if self.refuses:
            raise ConnectionError
        self.heard.append(record)
        row = {"email": str(record.id), "password_hash": record.event.name, "active": False, "created_at": now()}
        conn.execute(insert(users).values(id=uuid7(), **row))

    @staticmethod
    def rows(conn: Connection) -> list[tuple[str, str]]:
        """The ids and the names of the events, as the outbox has them."""
        return [tuple(row) for row in conn.execute(select(users.c.email, users.c.password_hash))]


def written(conn: Connection) -> list[tuple[str, str]]:
    """The same, as the table of events has them."""
    query = select(events.events.c.id, events.events.c.event).where(events.events.c.event.startswith("document."))
    return [(str(row.id), row.event) for row in conn.execute(query.order_by(events.events.c.seq))]


@pytest.fixture
def outbox(process: Process) -> Outbox:
    outbox = Outbox()
    process.subscribe(outbox)
    return outbox


def test_what_a_listener_writes_is_committed_with_the_event(process: Process, outbox: Outbox) -> None:
    owner, document, others = uuid4(), uuid4(), [(uuid4(), uuid4()) for _ in range(3)]

    def change(conn: Connection) -> None:
        with context.acting("user:1", request="r"):
            events.append(conn, DocumentEdited(fields=[]), user_id=owner, document_id=document)
            events.append_each(conn, DocumentDeleted(), others)

    process.write(change)
    assert sorted(process.write(Outbox.rows)) == sorted(process.write(written))
    first, *rest = outbox.heard
    assert (first.actor, first.request_id, first.data) == ("user:1", "r", {"fields": []})
    assert (first.user_id, first.document_id, first.job_id) == (owner, document, None)
    assert [(record.user_id, record.document_id) for record in rest] == others


def test_what_a_listener_writes_is_undone_with_the_event(process: Process, outbox: Outbox) -> None:
    def change(conn: Connection) -> None:
        events.append(conn, DocumentDeleted())
        raise KeyError

    with pytest.raises(KeyError):
        process.write(change)
    assert outbox.heard
    assert process.write(Outbox.rows) == process.write(written) == []


def append_one(conn: Connection) -> None:
    events.append(conn, DocumentDeleted())


def append_many(conn: Connection) -> None:
    events.append_each(conn, DocumentDeleted(), [(uuid4(), uuid4())])


@pytest.mark.parametrize("append", [append_one, append_many])
def test_a_listener_that_raises_undoes_the_change(process: Process, outbox: Outbox, append: Any) -> None:
    outbox.refuses = True

    def change(conn: Connection) -> None:
        conn.execute(insert(users).values(id=uuid7(), email="a", password_hash="", active=True, created_at=now()))
        append(conn)

    with captured(events) as lines, pytest.raises(ConnectionError):
        process.write(change)
    assert process.write(Outbox.rows) == process.write(written) == []
    assert lines == []


def test_a_listener_hears_of_its_own_database_only(process: Process, outbox: Outbox, tmp_path: Path) -> None:
    for data_dir in (tmp_path / "var", tmp_path / "other"):  # another process of the same service, and of another
        other = Process(data_dir)
        other.write(append_one)
        other.kill()
    assert outbox.heard == []
    process.write(append_one)
    assert len(outbox.heard) == 1


def test_rows_of_another_version_are_shown_as_they_are(process: Process) -> None:
    account = {"email": "ada@example.com", "password": PASSWORD}
    process.http("POST", "/auth/register", json=account)
    token = process.http("POST", "/auth/login", json=account).json()["access_token"]
    document = process.http("POST", "/documents", token=token, files={"file": ("a.pdf", pdf("x"))}).json()
    newer = {"event": "document.frozen", "data": {"until": [None, 1.5, {"a": "É"}]}}
    older = {"event": "document.edited", "data": {}}
    insertion = insert(events.events).values(at=now(), actor="elsewhere", document_id=UUID(document["id"]))
    for row in (newer, older):
        process.write(lambda conn, row: conn.execute(insertion.values(id=uuid7(), **row)), row)
    timeline = process.http("GET", f"/documents/{document['id']}/timeline", token=token)
    assert timeline.status_code == 200
    assert [{key: item[key] for key in ("event", "data")} for item in timeline.json()["items"][1:]] == [newer, older]


def test_the_description_names_the_events_of_a_timeline_and_their_data(process: Process) -> None:
    schemas = process.http("GET", "/openapi.json").json()["components"]["schemas"]
    item = schemas["TimelineItem"]["properties"]
    shown = [name for name, event in CATALOGUE.items() if issubclass(event, TimelineEvent)]
    assert schemas["EventName"]["enum"] == shown
    models = [schemas[each["$ref"].rpartition("/")[2]] for each in item["data"]["anyOf"]]
    assert {model["title"] for model in models} == {*shown}
    required = [len(model.get("required", [])) for model in models]
    assert required == sorted(required, reverse=True), "generated clients take the first that fits"
    assert all(model["description"] and model["properties"] for model in models)
    (edited,) = (model for model in models if model["title"] == "document.edited")
    assert edited["required"] == list(edited["properties"]) == ["fields"]
