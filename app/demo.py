"""The main job end to end: what a client does, in the standard library's own words."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from typer import echo

APP = Path(__file__).parent
SAMPLES = APP / "samples"
STARTUP = 20.0  # seconds


def run(url: str | None) -> None:
    """Register, log in, upload a PDF and a DOCX, process them, watch, print results and a timeline."""
    with nullcontext(url) if url else _throwaway_server() as address:
        _show(Client(address))


@contextmanager
def _throwaway_server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="document-api-demo-") as folder:
        port = _free_port()
        # Neither the settings around us nor a .env file: they may name real data.
        environment = {"PYTHONPATH": str(APP.parent), "DATA_DIR": folder, "PORT": str(port), "LOG_LEVEL": "WARNING"}
        server = subprocess.Popen([sys.executable, "-m", "app", "serve"], env=environment, cwd=folder)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


class Client:
    """A minimal client of the API at a URL: JSON in and out."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host = parts.netloc
        self._path = parts.path.rstrip("/")
        self._headers: dict[str, str] = {}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Raises RuntimeError with the problem's detail on any error answer."""
        if not isinstance(body, bytes | None):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        connection = self._connect(self._host, timeout=60)
        try:
            connection.request(method, self._path + path, body, self._headers | headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"null")
        finally:
            connection.close()
        echo(f"{method:5} {path} → {response.status}")
        if response.status >= 400:
            raise RuntimeError(answer["detail"])
        return answer

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTUP
        while True:
            try:
                self.call("GET", "/readyz")
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def log_in(self, email: str, password: str) -> None:
        self.call("POST", "/auth/register", {"email": email, "password": password})
        tokens = self.call("POST", "/auth/login", {"email": email, "password": password})
        self._headers["Authorization"] = f"Bearer {tokens['access_token']}"

    def upload(self, file: Path) -> Any:
        boundary = uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return self.call("POST", "/documents", body, **{"Content-Type": kind, "Idempotency-Key": uuid4().hex})


def _show(client: Client) -> None:
    client.wait_until_ready()
    client.log_in(f"ada-{uuid4().hex[:8]}@example.com", "correct horse battery staple")
    for name in ("sample.pdf", "sample.docx"):
        document = client.upload(SAMPLES / name)
        work = {"processor": "text"} if name.endswith("docx") else {"params": {"seconds": 1}}
        accepted = client.call("POST", f"/documents/{document['id']}/process", work, **{"Idempotency-Key": uuid4().hex})
        client.call("GET", f"/jobs/{accepted['job']['id']}?wait=30")
        result = client.call("GET", f"/documents/{document['id']}/result")
        echo(json.dumps(result["data"], indent=2, ensure_ascii=False))
        for event in client.call("GET", f"/documents/{document['id']}/timeline")["items"]:
            echo(f"  {event['at']}  {event['event']:24} {json.dumps(event['data'])[:90]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
