"""Log lines have the request id of the current context, unless they name another."""

import subprocess
import sys

import orjson
import pytest

from app.telemetry import context

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


def test_who_acts_and_for_which_request_is_set_for_a_block() -> None:
    def seen() -> tuple[str | None, str | None]:
        return context.actor.get(), context.request_id.get()

    with context.acting("worker:w", request="first"):
        with context.acting(request="second"):
            assert seen() == ("worker:w", "second")
        with context.acting(context.OPERATOR), context.acting(request=None):
            assert seen() == ("operator", "first")
        with pytest.raises(KeyError), context.acting("user:1", request="third"):
            raise KeyError
        assert seen() == ("worker:w", "first")
    assert seen() == (None, None)
