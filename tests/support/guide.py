"""docs/coming-from.md, and a test's walk through one of its sections: row after row, as they stand there.

Whatever a row names in code as ours has to occur between its turn and the next one's: calls are made, and everything
else is in what was sent or answered. The server has the settings that are given; a test names those that it looks at.
"""

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import select

from app.jobs.models import jobs
from app.settings import Settings
from tests.support import databases
from tests.support.elsewhere import Worker as Elsewhere
from tests.support.receiver import Receiver
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

PAGE = Path(__file__).parents[2] / "docs/coming-from.md"
TOKEN = "0123456789abcdef" * 2
TOO_LARGE = b"%PDF-1.7\n" + bytes(200_000)  # for the settings that the page gives
FAILING: dict[str, Any] = {"processor": "simulated", "params": {"seconds": 0, "fail": "permanent"}}
QUICK: dict[str, Any] = {"processor": "simulated", "params": {"seconds": 0}}
FLAKY: dict[str, Any] = {"processor": "simulated", "params": {"seconds": 0, "fail": "transient"}}
_CODE = re.compile(r"`([^`]+)`")
_CALL = re.compile(r"(?:GET|HEAD|POST|PUT|PATCH|DELETE) /\S*")
_SETTING = re.compile(r"([A-Z][A-Z0-9_]+)(?:=(.*))?")


@dataclass(frozen=True)
class Row:
    """One thing of theirs, and the pieces of code that name what is ours."""

    theirs: str
    ours: list[str]

    @property
    def settings(self) -> dict[str, str | None]:
        """Those that it names, and what it gives them."""
        found = [_SETTING.fullmatch(code) for code in self.ours]
        return {each[1]: each[2] for each in found if each and each[1].lower() in Settings.model_fields}


def sections() -> dict[str, str]:
    """The text below each heading."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[Row]:
    """Those of all tables, without what is said of us in words only."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    body = [cells for cells in lines if cells[1].strip() not in {"Ours", "---"}]
    return [Row(cells[0].strip().replace("`", ""), ours) for cells in body if (ours := _CODE.findall(cells[1]))]


def settings(text: str) -> dict[str, str]:
    """Those that the tables give a value."""
    return {name: value for row in rows(text) for name, value in row.settings.items() if value is not None}


def named(text: str) -> set[str]:
    """What a text names in code of us: not in the first cells of tables, nor in its blocks."""
    ours = re.sub(r"^\|[^|]*\|", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return set(_CODE.findall(ours))


@dataclass
class Walk:
    """`told`: what is not an exchange with the server, but happened in this row, too."""

    server: Server
    left: deque[Row]
    row: Row | None = None
    told: list[str] = field(default_factory=list)

    def user(self) -> User:
        user = self.server.register()
        self.follow(user.http)
        return user

    def operator(self) -> User:
        user = self.server.operator()
        self.follow(user.http)
        return user

    def with_key(self, owner: User, *scopes: str) -> User:
        """The same user, with an API key."""
        made = owner.http.post("/api-keys", json={"name": "a program", "scopes": scopes}).json()
        return User(self.server, owner.email, self.anybody(**{"X-API-Key": made["key"]}), made)

    def anybody(self, **headers: str) -> httpx2.Client:
        """A client without an account."""
        client = self.server.client()
        client.headers.update(headers)
        self.follow(client)
        return client

    def http(self, method: str, path: str, *, token: str = "", **body: Any) -> httpx2.Response:
        """Send a request of a worker elsewhere."""
        with httpx2.Client(
            base_url=self.server.url, headers={"Authorization": f"Bearer {token}"}, timeout=60
        ) as client:
            self.follow(client)
            return client.request(method, path, **body)

    def follow(self, client: httpx2.Client) -> None:
        client.event_hooks = {"response": [self._note]}

    def hear(self, receiver: Receiver) -> None:
        """What a webhook was sent belongs to this row."""
        self.told += [f"{each.headers}\n{each.body}".replace("'", '"') for each in receiver.received]

    def at(self, theirs: str, *settings: str) -> None:
        """The turn of the next row, which has to begin like this, and to name these settings."""
        self._check()
        assert self.left, f"there is no row about {theirs}"
        self.row = self.left.popleft()
        assert self.row.theirs.startswith(theirs), f"the next row is about {self.row.theirs}"
        assert self.row.settings.keys() == {*settings}, f"other settings are tried in the row about {self.row.theirs}"
        self.told.clear()

    def end(self) -> None:
        self._check()
        assert [row.theirs for row in self.left] == [], "rows that nobody has tried"

    def _note(self, response: httpx2.Response) -> None:
        request = response.request
        sent = request.read()
        streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        answered = b"" if streamed else response.read()
        lines = [f"{request.method} {request.url.raw_path.decode()}"]
        lines += [f"{name}: {value}" for each in (request, response) for name, value in each.headers.items()]
        self.told.append("\n".join([*lines, str(response.status_code), *(_text(each) for each in (sent, answered))]))

    def _check(self) -> None:
        if self.row is not None:
            missing = [code for code in self.row.ours if not self._occurred(code)]
            assert missing == [], f"not tried in the row about {self.row.theirs}"

    def _occurred(self, code: str) -> bool:
        if _CALL.fullmatch(code):
            made = _made(code)
            return any(made.match(each) for each in self.told)
        setting, _, given = code.partition("=")
        if self.row and setting in self.row.settings:
            return not given or self.server.settings[setting] == given
        name, _, value = code.partition(": ")
        seen = [f'"{name}":"{value}"', f'"{name}":{value}'] if value else [f"{code.lower()}: "]
        seen.append(code.replace('": ', '":'))
        return any(each in text.replace('": ', '":') for each in seen for text in self.told)


@contextmanager
def walking(heading: str, server: Server) -> Iterator[Walk]:
    """A walk through a section, on a server that has the settings which it names."""
    text = sections()[heading]
    server.settings = settings(text) | server.settings
    with server:
        walk = Walk(server, deque(rows(text)))
        yield walk
        walk.end()


def elsewhere(walk: Walk) -> Elsewhere:
    """A worker whose calls belong to the walk."""
    key: str = walk.operator().http.post("/api-keys", json={"name": "f", "scopes": ["worker"]}).json()["key"]
    return Elsewhere(walk, key)


def scraped(walk: Walk, token: str) -> int:
    """The status of the metrics, for another host with a token."""
    http = walk.anybody(Authorization=f"Bearer {token}", **{"X-Forwarded-For": "192.0.2.1"})
    return http.get("/metrics").status_code


def longest_attempt(walk: Walk, user: User) -> float:
    """Seconds that a worker elsewhere is given, for a job of the processor `count`."""
    worker = elsewhere(walk)
    worker.claim_job(user.upload(metadata={"process": {"processor": "count"}})["job"]["id"])
    return seconds_until(datetime.fromisoformat(worker.held["deadline"]))


def lease(walk: Walk, job_id: str) -> float:
    """Seconds for which a job is held."""
    with databases.engine(walk.server.data_dir).connect() as conn:
        return seconds_until(conn.execute(select(jobs.c.locked_until).where(jobs.c.id == UUID(job_id))).scalar_one())


def seconds_until(moment: datetime) -> float:
    return (moment - datetime.now(UTC)).total_seconds()


def files_in(folder: Path) -> int:
    return sum(each.is_file() for each in folder.rglob("*"))


@contextmanager
def at_work(user: User, document_id: str) -> Iterator[str]:
    """A job that is RUNNING, and cancelled afterwards."""
    job_id: str = user.start(document_id, processor="simulated", params={"seconds": 60})["id"]
    until(lambda: user.job(job_id)["state"] == "RUNNING")
    yield job_id
    assert user.http.post(f"/jobs/{job_id}/cancel").is_success


def failed(user: User, document_id: str, **wanted: Any) -> dict[str, Any]:
    """A job that was asked for and has failed."""
    job = user.finished(user.start(document_id, **wanted)["id"])
    assert job["state"] == "FAILED"
    return job


def code(answer: httpx2.Response) -> tuple[int, str]:
    """The status and the code of a problem."""
    return answer.status_code, answer.json()["code"]


def _made(call: str) -> re.Pattern[str]:
    """What the first line of an exchange begins with if it was this call, with every parameter that is named."""
    path, _, query = call.partition("?")
    steps = "".join("[^/? ]+" if each.startswith("{") else re.escape(each) for each in re.split(r"(\{\w+\})", path))
    asked = "".join(rf"(?=.*[?&]{name}=)" for name in re.findall(r"(\w+)=", query))
    return re.compile(rf"{asked}{steps}(\?.*)?$", re.MULTILINE)


def _text(content: bytes) -> str:
    return content.decode(errors="replace")
