"""That every page shows what users wrote as text, leads somewhere, and shows nothing of others."""

import re
from pathlib import Path
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx2
import pytest

from app.console import ROUTERS
from app.console.frame.pages import STATIC
from app.console.frame.route import PublicPage
from app.main import FEATURES
from tests.support.console import MARKUP, TEMPLATES, Browser, Seen, worked
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.receiver import NOBODY
from tests.support.user import PASSWORD


def paths(document_id: str) -> list[tuple[str, str]]:
    """Method and path of every route of the console about one document."""
    here = f"/console/documents/{document_id}"
    reads = (
        "",
        "/content",
        "/results/simulated",
        "/results/simulated/files/a.png",
        "/pages",
        "/pages/1",
        "/pages/1.png",
        "/files/1",
    )
    return [
        *(("GET", here + each) for each in reads),
        *(("POST", f"{here}/{each}") for each in ("edit", "process", "delete", "restore", "replace?version=1")),
        *(("POST", f"{here}/files/1/{each}") for each in ("edit", "delete", "restore")),
    ]


def things(browser: Browser) -> dict[str, str]:
    """The pages of a webhook, of a delivery and of a key."""
    fields = {"url": NOBODY, "name": MARKUP, "description": MARKUP, "scope.documents:read": "on"}
    for place in ("webhooks", "keys"):
        sent = fields | {"key": str(uuid4())}
        assert browser.send("POST", f"/console/{place}", data=sent).status_code == 200
    webhook = f"/console/webhooks/{browser.api('/webhooks')['items'][0]['id']}"
    delivery = browser.send("POST", f"{webhook}/test").headers["location"]
    return {
        "webhook": webhook,
        "delivery": delivery,
        "key": f"/console/keys/{browser.api('/api-keys')['items'][0]['id']}",
    }


def paths_of_things(webhook: str, delivery: str, key: str) -> list[tuple[str, str]]:
    """Method and path of every route of the console about them."""
    changes = ("edit", "rotate-secret", "test", "recover", "delete")
    return [
        *(("GET", each) for each in (webhook, delivery)),
        *(("POST", f"{webhook}/{each}") for each in changes),
        ("POST", f"{delivery}/resend"),
        *(("POST", f"{key}/{each}") for each in ("rotate", "revoke")),
    ]


def test_what_belongs_to_others_is_not_found_like_what_there_is_not(ada: Browser) -> None:
    own = ada.upload(process="simulated", process_params='{"seconds": 0}')
    job_id = ada.api(f"/documents/{own}")["job_id"]
    session_id = ada.api("/auth/sessions")["items"][-1]["id"]
    mallory = Browser(ada.process).sign_in()
    posted = (f"jobs/{job_id}/cancel", f"jobs/{job_id}/retry", f"sessions/{session_id}/end")
    asked = [*paths(own), *paths_of_things(**things(ada)), *(("POST", f"/console/{each}") for each in posted)]
    sent = {"key": str(uuid4()), "previous_valid_for": "0", "since": "2026-01-01T00:00", "until": "2026-01-02T00:00"}
    for method, path in asked:
        missing = re.sub("[0-9a-f]{8}-[0-9a-f-]{27}", str(uuid4()), path)
        file = {"files": {"file": ("a.pdf", pdf(), PDF_TYPE)}} if "/replace" in path else {"data": sent}
        body = file if method == "POST" else {}
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
    places += ["/documents?held=true", f"/selection/matching?folder={quote(MARKUP)}"]
    places += [f"/upload?process={name}" for name in ("split", "merge", "text")]
    places += [f"/documents/{first}?processor=merge", "/upload?process=<img src=x"]
    places += [f"/documents/{each}" for each in (first, f"{first}/pages", f"{first}/files/1", second, thrown)]
    places += ["/nothing", "/documents?status=x", "/documents/x"]
    own = {name: path.removeprefix("/console") for name, path in things(browser).items() if name != "key"}
    places += ["/jobs", f"/jobs?processor={quote(MARKUP)}", "/jobs?dead=true", "/jobs/retry", "/jobs/cancel"]
    places += ["/webhooks", *own.values(), "/keys", "/account", "/account?done=password", "/account?done=<b>"]
    places += operators_places(browser.promote(), first, second)
    return {place: browser.get(f"/console{place}") for place in (*places, "/sign-in")} | secrets(browser)


def secrets(browser: Browser) -> dict[str, httpx2.Response]:
    """The pages that show one, and those of forms that are sent again."""
    fields = {"url": NOBODY, "name": MARKUP, "scope.documents:read": "on"}
    asked = [(place, again) for place in ("/webhooks", "/keys") for again in (False, True)]
    keyed = {place: fields | {"key": str(uuid4())} for place in ("/webhooks", "/keys")}
    return {f"{place} {again}": browser.send("POST", f"/console{place}", data=keyed[place]) for place, again in asked}


def operators_places(browser: Browser, first: str, second: str) -> list[str]:
    """The pages of operators, with all that there is on them."""
    browser.post(f"/console/operators/documents/{first}/hold", reason=MARKUP)
    browser.post("/console/operators/processors/merge/pause", reason=MARKUP)
    browser.process.announce()
    owner, job = browser.api("/auth/me")["id"], browser.api(f"/documents/{second}")["job_id"]
    places = [f"documents?owner_id={owner}", f"documents/{first}", f"jobs?owner_id={owner}", f"jobs/{job}"]
    places += [f"accounts?search={browser.email[:20]}", f"accounts/{owner}", f"jobs/retry?owner_id={owner}"]
    places += ["health", "workers", "processors", "jobs/cancel", f"audit?user_id={owner}", "audit/verify", "jobs/x"]
    return [f"/operators/{each}" for each in places]


def test_every_page_is_safe_whatever_users_wrote(process: Process) -> None:
    for place, answer in every_page(Browser(process).sign_in()).items():
        policy = dict(each.strip().partition(" ")[::2] for each in answer.headers["content-security-policy"].split(";"))
        assert (policy["default-src"], "unsafe" in str(policy)) == ("'none'", False), place
        assert answer.headers["cache-control"] == "no-store", place
        assert answer.headers.get_list("referrer-policy") == ["same-origin"], place
        assert {"Cookie", "Origin", "Sec-Fetch-Site"} <= set(re.split(", ?", answer.headers["vary"])), place
        seen = Seen(answer.text)
        assert {tag for tag, _ in seen.tags}.isdisjoint({"style", "b", "object", "iframe"}), place
        scripts = [each.get("src") or "" for tag, each in seen.tags if tag == "script"]
        assert all(src.startswith("/console/static/") for src in scripts), place
        assert not [name for _, each in seen.tags for name in each if name == "style" or name.startswith("on")], place
        assert (seen.attributes("html", "lang"), seen.attributes("main", "id")) == (["en"], ["content"]), place
        shows = ("/documents/0", "/documents?t", "/jobs?processor", "/keys", "/operators/documents", "/operators/proc")
        if place == "/webhooks" or place.startswith(shows):
            assert "<script>alert(1)&amp;" in seen.text, place


def test_every_link_and_form_leads_somewhere(process: Process) -> None:
    browser = Browser(process).sign_in()
    links, labels = set[str](), set[str | None]()
    for answer in every_page(browser).values():
        seen = Seen(answer.text)
        links |= {*seen.attributes("a", "href"), *seen.attributes("link", "href"), *seen.attributes("img", "src")}
        ids = {each["id"] for _, each in seen.tags if "id" in each}
        labels |= {each["aria-labelledby"] for _, each in seen.tags if "aria-labelledby" in each} - ids
    assert labels == set()
    for link in links:
        if not link.startswith("#"):
            assert browser.get(link).status_code == 200, link


def test_an_error_leads_back_to_the_page_of_the_console_that_it_came_from(ada: Browser) -> None:
    form, host = "/console/documents?folder=a&limit=2", "http://app"
    for referer, back in (
        (f"{host}{form}", [form]),
        (f"{host}/console", ["/console"]),
        (f"{host}/console#process", ["/console"]),
        (f"{host}/consoles", []),
        (f"{host}/docs", []),
        (f"{host}//console/x", []),
        ("http://example.com/console/documents", []),
        ("http://[", []),
        ("", []),
    ):
        sent = [("Referer", referer)] if referer else []
        page = Seen(ada.send("POST", "/console/documents/x/edit", *sent, data={"a": "b"}).text)
        links = [each for each in page.attributes("a", "href") if each != "#content"][-1:]
        assert "Back to where you were" in page.text if back else links == ["/console"], referer
        assert not back or links == back, referer


def test_no_form_of_another_site_is_taken(process: Process) -> None:
    operator = Browser(process).promote().sign_in()
    routes = [each for router in ROUTERS for each in router.routes if isinstance(each, PublicPage)]
    forms = [each.path for each in routes if "POST" in (each.methods or ())]
    assert len(forms) > 20
    for path in forms:
        sent = re.sub(r"{\w+}", str(uuid4()), path)
        headers = [("Cookie", operator.cookie), ("Sec-Fetch-Site", "cross-site")]
        refused = process.http("POST", sent, headers=headers, data={"confirm": "1"})
        assert (refused.status_code, "insufficient-scope" in refused.text) == (403, False), path


def test_templates_do_without_what_would_not_be_escaped() -> None:
    for path in TEMPLATES.rglob("*.html"):
        source = path.read_text()
        assert not re.search(r"\|\s*safe|autoescape|Markup|<script>|<style|\sstyle=|\son\w+=", source), path
    for path in STATIC.parent.rglob("*.py"):
        assert "Markup" not in path.read_text(), path


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    process = Process(tmp_path, console="off")
    for path in ("/console", "/console/sign-in", "/console/static/style.css"):
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


def test_what_was_done_is_said_once(process: Process) -> None:
    browser = Browser(process).sign_in()
    own = browser.upload()
    assert browser.done == "uploaded"
    page = browser.get(f"/console/documents/{own}?done=uploaded")
    assert "Uploaded." in page.text
    assert "done=" not in page.text, "a page that looks again does not say it again"
    assert 'class="done"' not in browser.get(f"/console/documents/{own}?done=<b>").text
    browser.send("POST", f"/console/documents/{own}/delete", data={"nothing": ""})
    assert browser.done == "deleted"


def test_an_unknown_page_keeps_the_navigation(process: Process) -> None:
    browser = Browser(process).sign_in()
    for method, path in (("GET", "/console/nothing"), ("POST", "/console/upload")):
        answer = browser.send(method, path)
        assert answer.status_code in (404, 405)
        assert 'aria-label="Main"' in answer.text
