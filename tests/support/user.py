"""People who speak HTTP to the product."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2

from tests.support.factories import PDF_TYPE, pdf
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.support.server import Server

PASSWORD = "correct horse battery staple"


@dataclass
class User:
    """Somebody with an account and a client that carries their token."""

    server: "Server"
    email: str
    http: httpx2.Client
    tokens: dict[str, Any]

    def at(self, server: "Server") -> "User":
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
            if job["state"] not in {"QUEUED", "RUNNING", "WAITING"}:
                return job
        raise AssertionError(f"not finished in time: {job}")

    def writes(self, document_id: str, job_id: str) -> dict[str, Callable[[], httpx2.Response]]:
        """Every call that writes, by its place in the API's description. Two have keys: `upload` and `process`."""
        post = self.http.post
        token = {"refresh_token": self.tokens["refresh_token"]}
        stranger = {"email": f"{uuid4().hex}@example.com", "password": PASSWORD}
        same = {"current_password": PASSWORD, "new_password": PASSWORD}
        path, content = f"/documents/{document_id}", pdf(uuid4().hex)
        announced = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": len(content)}
        return {
            "post /auth/register": lambda: post("/auth/register", json=stranger),
            "post /auth/login": lambda: post("/auth/login", json={"email": self.email, "password": PASSWORD}),
            "post /auth/token": lambda: post("/auth/token", data={"username": self.email, "password": PASSWORD}),
            "post /auth/password": lambda: post("/auth/password", json=same),
            "post /auth/refresh": lambda: post("/auth/refresh", json=token),
            "post /auth/logout": lambda: post("/auth/logout", json=token),
            "post /api-keys": lambda: post("/api-keys", json={"name": "a", "scopes": ["documents:read"]}),
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
