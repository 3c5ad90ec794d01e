"""/docs in a real browser: its policy lets everything run that the page needs."""

import re
from html import unescape
from pathlib import Path

from app.main import app
from tests.support.browser import NEEDS_BROWSER, PATIENCE, browser
from tests.support.server import Server

pytestmark = NEEDS_BROWSER


def test_every_operation_is_shown(server: Server, tmp_path: Path) -> None:
    options = ("--dump-dom", "--virtual-time-budget=10000")
    with browser(tmp_path, f"{server.url}/docs", *options) as process:
        written, _ = process.communicate(timeout=PATIENCE)
    shown = unescape(written.decode())
    description = app.openapi()
    listed = [*description["paths"].values(), *description["webhooks"].values()]
    summaries = [operation["summary"] for path in listed for operation in path.values()]
    assert {*re.findall(r'class="opblock-summary-description">(.*?)</div>', shown)} == {*summaries}
    log = (tmp_path / "browser.log").read_text()
    assert "Content Security Policy" not in log
