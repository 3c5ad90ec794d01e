"""Processors that are run elsewhere, and a worker that speaks to a process in this one."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx2

from tests.support.factories import pdf
from tests.support.person import Person

STATED: dict[str, Any] = {
    "count": {
        "version": "1",
        "description": "Counts elsewhere.",
        "params": {
            "type": "object",
            "properties": {"of": {"type": "string", "enum": ["bytes", "lines"], "default": "bytes"}},
            "additionalProperties": False,
        },
        "result": {
            "type": "object",
            "properties": {"count": {"type": "integer", "minimum": 0}},
            "required": ["count"],
            "additionalProperties": False,
        },
        "lease_seconds": 60,
    },
    "cut": {
        "version": "3",
        "description": "Cuts elsewhere.",
        "content_types": ["application/pdf"],
        "params": {
            "properties": {"parts": {"$ref": "#/$defs/parts", "default": 2}},
            "$defs": {"parts": {"minimum": 1}},
        },
        "result": {"required": ["parts"]},
        "makes_documents": True,
    },
    "keywords": {},
}


def described(folder: Path, stated: Any = STATED) -> Path:
    """A file for REMOTE_PROCESSORS."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "remote.json"
    file.write_text(stated if isinstance(stated, str) else json.dumps(stated))
    return file


def part(number: int) -> bytes:
    """A document that was made."""
    return pdf(f"part {number}")


class Http(Protocol):
    """Sends the requests of a worker: a process in this one, or somebody who asks a server."""

    def http(self, method: str, path: str, *, token: str = "", **body: Any) -> httpx2.Response: ...


@dataclass
class Insistent:
    """Asks a server until there is an answer, whoever kills it meanwhile."""

    url: str

    def http(self, method: str, path: str, *, token: str = "", **body: Any) -> httpx2.Response:
        headers, deadline = {"Authorization": f"Bearer {token}"}, time.monotonic() + 60
        while True:
            try:
                answer = httpx2.request(method, self.url + path, headers=headers, timeout=40, **body)
                if answer.status_code < 500 or time.monotonic() > deadline:
                    return answer
            except httpx2.TransportError:
                assert time.monotonic() < deadline, "nobody answered"
            time.sleep(0.1)


@dataclass
class Worker:
    """A worker elsewhere. `key` is of whoever may claim."""

    process: Http
    key: str
    name: str = "somewhere-1"
    held: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, operator: Person, name: str = "somewhere-1") -> "Worker":
        return cls(operator.process, operator.token, name)

    def claim(self, processor: str = "count", **said: Any) -> httpx2.Response:
        """The next job of a processor, which this one holds from now on if there is one."""
        return self._held(f"/remote/{processor}/claim", {"worker": self.name} | said)

    def claim_job(self, job_id: str) -> httpx2.Response:
        return self._held(f"/remote/jobs/{job_id}/claim", {"worker": self.name})

    def _held(self, path: str, said: dict[str, Any]) -> httpx2.Response:
        answer = self.process.http("POST", path, token=self.key, json=said)
        if answer.status_code == 200:
            self.held = answer.json()
        return answer

    def ask(self, method: str, what: str, **body: Any) -> httpx2.Response:
        """About the job that it holds."""
        path = f"/remote/jobs/{self.held['job_id']}/{what}"
        return self.process.http(method, path, token=self.held["token"], **body)

    def beat(self, progress: float = 0) -> httpx2.Response:
        return self.ask("POST", "heartbeat", json={"progress": progress})

    def send(self, number: int, content: bytes | None = None, name: str = "", **query: Any) -> httpx2.Response:
        asked = {"name": name or f"{number}.pdf"} | query
        return self.ask("PUT", f"outputs/{number}", params=asked, content=part(number) if content is None else content)

    def send_documents(self, count: int) -> list[dict[str, Any]]:
        """What completes a job that has made so many documents."""
        for number in range(count):
            answer = self.send(number, document="true")
            assert answer.status_code == 200, answer.text
        return [{"number": number} for number in range(count)]

    def complete(self, data: Any = None, outputs: Any = ()) -> httpx2.Response:
        said = {"data": {"count": 1} if data is None else data, "outputs": list(outputs)}
        return self.ask("POST", "complete", json=said)

    def fail(self, **said: Any) -> httpx2.Response:
        return self.ask("POST", "fail", json={"code": "broken", "detail": "It broke."} | said)
