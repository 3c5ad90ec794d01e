"""The product as its users meet it: a server process."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2
from sqlalchemy import update

from app.auth.models import users
from app.auth.principal import Role
from tests.support import databases, reaper
from tests.support.user import PASSWORD, User
from tests.support.waiting import until
from tests.support.zygote import Forked

STARTUP = 30.0


def free_port() -> int:
    """Below those that the system hands out: any outgoing connection could take such a one before it is used."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass
class Server:
    """`python -m app serve` on a data folder. Start it as often as you like.

    `module` runs the app in a world of its own making, as does a `script` if there is a `prefix`: a command that the
    server is to be run by.
    """

    data_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    module: str = "app"
    script: Path | None = None
    prefix: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | Forked | None" = None
    clients: list[httpx2.Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.data_dir.parent / f"server-{self.port}.log"

    @property
    def arguments(self) -> Sequence[str]:
        return ("serve",)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> Self:
        """Launch, and wait until it is ready."""
        self.launch()
        with httpx2.Client() as probe:
            until(lambda: self._is_ready(probe), STARTUP, lambda: f"the server did not start:\n{self._last_words}")
        return self

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
        return inherited | {
            "DATA_DIR": str(self.data_dir),
            **databases.settings(self.data_dir),
            "PORT": str(self.port),
            "LOG_FORMAT": "json",
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }

    def launch(self) -> "subprocess.Popen[bytes] | Forked":
        if "DATABASE_URL" not in self.settings:
            databases.prepare(self.data_dir)
        if not self.prefix and "WORKERS" not in self.settings:
            self.process = Forked(self.arguments, self.environment, self.log_file, module=self.module)
            return self.process
        with self.log_file.open("ab") as log:
            program = ["-m", self.module] if self.script is None else [str(self.script)]
            command = [*self.prefix, sys.executable, "-W", "error::ResourceWarning", *program, *self.arguments]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        reaper.watch(self.pid)
        return self.process

    def restarted(self, user: User, **settings: str) -> User:
        """Start again, under other settings if there are any; returns the same user."""
        self.settings |= settings
        self.start()
        return user.at(self)

    def stop(self, timeout: float = 40) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def logs(self, event: str | None = None) -> list[dict[str, Any]]:
        """The JSON log lines so far; of one event, if it is named."""
        whole, _, _ = self.log_file.read_text().rpartition("\n")  # the last line may be half written
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if event is None or line["event"] == event]

    def client(self) -> httpx2.Client:
        """An HTTP client of this server, closed with it."""
        client = httpx2.Client(base_url=self.url, timeout=60)
        self.clients.append(client)
        return client

    def register(self, email: str | None = None) -> User:
        """A new user, logged in."""
        email = email or f"{uuid4().hex}@example.com"
        http = self.client()
        answer = http.post("/auth/register", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        return self.log_in(email)

    def operator(self) -> User:
        """A new user, logged in, who is an operator."""
        user = self.register()
        with databases.engine(self.data_dir).begin() as conn:
            conn.execute(update(users).where(users.c.email == user.email).values(role=Role.OPERATOR))
        return user

    def log_in(self, email: str) -> User:
        http = self.client()
        answer = http.post("/auth/login", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        return User(self, email, http, tokens)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    @property
    def _last_words(self) -> str:
        return self.log_file.read_text()[-2000:]

    def _is_ready(self, probe: httpx2.Client) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server stopped:\n{self._last_words}"
        try:
            return probe.get(f"{self.url}/readyz").status_code == 200
        except httpx2.TransportError:
            return False


@dataclass
class Worker(Server):
    """`python -m app worker`: what is left of a server is its health."""

    @property
    def arguments(self) -> Sequence[str]:
        return ("worker", "--health-port", str(self.port))


@contextmanager
def pair(data_dir: Path, **settings: str) -> Iterator[tuple[Server, Server]]:
    """Two server processes on one data folder."""
    with Server(data_dir, settings) as first, Server(data_dir, settings) as second:
        yield first, second
