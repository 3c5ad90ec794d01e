"""What a browser does of all that the console asks for, and what a page of it shows."""

import re
from functools import cache
from html.parser import HTMLParser
from typing import Any
from uuid import UUID, uuid4

import httpx2
from sqlalchemy import select

from app.auth import sessions, users
from app.auth.models import users as accounts
from app.auth.passwords import ARGON2
from app.auth.principal import Role
from app.console.frame import cookie
from app.console.frame.pages import STATIC
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.user import PASSWORD

OWN = ("Sec-Fetch-Site", "same-origin")
MARKUP = "<img src=x onerror=alert(1)><script>alert(1)&amp;"
TEMPLATES = STATIC.parent / "templates"


@cache
def _hashed() -> str:
    """The hash of everybody's password."""
    return str(ARGON2.hash(PASSWORD))


class Browser:
    """What a browser does of all that the console asks for: keeps the cookie, follows redirects, sends forms."""

    def __init__(self, process: Process, email: str = "") -> None:
        self.process = process
        self.email = email or f"{uuid4().hex}@example.com"
        self.cookie = ""
        self.done = ""  # what the last redirect says was done
        if not email:
            process.write(users.add, self.email, _hashed())

    def send(self, method: str, path: str, *more: tuple[str, str], **body: Any) -> httpx2.Response:
        """One request, as of the console's own page."""
        sent = [OWN, *more, *([("Cookie", self.cookie)] if self.cookie else [])]
        answer = self.process.http(method, path, headers=sent, **body)
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        if "location" in answer.headers:
            answer.headers["location"], self.done = _apart(answer.headers["location"])
        return answer

    def get(self, path: str, *more: tuple[str, str]) -> httpx2.Response:
        return self.send("GET", path, *more)

    def post(self, path: str, /, **fields: str) -> httpx2.Response:
        """Send a form, and follow the redirect."""
        answer = self.send("POST", path, data=fields or {"nothing": ""})
        return self.get(answer.headers["location"]) if answer.status_code == 303 else answer

    def sign_in(self, password: str = "") -> "Browser":
        """Have a session: by the form with a password, else without, since to hash one takes long."""
        if password:
            answer = self.send("POST", "/console/sign-in", data={"email": self.email, "password": password})
            assert answer.status_code == 303, answer.text
        else:
            session = self.process.write(sessions.begin_in_browser, self._id, self.process.services.settings)
            self.cookie = f"{cookie.NAME}={session.cookie}"
        return self

    @property
    def _id(self) -> UUID:
        found = select(accounts.c.id).where(accounts.c.email == self.email)
        return UUID(str(self.process.write(lambda conn: conn.scalar(found))))

    def promote(self) -> "Browser":
        """Make the account an operator."""
        self.process.operate(lambda accounts: accounts.set_role(self.email, Role.OPERATOR))
        return self

    def upload(self, **more: Any) -> str:
        """The id of a document that was uploaded by the console's form."""
        fields = {"description": "", "folder": "", "tags": "", "process": "", "process_params": "", **more}
        name = fields.pop("filename", "report.pdf")
        content = fields.pop("content", pdf())
        answer = self.send("POST", "/console/documents", data=fields, files={"file": (name, content, PDF_TYPE)})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"].rpartition("/")[2]

    def token(self) -> str:
        """An access token of the same account."""
        session = self.process.write(sessions.begin, self._id, self.process.services.settings)
        answer = self.process.http("POST", "/auth/refresh", json={"refresh_token": session.refresh_token})
        token: str = answer.json()["access_token"]
        return token

    def api(self, path: str) -> Any:
        return self.process.http("GET", path, token=self.token()).json()


def _apart(location: str) -> tuple[str, str]:
    """Where it leads, and what was done."""
    found = re.search(r"[?&]done=([a-z-]+)", location)
    return (location.replace(found[0], ""), found[1]) if found else (location, "")


class Seen(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [each[name] or "" for found, each in self.tags if found == tag and name in each]


def worked(browser: Browser, document_id: str) -> None:
    """Run the document's latest job."""
    browser.process.work(UUID(browser.api(f"/documents/{document_id}")["job_id"]))
