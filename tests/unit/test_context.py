"""Log lines and events have the request id and the actor of the current context, unless they name others."""

import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import orjson

from app import events
from app.telemetry import context
from tests.support.inprocess import Process

LINES = """
import structlog
from app.telemetry import context, logs

logs.configure("INFO", as_json=True)
log = structlog.get_logger()
log.info("outside")
context.request_id.set("of-the-request")
log.info("inside")
log.info("explicit", request_id="of-the-line")
structlog.contextvars.bind_contextvars(request_id="of-the-job")
log.info("bound")
"""


def test_a_line_has_the_request_id_of_its_context() -> None:
    done = subprocess.run([sys.executable, "-c", LINES], capture_output=True, text=True, check=True)
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert {line["event"]: line.get("request_id") for line in lines} == {
        "outside": None,
        "inside": "of-the-request",
        "explicit": "of-the-line",
        "bound": "of-the-job",
    }


def test_an_event_has_the_actor_and_the_request_id_of_its_context(tmp_path: Path) -> None:
    process, document_id = Process(tmp_path / "var"), uuid4()

    def append(conn):
        context.request_id.set("of-the-request")
        context.actor.set("user:1")
        events.append(conn, "first", document_id=document_id)
        events.append(conn, "second", document_id=document_id, actor="operator", request_id="other")
        return [item for _, item in events.timeline(conn, document_id, after=0, limit=2)]

    items = process.write(append)
    process.kill()
    assert [(each.actor, each.request_id) for each in items] == [("user:1", "of-the-request"), ("operator", "other")]
