"""The console in a real browser: the main job by mouse, by keyboard and without script; pages that are live; and each
page as everybody can read it."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from tests.support import exhibition
from tests.support.browser import NEEDS_BROWSER, PATIENCE, driven
from tests.support.exhibition import Exhibition
from tests.support.server import Server
from tests.support.user import PASSWORD

pytestmark = NEEDS_BROWSER

SAMPLE = Path("app/samples/sample.pdf").absolute()
SWAGGER = ".swagger-ui"  # not ours: it has buttons in buttons
WIDTHS = (390, 1440)
CUT_OFF = "main .scroll:not(.tall)"  # results may be as wide as they are
WIDER = "found => found.filter(each => each.scrollWidth > each.clientWidth).map(each => each.ariaLabel)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with driven() as browser:
        yield browser


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exhibition]:
    with Server(tmp_path_factory.mktemp("console") / "var", exhibition.SETTINGS) as server:
        yield exhibition.prepare(server)


@contextmanager
def opened(browser: Browser, server: Server, *, ignoring: str = "", **options: Any) -> Iterator[Page]:
    """A page at the server, in which nothing may go wrong: no error in the console, nothing that the policy forbids."""
    context = browser.new_context(base_url=server.url, **options)
    context.set_default_timeout(PATIENCE * 1000)
    page, wrong = context.new_page(), list[str]()
    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert [each for each in wrong if not ignoring or ignoring not in each] == []


def sign_in(page: Page, email: str) -> None:
    page.goto("/console")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def violations(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Which rules are broken, and where first."""
    return [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found["violations"]]


# The main job


def test_by_mouse(browser: Browser, shown: Exhibition) -> None:
    user = shown.user.server.register()
    with opened(browser, user.server) as page:
        sign_in(page, user.email)
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Upload").click()
        page.get_by_label("File", exact=False).first.set_input_files(SAMPLE)
        page.get_by_role("button", name="Upload", exact=True).click()
        uploaded, heading = (
            page.get_by_role("link", name="sample.pdf"),
            page.get_by_role("heading", name="sample.pdf", level=1),
        )
        uploaded.or_(heading).first.click()  # a form that is sent before its script is there leads to the document
        expect(heading).to_be_visible()
        page.locator("#process-form, section:has(#process)").get_by_label("Processor", exact=False).first.select_option(
            "text"
        )
        page.get_by_role("button", name="Process", exact=True).click()
        expect(page.locator("main > .head > .state")).to_contain_text("Completed")  # by itself: the page is live
        expect(page.get_by_role("region", name="Text by text")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_by_keyboard(browser: Browser, shown: Exhibition) -> None:
    """From where one signs in to the result, with Tab, letters and Enter."""
    user = shown.user.server.register()
    with opened(browser, user.server) as page:
        page.goto("/console")
        expect(page.get_by_label("Email")).to_be_focused()
        page.keyboard.type(user.email)
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.keyboard.press("Tab")
        assert focus(page) == "Skip to content"
        reach(page, "Upload")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("Upload")
        page.locator("[type=file]").first.set_input_files(SAMPLE)  # which the system's own dialog would ask for
        reach(page, "Upload", tag="BUTTON")
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="sample.pdf").first).to_be_visible()
        reach(page, "sample.pdf")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="sample.pdf", level=1)).to_be_visible()
        reach(page, "Process", tag="BUTTON")
        page.keyboard.press("Enter")
        expect(page.locator("main > .head > .state")).to_contain_text("Completed")


def focus(page: Page) -> str:
    """The name of what has the focus."""
    return str(page.evaluate("(document.activeElement.innerText || '').trim()"))


def reach(page: Page, name: str, tag: str = "A") -> None:
    """Go on by Tab until something of this name has the focus, which shows where it is."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if focus(page) == name and page.evaluate("document.activeElement.tagName") == tag:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    raise AssertionError(f"Tab does not reach {name}")


def test_without_script(browser: Browser, shown: Exhibition) -> None:
    user = shown.user.server.register()
    with opened(browser, user.server, java_script_enabled=False) as page:
        sign_in(page, user.email)
        page.goto("/console/upload")
        page.locator("[type=file]").first.set_input_files(SAMPLE)
        page.get_by_role("button", name="Upload", exact=True).click()
        expect(page.get_by_role("heading", name="sample.pdf", level=1)).to_be_visible()
        page.get_by_role("button", name="Process", exact=True).click()
        for _ in range(100):
            if "Completed" in page.locator("main > .head > .state").inner_text():
                break
            time.sleep(0.1)
            page.reload()
        expect(page.locator("main > .head > .state")).to_contain_text("Completed")


@pytest.mark.parametrize("script", [False, True], ids=["without a script", "before its form has come"])
def test_the_processor_that_is_chosen_is_the_one_that_runs(
    browser: Browser, shown: Exhibition, *, script: bool
) -> None:
    user = shown.user.server.register()
    with opened(browser, user.server, java_script_enabled=script) as page:
        sign_in(page, user.email)
        page.route("**/*process*=text*", lambda _: None)  # it never comes
        for path in (f"/documents/{user.upload()['id']}", "/upload"):
            page.goto(f"/console{path}")
            page.get_by_label("Processor").select_option("text")
            if path == "/upload":
                page.locator("[type=file]").first.set_input_files(SAMPLE)
            page.get_by_role("button", name=re.compile("^(Process|Upload)$")).click()
            if path == "/upload" and script:
                page.get_by_role("link", name="sample.pdf").first.click()
            expect(page.get_by_role("heading", name="text", level=3).first).to_be_visible()


def test_the_form_of_a_processor_comes_when_it_is_chosen(browser: Browser, shown: Exhibition) -> None:
    user = shown.user.server.register()
    with opened(browser, user.server) as page:
        sign_in(page, user.email)
        page.goto(f"/console/documents/{user.upload()['id']}")
        for name, label in (("split", "Every"), ("text", "Max pages")):
            page.get_by_label("Processor").select_option(name)
            expect(page.get_by_label(label)).to_be_visible()
    with opened(browser, user.server, java_script_enabled=False) as page:
        sign_in(page, user.email)
        page.goto("/console/upload")
        page.get_by_role("link", name="split", exact=True).click()
        expect(page.get_by_label("Every")).to_be_visible()
        expect(page.get_by_label("Processor")).to_have_value("split")


# Live pages


def test_a_page_shows_what_happens_and_can_be_paused(browser: Browser, shown: Exhibition) -> None:
    user = shown.user.server.register()
    with opened(browser, user.server) as page:
        sign_in(page, user.email)
        expect(page.locator("#feed")).to_contain_text("Live")
        user.upload(name="first.pdf")
        expect(page.get_by_role("link", name="first.pdf").first).to_be_visible()
        page.get_by_role("button", name="Pause").click()
        user.upload(name="second.pdf")
        time.sleep(2)
        expect(page.get_by_role("link", name="second.pdf")).to_have_count(0)
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("link", name="second.pdf").first).to_be_visible()


def test_a_page_waits_while_rows_are_chosen_and_stays_paused_if_it_was(browser: Browser, shown: Exhibition) -> None:
    user = shown.user.server.register()
    user.upload()
    with opened(browser, user.server) as page:
        sign_in(page, user.email)
        page.goto("/console/documents")
        status, button = page.locator("#feed [role=status]"), page.locator("#feed button")
        for choice in (page.locator("[data-choice]"), page.get_by_label("Choose all")):
            expect(status).to_have_text("Live")
            choice.check()
            expect(status).to_have_text("Paused")
            choice.uncheck()
            expect(status).to_have_text("Live")
        button.click()
        page.locator("[data-choice]").check()
        page.locator("[data-choice]").uncheck()
        expect(status).to_have_text("Paused")
        page.locator("[data-choice]").check()
        button.click()
        expect(status).to_have_text("Live")


@pytest.mark.parametrize("late", ["htmx.min.js", "hx-sse.min.js", "console.js"])
def test_a_page_is_live_whichever_script_comes_late(browser: Browser, shown: Exhibition, late: str) -> None:
    def delay(route: Route) -> None:
        time.sleep(0.7)
        route.continue_()

    with opened(browser, shown.user.server) as page:
        page.route(f"**/{late}*", delay)
        sign_in(page, shown.user.email)
        expect(page.locator("#feed")).to_contain_text("Live")


def test_a_lost_connection_says_so_and_heals(browser: Browser, tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        sign_in(page, user.email)
        expect(page.locator("#feed")).to_contain_text("Live")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5, "feeds end at once"
        expect(page.locator("#feed")).to_contain_text("Connection lost")
        server.start()
        user.upload(name="meanwhile.pdf")
        expect(page.locator("#feed")).to_contain_text("Live")
        expect(page.get_by_role("link", name="meanwhile.pdf").first).to_be_visible()
        context.close()


def test_a_session_that_ends_leads_to_where_one_signs_in(browser: Browser, shown: Exhibition) -> None:
    user = shown.user.server.register()
    with opened(browser, user.server) as page:
        sign_in(page, user.email)
        page.goto("/console/documents?status=FAILED")
        expect(page.locator("#feed")).to_contain_text("Live")
        for session in user.http.get("/auth/sessions").json()["items"]:
            if not session["current"]:
                user.http.delete(f"/auth/sessions/{session['id']}")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.get_by_label("Email").fill(user.email)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/console/documents?status=FAILED")


# Every page


@pytest.mark.parametrize("whose", ["user", "operator"])
@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("dark", 390),
        pytest.param("light", 1440, marks=pytest.mark.long),
        pytest.param("light", 390, marks=pytest.mark.long),
        pytest.param("dark", 1440, marks=pytest.mark.long),
    ],
)
def test_every_page_can_be_read_by_everybody(
    browser: Browser, shown: Exhibition, whose: str, scheme: Any, width: int
) -> None:
    person, paths = (shown.user, shown.of_user) if whose == "user" else (shown.operator, shown.of_operator)
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "reduced_motion": "reduce"}
    with opened(browser, person.server, **options) as page:
        sign_in(page, person.email)
        for name, path in paths.items():
            page.goto(f"/console{path}")
            expect(page.locator("h1:visible")).to_have_count(1)
            if name == "reference":
                page.locator(".opblock").first.wait_for()
            found = Axe().run(page, context={"exclude": [[SWAGGER]]})
            assert violations(found.response) == [], name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than the window"
            assert page.locator(CUT_OFF).evaluate_all(WIDER) == [], f"tables of {name} are wider than what is seen"


def test_a_page_that_there_is_not(browser: Browser, shown: Exhibition) -> None:
    with opened(browser, shown.user.server, ignoring="404") as page:
        sign_in(page, shown.user.email)
        page.goto("/console/nothing")
        expect(page.get_by_role("heading", name="Not found")).to_be_visible()
        assert violations(Axe().run(page).response) == []


@pytest.mark.parametrize("path", ["/", "/problems", "/problems/not-found", "/console/sign-in"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_that_anybody_may_see(browser: Browser, shown: Exhibition, path: str, width: int) -> None:
    with opened(browser, shown.user.server, viewport={"width": width, "height": 900}) as page:
        page.goto(path)
        expect(page.locator("h1, h2").first).to_be_visible()
        assert violations(Axe().run(page).response) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_call_of_the_reference_is_tried_as_who_is_signed_in(browser: Browser, shown: Exhibition) -> None:
    with opened(browser, shown.user.server) as page:
        sign_in(page, shown.user.email)
        page.goto("/console/reference")
        page.locator("#operations-auth-me").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table")).to_contain_text(shown.user.email)
        assert not re.search("eyJ", page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])"))
