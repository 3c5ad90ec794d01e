"""The servers that are compared. Each runs on the first core, in a data folder of its own; the load on the last."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks import load
from tests.benchmarks.load import Load
from tests.support.server import free_port

CORES = sorted(os.sched_getaffinity(0))
PATIENCE = 60.0  # seconds for a server to start, or to stop

UVICORN = ("-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--port")
ACCOUNT = {"email": "ada@example.com", "password": "correct horse battery staple"}


def say(kind: str, text: str):
    """Tell of progress, where it does not get into the table."""
    sys.stderr.write(f"    {kind:8}  {text}\n")


@dataclass
class Server:
    kind: str
    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"

    def drive(
        self, requests: Iterable[bytes], connections: int, seconds: float = math.inf, *, keep: bool = False
    ) -> Load:
        """As `load.drive`; says what it took."""
        before = self.cpu
        done = load.drive(self.port, requests, connections, seconds, keep=keep)
        each = (self.cpu - before) / max(done.statuses.total(), 1) * 1000
        say(
            self.kind,
            f"{done.rate:,.1f}/s, p99 {done.p99 * 1000:.1f} ms, {done.failures} failed, "
            f"{each:.3f} ms of the server's processor each, client {done.client:.0%} busy",
        )
        return done

    def ask(self, request: bytes) -> Any:
        """The JSON that answers a request which must succeed."""
        done = load.drive(self.port, [request], 1, keep=True)
        assert not done.failures, (request[:100], done)
        return json.loads(done.answers[0])

    def login(self) -> str:
        """An access token. The account exists from then on."""
        load.drive(self.port, [load.post("/auth/register", **ACCOUNT)], 1)
        token: str = self.ask(load.post("/auth/login", **ACCOUNT))["access_token"]
        return token

    @property
    def cpu(self) -> float:
        """Processor time used so far, in seconds."""
        user, system = self._proc("stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def rss(self) -> float:
        """Resident memory, in MB."""
        return self._memory("VmRSS")

    @property
    def peak_rss(self) -> float:
        """The most since `forget_peak`, in MB."""
        return self._memory("VmHWM")

    def forget_peak(self):
        self._proc("clear_refs").write_text("5")

    def _memory(self, name: str) -> float:
        found = re.search(rf"{name}:\s+(\d+) kB", self._proc("status").read_text())
        assert found
        return int(found[1]) / 1024

    def _proc(self, file: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{file}")


@contextmanager
def running(kind: str, folder: Path | None = None, **settings: str) -> Iterator[Server]:
    """A server that answers, on the data in `folder` or on none."""
    with TemporaryDirectory(prefix="benchmark-") as fresh:
        server = _launch(kind, folder or Path(fresh), settings)
        try:
            _wait(server)
            yield server
        finally:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(PATIENCE)


def _launch(kind: str, folder: Path, settings: dict[str, str]) -> Server:
    port = free_port()
    command = {
        "product": ("-m", "tests.support.visible", "serve"),
        "textbook": (*UVICORN, str(port), "tests.benchmarks.textbook:app"),
        "limit": (*UVICORN, str(port), "tests.benchmarks.limit:app"),
    }[kind]
    environment = {
        "PATH": os.environ["PATH"],
        "ENVIRONMENT": "production",
        "REGISTRATION": "open",
        "JWT_SECRET": "a secret of at least thirty-two bytes",
        "AUDIT_KEY": "a key of at least thirty-two bytes as well",
        "DATA_DIR": str(folder),
        "PORT": str(port),
        **settings,
    }
    with (folder / "log").open("ab") as log:
        pinned = ("taskset", "--cpu-list", str(CORES[0]), sys.executable, *command)
        return Server(kind, folder, port, subprocess.Popen(pinned, env=environment, stdout=log, stderr=log))


def _wait(server: Server):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            server.ask(load.get("/livez"))
        except ConnectionRefusedError:
            time.sleep(0.005)
        else:
            return
    raise AssertionError(f"{server.kind} did not start:\n{(server.folder / 'log').read_text()[-2000:]}")
