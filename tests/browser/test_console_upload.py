"""Many files at once, as a browser sends them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.support.browser import CHROMIUM, NEEDS_BROWSER, PATIENCE
from tests.support.factories import pdf
from tests.support.server import Server
from tests.support.user import PASSWORD, User

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("upload") / "var", {"PROCESSORS": "simulated,keywords"}) as server:
        yield server


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        yield page
        browser.close()


@pytest.fixture
def user(server: Server, page: Page) -> User:
    """Somebody new, who is signed in and sees the upload page."""
    user = server.register()
    page.context.clear_cookies()
    page.goto(f"{server.url}/console/sign-in?next=upload")
    page.get_by_label("Email").fill(user.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/upload")
    return user


def choose(page: Page, *files: Path) -> None:
    page.get_by_label("File", exact=False).first.set_input_files(files)


def send(page: Page) -> None:
    page.locator("button.main").click()


def says(page: Page, words: str) -> None:
    expect(page.locator("#uploads-status")).to_have_text(words)


def drop(page: Page, *paths: Path) -> None:
    """As a hand does it, with files and folders of the machine."""
    page.evaluate("scrollTo(0, 0)")
    box = page.locator(".drop").bounding_box()
    assert box
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 20, "y": box["y"] + 10}
        session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


def documents(user: User) -> list[dict[str, object]]:
    found: list[dict[str, object]] = user.http.get("/documents?sort=filename").json()["items"]
    return found


def written(folder: Path, **contents: bytes) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}.pdf").write_bytes(content)
    return [folder / f"{name}.pdf" for name in contents]


def test_several_files_of_which_one_is_refused(page: Page, user: User, tmp_path: Path) -> None:
    files = written(tmp_path, a=pdf("a"), b=pdf("b"), none=b"no document at all", d=pdf("d"), e=pdf("e"))
    choose(page, *files)
    says(page, "5 not sent yet")
    page.get_by_label("Tags").fill("together")
    send(page)
    says(page, "4 uploaded, 1 refused or failed")
    assert [(each["filename"], each["tags"]) for each in documents(user)] == [
        (f"{name}.pdf", ["together"]) for name in "abde"
    ]
    assert page.locator(".uploads .done").first.evaluate("each => getComputedStyle(each, '::before').content") == "none"
    refused = page.locator(".uploads .failed")
    expect(refused).to_contain_text("PDF")
    expect(refused.get_by_role("button", name="Retry none.pdf")).to_be_visible()
    page.get_by_role("link", name="a.pdf").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("a.pdf")


def test_the_same_file_again_makes_no_second_document(page: Page, user: User, tmp_path: Path) -> None:
    files = written(tmp_path, a=pdf("again"))
    for number in (1, 2):
        choose(page, *files)
        send(page)
        says(page, f"{number} uploaded")
    first, second = (link.get_attribute("href") for link in page.locator(".uploads a").all())
    assert first == second
    assert len(documents(user)) == 1
    page.get_by_label("Folder such as").fill("elsewhere")
    choose(page, *files)
    send(page)
    says(page, "3 uploaded")
    assert {each["folder"] for each in documents(user)} == {None, "elsewhere"}


def test_a_folder_keeps_its_folders(page: Page, user: User, tmp_path: Path) -> None:
    written(tmp_path / "year" / "may", a=pdf("a"))
    written(tmp_path / "year", b=pdf("b"))
    page.get_by_label("Folder such as").fill("invoices/")
    page.get_by_label("Or a whole folder").set_input_files(tmp_path / "year")
    send(page)
    says(page, "2 uploaded")
    assert [each["folder"] for each in documents(user)] == ["invoices/year/may", "invoices/year"]


def test_what_is_dropped_is_processed_as_the_form_says(page: Page, user: User, tmp_path: Path) -> None:
    [file] = written(tmp_path / "outer" / "inner", x=pdf("x"))
    other = tmp_path / "y.txt"
    other.write_text("y")
    page.get_by_label("Processor").select_option("simulated")
    page.get_by_label("Seconds").fill("0")
    page.get_by_label("Fail").select_option("permanent")
    drop(page, tmp_path / "outer", other)
    says(page, "2 not sent yet")
    send(page)
    says(page, "1 uploaded, 1 refused or failed")
    [document] = documents(user)
    assert (document["filename"], document["folder"]) == (file.name, "outer/inner")
    job = user.finished(str(document["job_id"]))
    assert (job["processor"], job["params"]["seconds"], job["params"]["fail"]) == ("simulated", 0, "permanent")


def test_a_connection_that_is_lost_is_tried_again(page: Page, user: User, tmp_path: Path) -> None:
    lost = []

    def lose(route: object) -> None:
        lost.append(route)
        if len(lost) == 1:
            route.fetch(max_redirects=0)  # type: ignore[attr-defined]  # the document is there, but nobody hears of it
            route.abort()  # type: ignore[attr-defined]
        else:
            route.continue_()  # type: ignore[attr-defined]

    page.route("**/console/documents", lose)
    choose(page, *written(tmp_path, a=pdf("lost")))
    send(page)
    says(page, "1 uploaded")
    page.unroute("**/console/documents")
    assert len(lost) == 2
    assert len(documents(user)) == 1


def test_cancel_and_retry_by_keyboard(page: Page, user: User, tmp_path: Path) -> None:
    choose(page, *written(tmp_path, a=pdf("a"), b=pdf("b")))
    page.get_by_role("button", name="Cancel a.pdf").press("Enter")
    says(page, "1 cancelled, 1 not sent yet")
    expect(page.get_by_role("button", name="Retry a.pdf")).to_be_focused()
    send(page)
    says(page, "1 uploaded, 1 cancelled")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Retry a.pdf").press("Enter")
    says(page, "2 uploaded")
    assert len(documents(user)) == 2


def test_nothing_chosen(page: Page, user: User) -> None:
    send(page)
    says(page, "Choose files first.")
    assert documents(user) == []


@pytest.mark.usefixtures("user")
def test_without_a_session_the_reason_is_said(page: Page, tmp_path: Path) -> None:
    choose(page, *written(tmp_path, a=pdf("a")))
    page.context.clear_cookies()
    send(page)
    says(page, "1 refused or failed")
    expect(page.locator(".uploads .failed")).to_contain_text("session has ended")


@pytest.mark.usefixtures("user")
def test_a_large_file_that_is_no_document_is_refused_with_the_reason(page: Page, tmp_path: Path) -> None:
    choose(page, *written(tmp_path, large=b"x" * 40 * 1024**2))
    send(page)
    says(page, "1 refused or failed")
    expect(page.locator(".uploads .failed")).to_contain_text("PDF")
