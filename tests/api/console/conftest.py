"""One service for each module, with most processors, and somebody who is signed in."""

from collections.abc import Iterator

import pytest

from tests.support.console import Browser
from tests.support.inprocess import Process


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("console"), processors="simulated,text,split,merge,language,keywords")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def ada(process: Process) -> Browser:
    return Browser(process).sign_in()
