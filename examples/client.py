"""A client that waits: `API_KEY=dla_… python examples/client.py http://127.0.0.1:8000 report.pdf` prints a file's text.

The key may upload, process and read documents. Without one, the client registers an account and logs in.

Python's standard library is enough. A network that fails, or a process that dies, costs nothing: with an
Idempotency-Key each call may be repeated, and is done once.
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

TRIES = 5


class Client:
    def __init__(self, url: str, api_key: str = "") -> None:
        self._url = url.rstrip("/")
        self._headers = {"X-API-Key": api_key} if api_key else {}

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Any:
        """The JSON that answers. A call that got no answer, 429 or 5xx, is repeated."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for attempt in range(TRIES):
            request = Request(self._url + path, body, self._headers | named, method=method)  # noqa: S310 - the user's URL
            try:
                with urlopen(request, timeout=60) as answer:  # noqa: S310
                    return json.load(answer)
            except HTTPError as error:
                if (error.code < 500 and error.code != 429) or attempt == TRIES - 1:
                    problem = json.load(error)
                    raise SystemExit(f"{problem['code']}: {problem['detail']}") from None
                time.sleep(float(error.headers.get("Retry-After", 2**attempt)))
            except (URLError, ConnectionError, TimeoutError):
                if attempt == TRIES - 1:
                    raise
                time.sleep(2**attempt)
        return None

    def send(self, path: str, content: dict[str, Any], **headers: str) -> Any:
        return self.call("POST", path, json.dumps(content).encode(), Content_Type="application/json", **headers)

    def log_in(self, email: str, password: str) -> None:
        tokens = self.send("/auth/login", {"email": email, "password": password})
        self._headers["Authorization"] = f"Bearer {tokens['access_token']}"

    def upload(self, file: Path) -> str:
        """The document's id."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        return str(self.call("POST", "/documents", body, Content_Type=kind, Idempotency_Key=boundary)["id"])

    def text(self, document_id: str) -> str:
        """Have the text extracted, and wait for it."""
        key = uuid.uuid4().hex
        job = self.send(f"/documents/{document_id}/process", {"processor": "text"}, Idempotency_Key=key)["job"]
        while job["state"] in {"QUEUED", "RUNNING", "WAITING"}:
            job = self.call("GET", f"/jobs/{job['id']}?wait=30")  # answers as soon as it is done
        if job["state"] != "SUCCEEDED":
            raise SystemExit(f"{job['state']}: {job['error']}")
        return str(self.call("GET", job["result_url"])["data"]["text"])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    api_key = os.environ.get("API_KEY", "")
    client = Client(sys.argv[1], api_key)
    if not api_key:
        email, password = f"{uuid.uuid4().hex}@example.com", uuid.uuid4().hex
        client.send("/auth/register", {"email": email, "password": password})
        client.log_in(email, password)
    sys.stdout.write(client.text(client.upload(Path(sys.argv[2]))) + "\n")
