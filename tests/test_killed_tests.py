"""A test process that is killed, or that ends itself because a test hangs, leaves nothing behind."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import databases, seaweed
from tests.support.waiting import until

ROOT = Path(__file__).parents[1]
HANGS = f"""
import faulthandler, os, signal, time
from contextlib import nullcontext
from pathlib import Path
from tests.support import databases, seaweed
from tests.support.server import Server
from tests.support.waiting import until

def test_hangs(tmp_path):
    forked = Server(tmp_path / "forked" / "var")
    started = Server(tmp_path / "started" / "var", module="tests.support.small_limits")
    store = seaweed.running(tmp_path / "store") if {seaweed.WEED is not None} else nullcontext()
    for server in (forked, started):
        server.data_dir.parent.mkdir()
    with forked, started, store:
        forked.signal(signal.SIGSTOP)
        Path(__file__).with_name("ready").write_text(databases.url(forked.data_dir))
        until(Path(__file__).with_name("hang").exists, 60)
        faulthandler.dump_traceback_later(0.01, exit=True)
        time.sleep(60)
"""

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]


def session_of(leader: int) -> Iterator[str]:
    """What runs in the session that a process has begun."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (process / "stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):  # just ended
            continue
        state, _, _, session, *_ = rest.split()
        if int(session) == leader and state != "Z":
            yield name


def names() -> set[str]:
    with databases.past(databases.make_url(databases.SERVER)).connect() as conn:
        return set(conn.exec_driver_sql("SELECT datname FROM pg_database").scalars())


@pytest.mark.parametrize("hung", [False, True], ids=["killed", "hung"])
def test_nothing_is_left(hung: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter of the test
    (tmp_path / "test_hangs.py").write_text(HANGS)
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "pytest", "-n0", f"--basetemp={tmp_path / 'base'}", "-p", "no:cacheprovider"]
    options = ["-c", "pyproject.toml", "--rootdir=.", str(tmp_path / "test_hangs.py")]
    with subprocess.Popen([*command, *options], cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE) as tests:
        until(lambda: (ready.exists() and ready.read_text()) or tests.poll() is not None, 60)
        assert ready.exists(), tests.communicate()
        running = set(session_of(tests.pid))
        assert len(running) >= 4, running
        (tmp_path / "hang").touch() if hung else tests.kill()
        assert tests.wait(60) == (1 if hung else -signal.SIGKILL)
    until(lambda: not set(session_of(tests.pid)))
    if databases.POSTGRESQL:
        left = databases.make_url(ready.read_text()).database
        own = databases.make_url(databases.url(tmp_path)).database
        assert {left, own} <= names()
        until(lambda: databases.drop_left() or left not in names())
        assert own in names()
