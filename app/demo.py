"""The main use case end to end, as a client that needs only the standard library."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from typer import echo

_APP = Path(__file__).parent
_SAMPLES = _APP / "samples"
STARTUP_TIMEOUT = 20.0  # seconds


class DemoError(Exception):
    """The demo cannot continue; the message is one line that says why."""


class _NotReady(DemoError):
    """The URL does not answer yet, or answers 503."""


def run(url: str | None) -> None:
    """Register, log in, upload a PDF and a DOCX, process both, and print results and timelines.

    Without a URL, a server is started for the demo, and its data removed afterwards. Raises DemoError.
    """
    with nullcontext(url) if url else _throwaway_server() as address:
        client = _Client(address)
        if url and not client.is_ready():
            echo(f"Waiting for {url}, {STARTUP_TIMEOUT:.0f} seconds at most", err=True)
        _show(client)


@contextmanager
def _throwaway_server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="document-api-demo-") as folder:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        server = subprocess.Popen([sys.executable, "-m", "app", "serve"], env=environment(folder, port), cwd=folder)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def environment(folder: str, port: int) -> dict[str, str]:
    """Settings of a server whose data are all in an empty folder. Nothing is inherited that could name real data."""
    secrets = Path(folder, "no-secrets")
    secrets.mkdir()
    settings = {"DATA_DIR": folder, "SECRETS_DIR": str(secrets), "PORT": str(port), "LOG_LEVEL": "WARNING"}
    return {"PYTHONPATH": str(_APP.parent), **settings}


class _Client:
    """A minimal client of the API at a URL: JSON in and out."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            named = parts.scheme in {"http", "https"} and re.fullmatch(r"[\w.:\[\]-]+", parts.netloc)
            usable = named and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise DemoError("--url must be http://host:port or https://host:port")
        self._url, self._host, self._path = url, parts.netloc, parts.path.rstrip("/")
        self._connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._headers: dict[str, str] = {}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request and return the decoded response.

        Raises _NotReady without a response or for a 503, DemoError for any other error, or a response that is not JSON.
        """
        if not isinstance(body, bytes | None):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        status, text = self._exchange(method, path, body, self._headers | headers)
        summary = f"{self._url}: {method} {path} → {status}"
        if status == 503:  # from a proxy it need not be a problem object
            raise _NotReady(summary)
        try:
            answer = json.loads(text or "null")
            problem = answer["detail"] if status >= 400 else None
        except (ValueError, LookupError, TypeError):
            raise DemoError(f"{summary}, which is not how this service answers") from None
        if problem:
            raise DemoError(f"{summary}: {problem}")
        echo(f"{method:5} {path} → {status}")
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = self._connect(self._host, timeout=60)
        try:
            connection.request(method, self._path + path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError as error:
            raise _NotReady(f"{self._url}: {error.strerror or error}") from None
        except (HTTPException, ValueError) as error:
            raise DemoError(f"{self._url}: {error!r}") from None
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether /readyz answers 200 now."""
        try:
            self.call("GET", "/readyz")
        except _NotReady:
            return False
        return True

    def wait_until_ready(self) -> Any:
        """Return the first answer of /readyz that is 200. Raises DemoError after STARTUP_TIMEOUT."""
        deadline = time.monotonic() + STARTUP_TIMEOUT
        while True:
            try:
                return self.call("GET", "/readyz")
            except _NotReady:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def log_in(self, email: str, password: str) -> None:
        """Create an account, and send its access token from now on. Raises DemoError."""
        self.call("POST", "/auth/register", {"email": email, "password": password})
        tokens = self.call("POST", "/auth/login", {"email": email, "password": password})
        self._headers["Authorization"] = f"Bearer {tokens['access_token']}"

    def upload(self, file: Path) -> Any:
        """Upload a file and return the document. Raises DemoError."""
        boundary = uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return self.call("POST", "/documents", body, **{"Content-Type": kind, "Idempotency-Key": uuid4().hex})


def _show(client: _Client) -> None:
    client.wait_until_ready()
    client.log_in(f"ada-{uuid4().hex[:8]}@example.com", "correct horse battery staple")
    for name in ("sample.pdf", "sample.docx"):
        document = client.upload(_SAMPLES / name)
        work = {"processor": "text"} if name.endswith("docx") else {"params": {"seconds": 1}}
        accepted = client.call("POST", f"/documents/{document['id']}/process", work, **{"Idempotency-Key": uuid4().hex})
        client.call("GET", f"/jobs/{accepted['job']['id']}?wait=30")
        result = client.call("GET", f"/documents/{document['id']}/result")
        echo(json.dumps(result["data"], indent=2, ensure_ascii=False))
        for event in client.call("GET", f"/documents/{document['id']}/timeline")["items"]:
            echo(f"  {event['at']}  {event['event']:24} {json.dumps(event['data'])[:90]}")
