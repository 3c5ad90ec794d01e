"""The pictures of the console in README.md, light and dark: `make screenshots`. TEST_CHROMIUM names the browser."""

from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser

from tests.support import exhibition
from tests.support.browser import driven
from tests.support.exhibition import Exhibition
from tests.support.server import Server
from tests.support.user import PASSWORD

PICTURES = Path("docs/pictures")
SHOWN = {"overview": "overview", "document": "document"}
SIZE = {"width": 1200, "height": 800}


def main():
    with (
        TemporaryDirectory(prefix="screenshots-") as folder,
        Server(Path(folder) / "var", exhibition.SETTINGS) as server,
        driven() as browser,
    ):
        shown = exhibition.prepare(server)
        for scheme in ("light", "dark"):
            _photograph(browser, shown, scheme)


def _photograph(browser: Browser, shown: Exhibition, scheme: str) -> None:
    context = browser.new_context(base_url=shown.user.server.url, viewport=SIZE, color_scheme=scheme)
    page = context.new_page()
    page.goto("/console")
    page.get_by_label("Email").fill(shown.user.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console")
    for name, of in SHOWN.items():
        page.goto(f"/console{shown.of_user[of]}")
        for picture in page.locator(".pictures img").all():
            picture.evaluate("picture => picture.decode()")  # once it is there
        page.screenshot(path=PICTURES / f"console-{name}-{scheme}.png")
    context.close()


if __name__ == "__main__":
    main()
