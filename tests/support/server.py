"""The product as its users meet it: a server process, and people who speak HTTP to it."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import httpx2

from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.zygote import Forked

PASSWORD = "correct horse battery staple"
STARTUP = 30.0

T = TypeVar("T")


def until(condition: Callable[[], T], timeout: float = 20) -> T:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
    return value


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

    `module` runs the app in a world of its own making, `prefix` is a command that the server is to be run by.
    """

    data_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    module: str = "app"
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
            self._wait_until_ready(probe)
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
        if self.module == "app" and not self.prefix and "WORKERS" not in self.settings:
            self.process = Forked(self.arguments, self.environment, self.log_file)
            return self.process
        with self.log_file.open("ab") as log:
            command = [*self.prefix, sys.executable, "-W", "error::ResourceWarning", "-m", self.module, *self.arguments]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        return self.process

    def restarted(self, user: "User", **settings: str) -> "User":
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

    def register(self, email: str | None = None) -> "User":
        """A new user, logged in."""
        email = email or f"{uuid4().hex}@example.com"
        http = self.client()
        answer = http.post("/auth/register", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        return self.log_in(email)

    def log_in(self, email: str) -> "User":
        http = self.client()
        answer = http.post("/auth/login", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        return User(self, email, http, tokens)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for client in self.clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def _wait_until_ready(self, probe: httpx2.Client) -> None:
        assert self.process is not None
        deadline = time.monotonic() + STARTUP
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server stopped:\n{self.log_file.read_text()[-2000:]}")
            try:
                if probe.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log_file.read_text()[-2000:]}")


@dataclass
class Worker(Server):
    """`python -m app worker`: what is left of a server is its health."""

    @property
    def arguments(self) -> Sequence[str]:
        return ("worker", "--health-port", str(self.port))


@dataclass
class User:
    """Somebody with an account and a client that carries their token."""

    server: Server
    email: str
    http: httpx2.Client
    tokens: dict[str, Any]

    def at(self, server: Server) -> "User":
        """The same user, speaking to another server on the same data."""
        http = server.client()
        http.headers["Authorization"] = self.http.headers["Authorization"]
        return User(server, self.email, http, self.tokens)

    def post_file(
        self,
        content: bytes,
        name: str = "report.pdf",
        *,
        metadata: Any = None,
        key: str | None = None,
        content_type: str = PDF_TYPE,
    ) -> httpx2.Response:
        """POST /documents. `metadata` that is not text is sent as JSON."""
        data = {} if metadata is None else {"metadata": metadata if isinstance(metadata, str) else json.dumps(metadata)}
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.http.post("/documents", files={"file": (name, content, content_type)}, data=data, headers=headers)

    def upload(self, content: bytes | None = None, name: str = "report.pdf", **options: Any) -> dict[str, Any]:
        """Upload a (new) document, and expect it to be accepted."""
        answer = self.post_file(content or pdf(uuid4().hex), name, **options)
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def process(self, document_id: str, *, key: str | None = None, **wanted: Any) -> httpx2.Response:
        """POST /documents/{id}/process; without anything wanted, quick simulated work."""
        headers = {} if key is None else {"Idempotency-Key": key}
        wanted = wanted or {"params": {"seconds": 0}}
        return self.http.post(f"/documents/{document_id}/process", json=wanted, headers=headers)

    def start(self, document_id: str, **wanted: Any) -> dict[str, Any]:
        """Process, expect it to be accepted, and return the job."""
        answer = self.process(document_id, **wanted)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()["job"]
        return job

    def begin(self, seconds: float) -> tuple[str, str]:
        """The ids of a new document and of its job, which is at work."""
        document_id = self.upload()["id"]
        job_id = self.start(document_id, params={"seconds": seconds})["id"]
        until(lambda: self.job(job_id)["state"] != "QUEUED")
        return document_id, job_id

    def job(self, job_id: str) -> dict[str, Any]:
        job: dict[str, Any] = self.http.get(f"/jobs/{job_id}").json()
        return job

    def finished(self, job_id: str, timeout: float = 60) -> dict[str, Any]:
        """The job once it is finished."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.http.get(f"/jobs/{job_id}", params={"wait": 10}).json()
            if job["state"] not in {"QUEUED", "RUNNING"}:
                return job
        raise AssertionError(f"not finished in time: {job}")

    def writes(self, document_id: str, job_id: str) -> dict[str, Callable[[], httpx2.Response]]:
        """Every call that writes, by its place in the API's description. Two have keys: `upload` and `process`."""
        post = self.http.post
        token = {"refresh_token": self.tokens["refresh_token"]}
        stranger = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        path, content = f"/documents/{document_id}", pdf(uuid4().hex)
        announced = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": len(content)}
        return {
            "post /auth/register": lambda: post("/auth/register", json=stranger),
            "post /auth/login": lambda: post("/auth/login", json={"email": self.email, "password": PASSWORD}),
            "post /auth/refresh": lambda: post("/auth/refresh", json=token),
            "post /auth/logout": lambda: post("/auth/logout", json=token),
            "post /documents": lambda: self.post_file(content, key="upload"),
            "post /documents/initiate-upload": lambda: post("/documents/initiate-upload", json=announced),
            "patch /documents/{document_id}": lambda: self.http.patch(path, json={"folder": "f"}),
            "delete /documents/{document_id}": lambda: self.http.delete(path),
            "post /documents/{document_id}/process": lambda: self.process(document_id, key="process"),
            "post /jobs/{job_id}/cancel": lambda: post(f"/jobs/{job_id}/cancel"),
        }

    def document(self, document_id: str) -> dict[str, Any]:
        document: dict[str, Any] = self.http.get(f"/documents/{document_id}").json()
        return document

    def story(self, document_id: str) -> list[str]:
        """What happened to the document, in the short words of its jobs."""
        names = [event["event"] for event in self.events(document_id)]
        return [name.removeprefix("job.") for name in names if name.startswith("job.")]

    def events(self, document_id: str) -> list[dict[str, Any]]:
        """The document's whole timeline, oldest first."""
        items: list[dict[str, Any]] = self.http.get(f"/documents/{document_id}/timeline?limit=100").json()["items"]
        return items


@contextmanager
def pair(data_dir: Path, **settings: str) -> Iterator[tuple[Server, Server]]:
    """Two server processes on one data folder."""
    with Server(data_dir, settings) as first, Server(data_dir, settings) as second:
        yield first, second
