"""What a browser does of all that the console asks for, and what a page of it shows."""

from html.parser import HTMLParser
from typing import Any
from uuid import UUID, uuid4

import httpx2

from app.auth.principal import Role
from app.console.frame.pages import STATIC
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.user import PASSWORD

OWN = ("Sec-Fetch-Site", "same-origin")
MARKUP = "<img src=x onerror=alert(1)><script>alert(1)&amp;"
TEMPLATES = STATIC.parent / "templates"


class Browser:
    """What a browser does of all that the console asks for: keeps the cookie, follows redirects, sends forms."""

    def __init__(self, process: Process, email: str = "") -> None:
        self.process = process
        self.email = email or f"{uuid4().hex}@example.com"
        self.cookie = ""
        if not email:
            answer = process.http("POST", "/auth/register", json={"email": self.email, "password": PASSWORD})
            assert answer.status_code == 201, answer.text

    def send(self, method: str, path: str, *more: tuple[str, str], **body: Any) -> httpx2.Response:
        """One request, as of the console's own page."""
        sent = [OWN, *more, *([("Cookie", self.cookie)] if self.cookie else [])]
        answer = self.process.http(method, path, headers=sent, **body)
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer

    def get(self, path: str, *more: tuple[str, str]) -> httpx2.Response:
        return self.send("GET", path, *more)

    def post(self, path: str, /, **fields: str) -> httpx2.Response:
        """Send a form, and follow the redirect."""
        answer = self.send("POST", path, data=fields or {"nothing": ""})
        return self.get(answer.headers["location"]) if answer.status_code == 303 else answer

    def sign_in(self, password: str = PASSWORD) -> "Browser":
        answer = self.send("POST", "/console/sign-in", data={"email": self.email, "password": password})
        assert answer.status_code == 303, answer.text
        return self

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
        answer = self.process.http("POST", "/auth/login", json={"email": self.email, "password": PASSWORD})
        token: str = answer.json()["access_token"]
        return token

    def api(self, path: str) -> Any:
        return self.process.http("GET", path, token=self.token()).json()


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
