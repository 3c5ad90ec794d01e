"""Pictures of pages in the console."""

from app.console.frame import pages
from tests.support.console import MARKUP, Browser, Seen
from tests.support.factories import DOCX_TYPE, docx, encrypted_pdf, pdf


def shown(page: Seen) -> list[str]:
    return [name for name in page.attributes("img", "alt") if name]


def turns(page: Seen) -> list[str]:
    """Where the links to the pages before and after lead."""
    return [each["href"] or "" for tag, each in page.tags if each.get("rel") in ("prev", "next")]


def test_a_document_shows_its_first_page(ada: Browser) -> None:
    here = f"/console/documents/{ada.upload(content=pdf(pages=3))}"
    page = Seen(ada.get(here).text)
    assert shown(page) == ["Page 1"]
    assert {f"{here}/pages", f"{here}/pages/1"} <= set(page.attributes("a", "href"))
    [small] = [address for address in page.attributes("img", "src") if "/pages/" in address]
    [large] = [
        address for address in Seen(ada.get(f"{here}/pages/1").text).attributes("img", "src") if "/pages/" in address
    ]
    for address in (small, large):
        picture = ada.get(address)
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        assert picture.headers["cache-control"] == "private, no-cache"
        assert ada.get(address, ("If-None-Match", picture.headers["etag"])).status_code == 304


def test_pages_follow_each_other(ada: Browser) -> None:
    here = f"/console/documents/{ada.upload(content=pdf(pages=14))}/pages"
    first = Seen(ada.get(here).text)
    assert shown(first) == [f"Page {number}" for number in range(1, 13)]
    assert "Pages 1 to 12 of 14" in first.text
    assert turns(first) == [f"{here}?page=13"]
    last = Seen(ada.get(f"{here}?page=13").text)
    assert shown(last) == ["Page 13", "Page 14"]
    assert turns(last) == [f"{here}?page=1"]
    assert turns(Seen(ada.get(f"{here}?page=5").text)) == [f"{here}?page=1"]
    assert turns(Seen(ada.get(f"{here}/1").text)) == [f"{here}/2"]
    assert turns(Seen(ada.get(f"{here}/14").text)) == [f"{here}/13"]
    for beyond in ("?page=15", "/15"):
        answer = ada.get(here + beyond)
        assert (answer.status_code, "The document has 14 pages." in answer.text) == (404, True)
    for wrong in ("?page=0", "?page=x", "/0", "/x"):
        assert ada.get(here + wrong).status_code == 422


def test_without_pictures_the_page_says_why(ada: Browser) -> None:
    locked = ada.get(f"/console/documents/{ada.upload(content=encrypted_pdf('secret'))}/pages")
    assert (locked.status_code, "opens only with a password" in locked.text) == (409, True)
    sent = {"file": ("a.docx", docx(), DOCX_TYPE)}
    own = ada.send("POST", "/console/documents", data={"folder": ""}, files=sent).headers["location"]
    assert shown(Seen(ada.get(own).text)) == []
    refused = ada.get(f"{own}/pages")
    assert (refused.status_code, "no-pictures" in refused.text) == (409, True)
    assert ada.get(f"{own}/pages/1.png").status_code == 409


def test_in_the_place_of_a_picture_is_the_reason_why_there_is_none(ada: Browser) -> None:
    for content, number, reason in (
        (encrypted_pdf("secret"), 1, "opens only with a password"),
        (b"%PDF-1.7\nnothing\nstartxref\n0\n%%EOF\n", 1, "is damaged"),
        (pdf(pages=1), 2, "The document has 1 page."),
    ):
        place = f"/documents/{ada.upload(content=content)}/pages/{number}.png"
        answer = ada.get(f"/console{place}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")
        said = " ".join(Seen(answer.text).text.split())
        assert said.startswith("No picture: "), said
        assert reason in said
        assert ada.process.http("GET", place, token=ada.token()).status_code in (404, 409)


def test_what_the_reason_quotes_stays_text() -> None:
    seen = Seen(bytes(pages.drawing("documents/no_picture.svg", lines=[MARKUP]).body).decode())
    assert ([tag for tag, _ in seen.tags], seen.text.strip()) == (["svg", "rect", "text"], MARKUP)
