"""A real browser: Chromium, or one that takes the same options. TEST_CHROMIUM=chromium names its program."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright import sync_api

from tests.support import reaper

CHROMIUM = os.environ.get("TEST_CHROMIUM")
NEEDS_BROWSER = pytest.mark.skipif(not CHROMIUM, reason="TEST_CHROMIUM names no browser")
PATIENCE = 60.0  # seconds, for one that starts on a busy machine
_ALONE = ("--headless", "--no-first-run", "--disable-background-networking", "--disable-gpu", "--disable-dev-shm-usage")


@contextmanager
def browser(folder: Path, url: str, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A browser without a window, and with nothing from before, that opens the page."""
    profile = f"--user-data-dir={folder / 'profile'}"
    # Its own sandbox needs rights that a test may not have, and it opens nothing but our pages.
    command = [str(CHROMIUM), *_ALONE, "--no-sandbox", profile, *options, url]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    reaper.watch(process.pid)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def driven() -> Iterator[sync_api.Browser]:
    """A browser whose pages a test opens, and works as a person would."""
    sync_api.expect.set_options(timeout=PATIENCE * 1000)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *_ALONE])
        try:
            yield browser
        finally:
            browser.close()
