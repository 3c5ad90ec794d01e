"""Fixtures: one real server for each test process, and users of it."""

import gc
from collections.abc import Generator, Iterator
from functools import cache

import httpcore2
import pytest

from tests.support import brokers, converter, databases, scans, seaweed as seaweedfs
from tests.support.brokers import Queue, Sqs
from tests.support.seaweed import Prefix, Seaweed
from tests.support.server import Server
from tests.support.user import User

# Every client would read the certificates of all authorities anew: 20 ms of computing, and there are thousands.
httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)

ENGINE, OTHER = ("postgresql", "sqlite") if databases.POSTGRESQL else ("sqlite", "postgresql")


def pytest_report_header() -> list[str]:
    database = f"database: {ENGINE}" if databases.POSTGRESQL else "database: sqlite (TEST_DATABASE_URL is not set)"
    lacking = {"of the processor ocr": scans.missing(), "with LibreOffice": converter.missing()}
    return [database, *(f"NOT RUN: the tests {what}: {reason}" for what, reason in lacking.items() if reason)]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for garbage neither while all is imported nor, later, among that."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each process of xdist gets a part of the list, and begins with a long one if there is: at the end, all others
    would wait for it."""
    items.sort(key=lambda item: "flows" not in item.path.parts)
    long = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if item not in long]
    processes = getattr(config, "workerinput", {}).get("workercount", 1)
    part = len(items) // processes
    for index, item in enumerate(long):
        items.insert(index % processes * part, item)
    for item in items:
        if item.get_closest_marker(OTHER):
            item.add_marker(pytest.mark.skip(f"about {OTHER}; the database of this run is {ENGINE}"))


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # once, not in each process of xdist
        databases.drop_left()


def pytest_sessionfinish() -> None:
    databases.drop_all()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured (`record_property`)."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the defaults, shared by the tests of one worker: each brings its own users."""
    with Server(tmp_path_factory.mktemp("shared") / "var") as server:
        yield server


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


@pytest.fixture
def stranger(server: Server) -> User:
    """Somebody else."""
    return server.register()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server, shared by the tests of one worker: each has its own prefix."""
    if seaweedfs.WEED is None:
        pytest.skip("there is no SeaweedFS for this platform")
    with seaweedfs.running(tmp_path_factory.mktemp("seaweed") / "data") as seaweed:
        yield seaweed


@pytest.fixture
def prefix(seaweed: Seaweed) -> Prefix:
    return Prefix(seaweed)


@pytest.fixture(scope="session")
def sqs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sqs]:
    """An SQS server, shared by the tests of one worker: each has its own queue."""
    with brokers.running(tmp_path_factory.mktemp("sqs") / "data") as sqs:
        yield sqs


@pytest.fixture(params=brokers.KINDS)
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    """A queue of the test's own, at each broker in turn."""
    with brokers.requested(request) as queue:
        yield queue
