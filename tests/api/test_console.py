"""The console: who is signed in, which forms are taken, and that every page shows what users wrote as text."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import select, update

from app.auth.models import token_families
from app.console.pages import STATIC
from app.database import now
from app.main import FEATURES
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.user import PASSWORD

OWN = ("Sec-Fetch-Site", "same-origin")
MARKUP = "<img src=x onerror=alert(1)><script>alert(1)&amp;"
TEMPLATES = STATIC.parent / "templates"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("console"), processors="simulated,text,split,merge,language,keywords")
    yield process
    process.kill()


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


@pytest.fixture(scope="module")
def ada(process: Process) -> Browser:
    return Browser(process).sign_in()


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


# Signing in and out


def test_signing_in_leads_to_the_page_that_was_asked_for(process: Process) -> None:
    browser = Browser(process)
    asked = browser.get("/console/documents?status=FAILED&q=a%20b")
    assert asked.status_code == 303
    form = browser.get(asked.headers["location"])
    [then] = [each["value"] for tag, each in Seen(form.text).tags if each.get("name") == "next"]
    fields = {"email": browser.email, "password": PASSWORD, "next": str(then)}
    arrived = browser.send("POST", "/console/sign-in", data=fields)
    shown = browser.get(arrived.headers["location"])
    assert (shown.status_code, shown.headers["location"]) == (303, "/console/documents?status=FAILED&q=a%20b")
    assert browser.get(shown.headers["location"]).status_code == 200


@pytest.mark.parametrize("then", ["//evil.example", "https://evil.example", "/evil", "..//evil.example", "\r\nx: y"])
def test_signing_in_leads_to_no_other_host(ada: Browser, then: str) -> None:
    fields = {"email": ada.email, "password": PASSWORD, "next": then}
    browser = Browser(ada.process, ada.email)
    arrived = browser.send("POST", "/console/sign-in", data=fields)
    assert browser.get(arrived.headers["location"]).headers["location"].startswith("/console/")


def test_the_cookie_is_for_this_host_and_for_no_script(process: Process) -> None:
    browser = Browser(process)
    fields = {"email": browser.email, "password": PASSWORD}
    answer = browser.send("POST", "/console/sign-in", data=fields)
    value, *attributes = answer.headers["set-cookie"].split("; ")
    assert value.startswith("__Host-session=")
    assert len(value) > 50
    assert {each.lower() for each in attributes} == {"httponly", "path=/", "samesite=strict", "secure"}
    rows = process.write(lambda conn: conn.execute(select(token_families.c.cookie_hash)).scalars().all())
    assert value.partition("=")[2].encode() not in rows


def test_a_wrong_password_is_said_on_the_form(process: Process, ada: Browser) -> None:
    browser = Browser(process, ada.email)
    unknown = Browser(process, "nobody@example.com")
    for each in (browser, unknown):
        answer = each.send("POST", "/console/sign-in", data={"email": each.email, "password": "wrong password"})
        assert answer.status_code == 401
        assert "Wrong email or password" in Seen(answer.text).text
        assert each.email in Seen(answer.text).attributes("input", "value")
        assert not each.cookie


def test_failed_attempts_count_like_those_of_the_api(process: Process) -> None:
    browser = Browser(process)
    fields = {"email": browser.email, "password": "wrong password"}
    answers = [browser.send("POST", "/console/sign-in", data=fields) for _ in range(12)]
    assert [each.status_code for each in answers].count(429) > 0
    assert int(answers[-1].headers["retry-after"]) > 0
    login = process.http("POST", "/auth/login", json={"email": browser.email, "password": PASSWORD})
    assert login.status_code == 429


def test_without_tls_signing_in_says_that_it_needs_it(process: Process, ada: Browser) -> None:
    form = process.http("GET", "/console/sign-in")
    assert "needs HTTPS" in Seen(form.text).text
    assert "needs HTTPS" not in Seen(ada.get("/console/sign-in").text).text
    fields = {"email": ada.email, "password": PASSWORD}
    answer = process.http("POST", "/console/sign-in", headers=[("Origin", "http://app")], data=fields)
    assert answer.status_code == 403
    assert "needs HTTPS" in Seen(answer.text).text
    assert "set-cookie" not in answer.headers


def test_a_browser_that_keeps_no_cookie_is_told(process: Process, ada: Browser) -> None:
    fields = {"email": ada.email, "password": PASSWORD}
    answer = process.http("POST", "/console/sign-in", headers=[OWN], data=fields)
    arrived = process.http("GET", answer.headers["location"], headers=[OWN])
    assert "has not kept the session's cookie" in Seen(arrived.text).text


def test_signing_out_ends_the_session(process: Process) -> None:
    browser = Browser(process).sign_in()
    cookie = browser.cookie
    answer = browser.send("POST", "/console/sign-out")
    assert answer.status_code == 303
    assert "Max-Age=0" in answer.headers["set-cookie"]
    browser.cookie = cookie
    assert browser.get("/console").headers["location"].startswith("/console/sign-in")


# The session


def test_the_session_is_listed_and_ended_by_the_api(process: Process) -> None:
    browser = Browser(process).sign_in()
    token = browser.token()
    listed = process.http("GET", "/auth/sessions", token=token).json()["items"]
    assert [each["current"] for each in listed] == [True, False]
    assert browser.get("/console").status_code == 200
    assert process.http("DELETE", "/auth/sessions", token=token).status_code == 204
    assert browser.get("/console").status_code == 303


def test_sessions_are_shown_and_ended_in_the_console(process: Process) -> None:
    browser, other = (Browser(process).sign_in() for _ in range(2))
    other = Browser(process, browser.email).sign_in()
    token = browser.token()
    page = browser.get("/console/sessions")
    ends = [each for each in Seen(page.text).attributes("form", "action") if re.search(r"[0-9a-f]/end$", each)]
    assert len(ends) == 3
    assert browser.post(ends[1]).status_code == 200
    assert other.get("/console").status_code == 303
    assert browser.post("/console/sessions/end-others").status_code == 200
    assert process.http("GET", "/auth/me", token=token).status_code == 401
    assert browser.get("/console").status_code == 200


def test_another_password_ends_the_session(process: Process) -> None:
    browser = Browser(process).sign_in()
    body = {"current_password": PASSWORD, "new_password": "another one, and as long"}
    assert process.http("POST", "/auth/password", token=browser.token(), json=body).status_code == 204
    assert browser.get("/console").status_code == 303


def test_disabling_the_account_ends_the_session(process: Process) -> None:
    browser = Browser(process).sign_in()
    process.operate(lambda accounts: accounts.disable(browser.email))
    assert browser.get("/console").status_code == 303


def test_the_session_ends_unless_it_is_used_and_in_any_case_in_the_end(process: Process) -> None:
    browser = Browser(process).sign_in()

    def ends(**values: Any) -> Any:
        def unit(conn: Any) -> Any:
            newest = select(token_families.c.id).order_by(token_families.c.id.desc()).limit(1).scalar_subquery()
            if values:
                conn.execute(update(token_families).where(token_families.c.id == newest).values(**values))
            found = conn.execute(
                select(token_families.c.expires_at, token_families.c.last_used_at).where(token_families.c.id == newest)
            )
            return found.one()

        return process.write(unit)

    settings = process.services.settings
    before = ends(expires_at=now(60), last_used_at=now(-settings.refresh_token_ttl + 60))
    assert browser.get("/console").status_code == 200
    after = ends()
    assert (after.expires_at - before.expires_at).total_seconds() > settings.refresh_token_ttl - 120
    assert after.last_used_at > before.last_used_at
    assert browser.get("/console").status_code == 200
    assert ends() == after, "not with each page"
    ends(expires_at=now(-1))
    assert browser.get("/console").status_code == 303


# What is taken from whom


def test_the_api_takes_no_cookie_and_the_console_nothing_else(process: Process, ada: Browser) -> None:
    for path in ("/auth/me", "/documents", "/auth/sessions"):
        assert ada.get(path).status_code == 401
    value = ada.cookie.partition("=")[2]
    assert process.http("GET", "/auth/me", token=value).status_code == 401
    assert process.http("POST", "/auth/refresh", json={"refresh_token": value}).status_code == 401
    token = ada.token()
    assert process.http("GET", "/console", token=token).status_code == 303
    assert process.http("GET", "/console", headers=[("Cookie", f"__Host-session={token}")]).status_code == 303
    key = process.http("POST", "/api-keys", token=token, json={"name": "k", "scopes": ["documents:read"]}).json()
    assert process.http("GET", "/console", headers=[("X-API-Key", key["key"])]).status_code == 303


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 303),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://app"}, 403),
        ({"Origin": "http://app"}, 303),
        ({"Origin": "https://app"}, 303),
        ({"Origin": "http://app:81"}, 403),
        ({"Origin": "http://app.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({}, 403),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/console/sessions/end-others", "/console/trash/empty"])
def test_forms_of_other_sites_are_refused(ada: Browser, path: str, sent: dict[str, str], status: int) -> None:
    headers = [("Cookie", ada.cookie), *sent.items()]
    answer = ada.process.http("POST", path, headers=headers)
    assert answer.status_code == status, answer.text


def test_signing_in_from_another_site_is_refused(ada: Browser) -> None:
    fields = {"email": ada.email, "password": PASSWORD}
    answer = ada.process.http("POST", "/console/sign-in", headers=[("Sec-Fetch-Site", "cross-site")], data=fields)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


# Pages


def paths(document_id: str) -> list[tuple[str, str]]:
    """Method and path of every route of the console about one document."""
    here = f"/console/documents/{document_id}"
    reads = ("", "/content", "/results/simulated", "/results/simulated/files/a.png")
    return [
        *(("GET", here + each) for each in reads),
        *(("POST", f"{here}/{each}") for each in ("edit", "process", "delete", "restore")),
    ]


def test_what_belongs_to_others_is_not_found_like_what_there_is_not(ada: Browser) -> None:
    own = ada.upload(process="simulated", process_params='{"seconds": 0}')
    job_id = ada.api(f"/documents/{own}")["job_id"]
    session_id = ada.api("/auth/sessions")["items"][-1]["id"]
    mallory = Browser(ada.process).sign_in()
    asked = [*paths(own), ("POST", f"/console/jobs/{job_id}/cancel"), ("POST", f"/console/sessions/{session_id}/end")]
    for method, path in asked:
        missing = re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", str(uuid4()), path)
        body = {"data": {"nothing": "x"}} if method == "POST" else {}
        answers = [mallory.send(method, each, **body) for each in (path, missing)]
        assert [each.status_code for each in answers] == [404, 404], path
        texts = [re.sub(r"<dd><code>[0-9a-f-]{36}</code>", "", each.text) for each in answers]
        assert texts[0] == texts[1], path
    ada.process.work(UUID(job_id))
    assert ada.get(f"/console/documents/{own}").status_code == 200


def every_page(browser: Browser) -> dict[str, httpx2.Response]:
    """Each page of the console, with all that there is on it."""
    stated = {"description": MARKUP, "folder": MARKUP, "tags": f"{MARKUP}\nb", "filename": f"{MARKUP}.pdf"}
    first = browser.upload(**stated, content=pdf(MARKUP), process="text")
    worked(browser, first)
    second = browser.upload(**stated, process="simulated", process_params='{"fail": "permanent", "seconds": 0}')
    worked(browser, second)
    thrown = browser.upload(**stated)
    browser.post(f"/console/documents/{thrown}/delete")
    places = ["", "/documents", "/documents?trashed=true", "/documents?q=<img src=x", "/upload", "/sessions"]
    places += [f"/documents/{first}", f"/documents/{second}", "/nothing", "/documents?status=x", "/documents/x"]
    return {place: browser.get(f"/console{place}") for place in (*places, "/sign-in")}


def test_every_page_is_safe_whatever_users_wrote(process: Process) -> None:
    for place, answer in every_page(Browser(process).sign_in()).items():
        policy = dict(each.strip().partition(" ")[::2] for each in answer.headers["content-security-policy"].split(";"))
        assert (policy["default-src"], "unsafe" in str(policy)) == ("'none'", False), place
        assert answer.headers["cache-control"] == "no-store", place
        assert answer.headers.get_list("referrer-policy") == ["same-origin"], place
        assert {"Cookie", "Origin", "Sec-Fetch-Site"} <= set(re.split(", ?", answer.headers["vary"])), place
        seen = Seen(answer.text)
        assert {tag for tag, _ in seen.tags}.isdisjoint({"script", "style", "b", "object", "iframe"}), place
        assert not [name for _, each in seen.tags for name in each if name == "style" or name.startswith("on")], place
        assert (seen.attributes("html", "lang"), seen.attributes("main", "id")) == (["en"], ["content"]), place
        if place.startswith(("/documents/0", "/documents?trashed")):
            assert "<script>alert(1)&amp;" in seen.text, place


def test_every_link_and_form_leads_somewhere(process: Process) -> None:
    browser = Browser(process).sign_in()
    links, labels = set[str](), set[str]()
    for answer in every_page(browser).values():
        seen = Seen(answer.text)
        links |= {*seen.attributes("a", "href"), *seen.attributes("link", "href"), *seen.attributes("img", "src")}
        labels |= {each["aria-labelledby"] or "" for _, each in seen.tags if "aria-labelledby" in each} - set(
            seen.attributes("h2", "id")
        )
    assert labels == set()
    for link in links:
        if not link.startswith("#"):
            assert browser.get(link).status_code == 200, link


def test_templates_do_without_what_would_not_be_escaped() -> None:
    for path in TEMPLATES.iterdir():
        source = path.read_text()
        assert not re.search(r"\|\s*safe|autoescape|Markup|<script|<style|\sstyle=|\son\w+=", source), path
    for path in STATIC.parent.glob("*.py"):
        assert "Markup" not in path.read_text(), path


def test_the_overview_counts_by_state(process: Process) -> None:
    browser = Browser(process).sign_in()
    assert "no documents yet" in Seen(browser.get("/console").text).text
    browser.upload()
    browser.upload()
    failed = browser.upload(process="simulated", process_params='{"fail": "permanent", "seconds": 0}')
    worked(browser, failed)
    seen = Seen(browser.get("/console").text)
    counted = re.findall(r"(\d+)\s+[◌○◐✓✕] (\w+)", seen.text)
    assert dict(reversed(each) for each in counted) == {
        **dict.fromkeys(("Initiated", "Processing", "Completed"), "0"),
        "Uploaded": "2",
        "Failed": "1",
    }
    assert "Failed, the latest first" in seen.text


def test_filters_are_those_of_the_api_and_pages_follow_each_other(process: Process) -> None:
    browser = Browser(process).sign_in()
    for number in range(3):
        browser.upload(filename=f"{number}.pdf", folder="in")
    browser.upload(filename="other.pdf")
    blanks = "q=&status=&tag=&created_after=&content_type="
    page = Seen(browser.get(f"/console/documents?folder=in&sort=filename&limit=2&{blanks}").text)
    assert re.findall(r"\w+\.pdf", page.text) == ["0.pdf", "1.pdf"]
    [more] = [href for tag, each in page.tags if each.get("rel") == "next" and (href := each["href"])]
    assert re.findall(r"\w+\.pdf", Seen(browser.get(more).text).text) == ["2.pdf"]
    wrong = browser.get("/console/documents?status=NONE&cursor=x")
    assert (wrong.status_code, "/query/status" in wrong.text) == (422, True)
    assert "invalid-cursor" in browser.get("/console/documents?cursor=x").text


# Forms


def test_upload_with_all_that_the_form_has(ada: Browser) -> None:
    work = {"process": "simulated", "process_params": '{"seconds": 0}'}
    own = ada.upload(description="a\r\nb", folder="in", tags="x\r\n\r\n y ", **work)
    found = ada.api(f"/documents/{own}")
    assert (found["description"], found["folder"], found["tags"]) == ("a\nb", "in", ["x", "y"])
    assert found["status"] == "PROCESSING"
    worked(ada, found["id"])


@pytest.mark.parametrize(
    ("content", "fields", "status", "code"),
    [
        (b"no document", {}, 415, "unsupported-document"),
        (pdf(), {"process": "none"}, 422, "unknown-processor"),
        (pdf(), {"process": "text", "process_params": "{"}, 422, "validation-failed"),
        (pdf(), {"tags": "x" * 51}, 422, "validation-failed"),
        (pdf(), {"metadata": "{}"}, 422, "malformed-multipart"),
    ],
    ids=["no PDF", "no processor", "no JSON", "long tag", "another field"],
)
def test_an_upload_that_is_refused_says_why(
    ada: Browser, content: bytes, fields: dict[str, str], status: int, code: str
) -> None:
    form = {"data": fields or {"folder": ""}, "files": {"file": ("a.pdf", content, PDF_TYPE)}}
    answer = ada.send("POST", "/console/documents", **form)
    assert (answer.status_code, f"<code>{code}</code>" in answer.text) == (status, True), answer.text


def test_edit(ada: Browser) -> None:
    here = f"/console/documents/{(own := ada.upload(folder='old', tags='t'))}"
    form = {"version": "1", "description": "d", "tags": "a\r\nb", "expires_at": "2099-01-01T12:00", "folder": ""}
    shown = ada.post(f"{here}/edit", **form)
    assert "2099-01-01 12:00:00" in Seen(shown.text).text
    found = ada.api(f"/documents/{own}")
    assert (found["description"], found["folder"], found["tags"]) == ("d", None, ["a", "b"])
    again = ada.post(f"{here}/edit", **form)
    assert (again.status_code, "precondition-failed" in again.text) == (412, True)
    ada.post(f"{here}/edit", version="2", expires_at="2099-01-01T12:00:00", expires_at_before="2099-01-01T12:00:00")
    assert ada.api(f"/documents/{own}")["expires_at"].startswith("2099-01-01T12:00:00")
    ada.post(f"{here}/edit", version="3", expires_at="", expires_at_before="2099-01-01T12:00:00")
    assert ada.api(f"/documents/{own}")["expires_at"] is None
    assert ada.post(f"{here}/edit", version="4", expires_at="soon").status_code == 422


def test_process_cancel_and_retry(ada: Browser) -> None:
    here = f"/console/documents/{(own := ada.upload())}"
    shown = ada.post(f"{here}/process", processor="simulated", params='{"seconds": 0, "fail": "permanent"}')
    [cancel] = [each for each in Seen(shown.text).attributes("form", "action") if each.endswith("/cancel")]
    assert "Cancelled" in Seen(ada.post(cancel).text).text
    assert ada.post(cancel).status_code == 409
    ada.post(f"{here}/process", processor="simulated", params='{"seconds": 0, "fail": "permanent"}')
    worked(ada, own)
    failed = Seen(ada.get(here).text)
    assert {"Failed", "Retry"} <= set(failed.text.split())
    params = [each["value"] for tag, each in failed.tags if tag == "input" and each.get("name") == "params"]
    assert json.loads(params[0] or "")["fail"] == "permanent"
    retried = ada.post(f"{here}/process", processor="simulated", params=params[0] or "")
    assert "Processing" in Seen(retried.text).text
    worked(ada, own)
    assert ada.post(f"{here}/process", processor="none").status_code == 422
    assert ada.post(f"{here}/process", params="[]").status_code == 422
    ada.post(f"{here}/process", processor="simulated", params='{"seconds": 0}')
    worked(ada, own)
    ada.post(f"{here}/process", processor="simulated", params='{"seconds": 0}', force="on")
    assert ada.api(f"/documents/{own}")["status"] == "PROCESSING"
    worked(ada, own)


def test_results_are_shown_and_sent(ada: Browser) -> None:
    own = ada.upload(content=pdf("Some words"), process="text")
    worked(ada, own)
    page = ada.get(f"/console/documents/{own}")
    assert "Some words" in Seen(page.text).text
    sent = ada.get(f"/console/documents/{own}/results/text", ("Accept", "text/html,*/*;q=0.8"))
    assert sent.json()["data"]["text"].startswith("Some words")


def test_download(ada: Browser) -> None:
    content = pdf("whole")
    own = ada.upload(content=content)
    answer = ada.get(f"/console/documents/{own}/content")
    assert (answer.content, answer.headers["content-security-policy"]) == (content, "default-src 'none'; sandbox")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert ada.get(f"/console/documents/{own}/content?file=1").content == content
    assert ada.get(f"/console/documents/{own}/content?file=2").status_code == 404


def test_delete_and_restore(ada: Browser) -> None:
    own = ada.upload(filename="thrown away.pdf")
    stale = ada.post(f"/console/documents/{own}/delete", version="7")
    assert stale.status_code == 412
    assert "thrown away.pdf" not in ada.post(f"/console/documents/{own}/delete", version="1").text
    assert ada.get(f"/console/documents/{own}").status_code == 404
    assert "thrown away.pdf" in ada.get("/console/documents?trashed=true").text
    assert ada.post(f"/console/documents/{own}/restore").status_code == 200
    gone = ada.post(f"/console/documents/{own}/delete", permanent="on")
    assert "thrown away.pdf" not in gone.text
    other = ada.upload(filename="thrown away.pdf")
    ada.post(f"/console/documents/{other}/delete")
    assert "thrown away.pdf" not in ada.post("/console/trash/empty").text


def test_forms_that_are_none(ada: Browser) -> None:
    here = f"/console/documents/{ada.upload()}/edit"
    assert ada.send("POST", here, json={}).status_code == 415
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    assert ada.send("POST", here, kind, content=b"description=%ff").status_code == 422
    assert ada.send("POST", here, kind, content=b"description=" + b"x" * 70_000).status_code == 413
    answer = ada.send("PUT", here)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


# With and without


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    process = Process(tmp_path, console="off")
    for path in ("/console", "/console/sign-in", "/console/static/console.css"):
        assert process.http("GET", path).status_code == 404
    process.kill()


def test_it_is_off_in_production_unless_it_is_asked_for(process: Process) -> None:
    settings = process.services.settings
    assert settings.has_console
    production = settings.model_copy(update={"environment": "production"})
    assert not production.has_console
    assert production.model_copy(update={"console": "on"}).has_console
    assert FEATURES == ("app.console",)


@pytest.mark.filterwarnings("ignore:The `root_path` parameter")
def test_behind_a_prefix(tmp_path: Path) -> None:
    process = Process(tmp_path, public_url="https://example.com/api")
    browser = Browser(process)
    assert browser.get("/console/documents").headers["location"] == "/api/console/sign-in?next=documents"
    fields = {"email": browser.email, "password": PASSWORD}
    assert (
        browser.send("POST", "/console/sign-in", data=fields).headers["location"].startswith("/api/console/signed-in")
    )
    page = Seen(browser.get("/console/documents").text)
    assert all(each.startswith(("#", "/api/console")) for each in page.attributes("a", "href"))
    assert all(each.startswith("/api/console") for each in page.attributes("form", "action"))
    assert browser.get(page.attributes("link", "href")[0].removeprefix("/api")).status_code == 200
    process.kill()


def test_files_of_the_console_are_kept_by_browsers(process: Process) -> None:
    page = Seen(process.http("GET", "/console/sign-in").text)
    answer = process.http("GET", page.attributes("link", "href")[0])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert answer.headers["cache-control"] == "public, max-age=86400"
