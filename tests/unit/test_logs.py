"""What must never be in a log, in either format."""

import subprocess
import sys

import pytest

FAIL = """
import structlog
from app.telemetry import logs

logs.configure("INFO", as_json={as_json})

def handler(password):
    raise RuntimeError("broken")

try:
    handler("s3cret-" + "local")
except RuntimeError:
    structlog.get_logger().exception("http.failed")
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variables(*, as_json: bool) -> None:
    code = FAIL.format(as_json=as_json)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "RuntimeError: broken" in done.stdout
    assert "s3cret-local" not in done.stdout


@pytest.mark.parametrize("as_json", [True, False])
def test_a_name_that_is_no_text_is_logged(*, as_json: bool) -> None:
    code = f"""
import structlog
from app.telemetry import logs

logs.configure("INFO", as_json={as_json})
structlog.get_logger().info("inbox.refused", file="a\\udcff.pdf")
"""
    strict = {"PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": "."}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=strict)
    assert "inbox.refused" in done.stdout
    assert "a\\udcff.pdf" in done.stdout
