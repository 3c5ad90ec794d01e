"""People who speak to a process in this one: their requests take no network, and its work is done when asked for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2

from app.auth.principal import Role
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process

FAILING = {"seconds": 0, "fail": "permanent"}


@dataclass
class Person:
    """Somebody with an account, who speaks to the process."""

    process: Process
    email: str
    id: str
    token: str

    def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        return self.process.http(method, path, token=self.token, **options)

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **body: Any) -> Any:
        answer = self.ask("POST", path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def upload(self, text: str = "", **metadata: Any) -> str:
        form = {"files": {"file": ("a.pdf", pdf(text or uuid4().hex), PDF_TYPE)}}
        return str(self.ask("POST", "/documents", **form, data={"metadata": json.dumps(metadata)}).json()["id"])

    def job(self, document_id: str, processor: str = "simulated", **params: Any) -> str:
        """The id of a new one."""
        found = self.post(f"/documents/{document_id}/process", processor=processor, params=params)
        return str(found["job"]["id"])

    def failed(self, **metadata: Any) -> str:
        """The id of a new document whose job has failed."""
        document_id = self.upload(**metadata)
        self.process.work(UUID(self.job(document_id, **FAILING)))
        return document_id

    def jobs(self, document_id: str) -> list[str]:
        """The states of its jobs, the latest first."""
        return [each["state"] for each in self.get(f"/jobs?document_id={document_id}")["items"]]

    def story(self, document_id: str) -> list[tuple[str, str]]:
        """The events of its timeline, and who acted."""
        items = self.get(f"/documents/{document_id}/timeline?limit=100")["items"]
        return [(each["event"], each["actor"]) for each in items]


@contextmanager
def running(data_dir: Path, **settings: Any) -> Iterator[Process]:
    process = Process(data_dir, **settings)
    yield process
    process.kill()


def person(process: Process, role: Role = Role.USER) -> Person:
    email = f"{uuid4().hex}@example.com"
    return Person(process, email, *process.enter(email, role))
