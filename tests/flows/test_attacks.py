"""One account, or one stranger, cannot take the service away from the others.

Each attack runs while another account works. The bound here is coarse: without its guard, an attack costs the other
many seconds, or all. `make attacks` measures against the fine one on a machine that does nothing else.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import reaper
from tests.support.server import Server
from tests.support.user import User
from tests.support.victim import Victim, memory

SECONDS = 0.8
CALM = 0.2  # seconds before and after
SLOWEST = 8.0  # seconds of any operation, or twice as long as before
GROWTH = 150 * 1024**2  # of a server process
STRANGERS = ("hold", "unknown_fields", "few_unknown_fields", "logins")
ACCOUNTS = ("slow_uploads", "slow_downloads", "look_alikes", "costly_files", "long_jobs", "announcements", "lists")


@contextmanager
def attacking(name: str, server: Server, attacker: User | None, document_id: str = "") -> Iterator[None]:
    """An attack that goes on while the block runs."""
    token = attacker.tokens["access_token"] if attacker else ""
    command = [sys.executable, "-m", "tests.support.attacks", name, server.url, token, document_id]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        reaper.watch(process.pid)
        time.sleep(0.5)
        yield
        assert process.poll() is None, "the attacker has given up"
        process.kill()


def document_of(attacker: User) -> str:
    return str(attacker.upload(b"%PDF-1.7\n%" + bytes(20_000_000) + b"\nstartxref\n0\n%%EOF\n")["id"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("processes", "names"),
    [(1, (*STRANGERS, *ACCOUNTS)), (2, ("logins", "slow_uploads"))],
    ids=["one process", "two processes"],
)
def test_others_work_on_during_an_attack(
    processes: int, names: Sequence[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with Server(tmp_path / "var", {"WORKERS": str(processes)} if processes > 1 else {}) as server:
        victim = Victim(server)
        for name in names:
            attacker = server.register() if name in ACCOUNTS else None
            document_id = document_of(attacker) if attacker and name == "slow_downloads" else ""
            before, used = victim.slowest(CALM), memory(server)
            with attacking(name, server, attacker, document_id):
                during, grown = victim.slowest(SECONDS), memory(server) - used
            after = victim.slowest(CALM)
            record_property(name, {key: [f"{each[key]:.3f}" for each in (before, during, after)] for key in before})
            for key, took in during.items():
                bound = max(SLOWEST, 2 * before[key])
                assert took <= bound, f"{name}: {key} took {took:.2f} s, and {before[key]:.2f} s before"
                assert after[key] <= bound, f"{name}: {key} takes {after[key]:.2f} s still"
            assert grown < GROWTH * processes, f"{name}: {grown}"
