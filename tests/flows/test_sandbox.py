"""A document that has taken over its parser gets nothing: the real server starts the child, and each guard of the
kernel's is shown to hold alone."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.processors import sandbox
from app.processors.sandbox import landlock
from tests.support import taken_over
from tests.support.server import Server

pytestmark = pytest.mark.skipif(sandbox.missing() is not None, reason=f"this kernel lacks it: {sandbox.missing()}")

SECRET = {"JWT_SECRET": "s" * 32}
ROOT = sys.platform == "linux" and os.geteuid() == 0
# An unprivileged user, but for the way to a Python and to test folders that may be root's alone.
UNPRIVILEGED = (
    *("setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", "--bounding-set=-all,+dac_override"),
    *("--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"),
)
USERS = {"root": (), "unprivileged": UNPRIVILEGED} if ROOT else {"unprivileged": ()}

READING = {"read", "read passwd", "list"}
OF_PARENT = {"parent's environment", "parent's memory"}
# What Landlock refuses from the ABI on.
BY_LANDLOCK = {
    1: {*READING, *OF_PARENT, "create", "overwrite", "rename", "link", "mkdir", "delete", "ptrace", "run a program"},
    3: {"truncate"},
    4: {"TCP", "TCP server"},
    6: {"abstract socket", "signal"},
}
FILES, CONTENT = ("secret", "victim"), "of somebody else"

Tried = Callable[..., dict[str, str]]


@pytest.fixture(scope="module", params=USERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, prefix = tmp_path_factory.mktemp(request.param) / "var", USERS[request.param]
    with Server(folder, SECRET, module="tests.support.masked_guards", prefix=prefix) as server:
        yield server


@pytest.fixture
def by_root(server: Server) -> bool:
    return ROOT and not server.prefix


@pytest.fixture
def target(server: Server) -> Iterator[Path]:
    """A folder of the server's with somebody's files."""
    with TemporaryDirectory(dir=server.data_dir) as folder:
        for name in FILES:
            (Path(folder) / name).write_text(CONTENT)
        yield Path(folder)


@pytest.fixture
def tried(server: Server, target: Path) -> Iterator[Tried]:
    """Says what becomes of each attempt of a child that lacks these guards."""
    name = f"document-api-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()

        def run(*without: str) -> dict[str, str]:
            file = taken_over.document(folder=str(target), port=server.port, abstract=name)
            user = server.register()
            job = user.start(user.upload(file)["id"], processor="-".join(["without", *without]))
            data = user.http.get(user.finished(job["id"])["result_url"]).json()["data"]
            outcomes: dict[str, str] = json.loads(data["text"])
            return outcomes

        yield run


def refused(outcomes: dict[str, str]) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome in {"EPERM", "EACCES", "EAGAIN", "KeyError"}}


def test_a_child_that_a_document_has_taken_over_can_do_nothing(tried: Tried, server: Server, target: Path) -> None:
    assert "sandbox" not in server.client().get("/readyz").json()["alarms"]
    outcomes = tried()
    assert refused(outcomes) == set(outcomes), outcomes
    assert {each.name: each.read_text() for each in target.iterdir()} == dict.fromkeys(FILES, CONTENT)


def test_landlock_alone_keeps_it_from_files_and_from_others(tried: Tried) -> None:
    known = set().union(*(names for since, names in BY_LANDLOCK.items() if since <= landlock.abi()))
    assert refused(tried("seccomp")) >= known


def test_seccomp_alone_leaves_it_reading(tried: Tried, *, by_root: bool) -> None:
    outcomes = tried("landlock")
    left = READING | OF_PARENT if by_root else READING  # the parent is hidden from all but root
    assert set(outcomes) - refused(outcomes) == left


def test_without_any_guard_it_does_what_it_tries(tried: Tried, *, by_root: bool) -> None:
    """So that the tests above can fail. The environment is empty and the parent is hidden nevertheless."""
    outcomes = tried("landlock", "seccomp")
    possible = set().union(*BY_LANDLOCK.values()) - OF_PARENT - {"ptrace", "run a program"}
    assert {name for name, outcome in outcomes.items() if outcome == "yes"} >= possible | {"UDP", "setuid", "unshare"}
    assert refused(outcomes) >= ({"own environment"} if by_root else {"own environment", *OF_PARENT})


def test_a_kernel_without_the_guards_raises_an_alarm(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"WITHOUT": "landlock seccomp"}, module="tests.support.masked_guards") as lacking:
        alarm = lacking.client().get("/readyz").json()["alarms"]["sandbox"]
        assert alarm == "Landlock is not available: masked; seccomp is not available: masked"
        assert [line["detail"] for line in lacking.logs("server.alarm") if line["alarm"] == "sandbox"] == [alarm]
