"""Pictures of pages in the console."""

from tests.support.console import Browser, Seen
from tests.support.factories import DOCX_TYPE, docx, encrypted_pdf, pdf


def shown(page: Seen) -> list[str]:
    return [name for name in page.attributes("img", "alt") if name]


def test_a_document_shows_its_first_page(ada: Browser) -> None:
    page = Seen(ada.get(f"/console/documents/{(own := ada.upload(content=pdf(pages=3)))}").text)
    assert shown(page) == ["Page 1"]
    assert f"/console/documents/{own}/pages" in page.attributes("a", "href")
    for address in (*page.attributes("img", "src"), f"/console/documents/{own}/pages/1.png?width=1600"):
        picture = ada.get(address)
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        assert picture.headers["cache-control"] == "private, no-cache"
        assert ada.get(address, ("If-None-Match", picture.headers["etag"])).status_code == 304


def test_pages_follow_each_other(ada: Browser) -> None:
    here = f"/console/documents/{ada.upload(content=pdf(pages=14))}/pages"
    first = Seen(ada.get(here).text)
    assert shown(first) == [f"Page {number}" for number in range(1, 13)]
    assert "Pages 1 to 12 of 14" in first.text
    assert [each for each in first.attributes("a", "href") if "?page=" in each] == [f"{here}?page=13"]
    last = Seen(ada.get(f"{here}?page=13").text)
    assert shown(last) == ["Page 13", "Page 14"]
    assert [each for each in last.attributes("a", "href") if "?page=" in each] == [f"{here}?page=1"]
    beyond = Seen(ada.get(f"{here}?page=99").text)
    assert (shown(beyond), "The last page is 14." in beyond.text) == ([], True)
    assert [each for each in beyond.attributes("a", "href") if "?page=" in each] == [f"{here}?page=3"]
    for wrong in ("0", "x"):
        assert ada.get(f"{here}?page={wrong}").status_code == 422


def test_without_pictures_the_page_says_why(ada: Browser) -> None:
    locked = ada.get(f"/console/documents/{ada.upload(content=encrypted_pdf('secret'))}/pages")
    assert (locked.status_code, "opens only with a password" in locked.text) == (409, True)
    sent = {"file": ("a.docx", docx(), DOCX_TYPE)}
    own = ada.send("POST", "/console/documents", data={"folder": ""}, files=sent).headers["location"]
    assert shown(Seen(ada.get(own).text)) == []
    refused = ada.get(f"{own}/pages")
    assert (refused.status_code, "no-pictures" in refused.text) == (409, True)
    assert ada.get(f"{own}/pages/1.png").status_code == 409
