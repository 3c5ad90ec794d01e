"""Documents that are chosen in the list, or that match its filter, and what is done with them."""

from unittest.mock import patch
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

import httpx2
import pytest

from app.console.documents import selection
from app.processing import batch
from tests.support.console import MARKUP, Browser, Seen, worked
from tests.support.inprocess import Process

ACTIONS = ("process", "delete", "purge", "restore")


def act(browser: Browser, action: str, *ids: str, **fields: str) -> httpx2.Response:
    return browser.send("POST", f"/console/selection/{action}", data={"document": ids, **fields})


@pytest.fixture
def bob(process: Process) -> Browser:
    return Browser(process).sign_in()


def statuses(browser: Browser, *ids: str) -> list[str]:
    return [browser.api(f"/documents/{each}")["status"] for each in ids]


def test_each_row_can_be_chosen(bob: Browser) -> None:
    ids = {bob.upload(filename="kept.pdf"), bob.upload(filename="other.pdf")}
    for place in ("/console/documents", "/console/documents?trashed=true"):
        page = Seen(bob.get(place).text)
        chosen = [each for tag, each in page.tags if tag == "input" and "data-choice" in each]
        assert {each["value"] for each in chosen} == ids
        assert {(each["form"], each["name"]) for each in chosen} == {("selection", "document")}
        assert {each["aria-label"] for each in chosen} == {"Choose kept.pdf", "Choose other.pdf"}
        assert page.attributes("form", "id") == ["selection"]
        act(bob, "delete", *ids)


def test_process(bob: Browser) -> None:
    first, second, third = (bob.upload() for _ in range(3))
    bob.post(f"/console/documents/{third}/process", processor="simulated", params='{"seconds": 1.5}')
    answer = act(bob, "process", first, second, third, first, processor="simulated")
    seen = Seen(answer.text).text
    assert (answer.status_code, seen.count("accepted for processing")) == (200, 2), "in the title and in the heading"
    assert "2 documents accepted for processing" in seen
    assert ("Refused: 1" in seen, third in seen) == (True, True)
    assert statuses(bob, first, second) == ["PROCESSING"] * 2
    again = Seen(act(bob, "process", first, second, processor="simulated").text).text
    assert "0 documents accepted" in again
    assert "2 more are being processed so already" in again
    for each in (first, second, third):
        worked(bob, each)
    assert act(bob, "process", first, processor="none").status_code == 422


def test_delete_restore_and_delete_for_good(bob: Browser) -> None:
    first, second = bob.upload(), bob.upload()
    busy = bob.upload(process="simulated", process_params='{"seconds": 0}')
    deleted = Seen(act(bob, "delete", first, second, busy).text).text
    assert ("2 documents deleted" in deleted, "Refused: 1" in deleted) == (True, True)
    assert "processed" in deleted, "and why"
    assert bob.api("/documents?trashed=true&count=true")["total"] == 2
    assert "1 document restored" in Seen(act(bob, "restore", first).text).text
    assert statuses(bob, first) == ["UPLOADED"]
    gone = Seen(act(bob, "purge", second, str(uuid4())).text).text
    assert ("1 document deleted for good" in gone, "Refused: 1" in gone) == (True, True)
    assert bob.api("/documents?trashed=true&count=true")["total"] == 0
    worked(bob, busy)


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_no_choice(bob: Browser, action: str) -> None:
    assert act(bob, action).status_code == 422
    assert act(bob, action, "x").status_code == 422
    assert act(bob, action, *(str(uuid4()) for _ in range(201))).status_code == 422


@pytest.mark.parametrize("action", ACTIONS)
def test_documents_of_others_are_refused_like_those_that_there_are_not(ada: Browser, bob: Browser, action: str) -> None:
    own, none = ada.upload(), str(uuid4())
    if action == "restore":
        ada.post(f"/console/documents/{own}/delete")
    texts = [act(bob, action, each, processor="simulated").text.replace(each, "id") for each in (own, none)]
    assert texts[0] == texts[1]
    assert "Refused: 1" in Seen(texts[0]).text
    trashed = ada.api("/documents?trashed=true")["items"]
    assert (own in {each["id"] for each in trashed}) == (action == "restore")


def test_process_all_that_match(bob: Browser) -> None:
    matching = [bob.upload(folder=MARKUP) for _ in range(3)]
    other = bob.upload()
    query = urlencode({"folder": MARKUP}, quote_via=quote)
    listed = Seen(bob.get(f"/console/documents?{query}&status=").text)
    [link] = [each for each in listed.attributes("a", "href") if "/selection/matching?" in each]
    asked = Seen(bob.get(link).text)
    assert "3 documents match" in asked.text
    assert statuses(bob, *matching) == ["UPLOADED"] * 3, "it only asks"
    fields = {each["name"]: each["value"] for tag, each in asked.tags if tag == "input"}
    assert fields == {"folder": MARKUP}
    with patch.object(batch, "MAX_BATCH", 2):
        done = bob.send("POST", "/console/selection/process-matching", data={**fields, "processor": "simulated"})
    first = Seen(done.text)
    assert "2 documents accepted" in first.text
    more = {each["name"]: each["value"] for tag, each in first.tags if tag == "input"}
    assert (more["folder"], more["processor"], "cursor" in more) == (MARKUP, "simulated", True)
    rest = bob.send("POST", "/console/selection/process-matching", data=more)
    assert "1 document accepted" in Seen(rest.text).text
    assert statuses(bob, *matching, other) == ["PROCESSING"] * 3 + ["UPLOADED"]
    for each in matching:
        worked(bob, each)


def test_many_that_match_are_not_counted(bob: Browser) -> None:
    for _ in range(3):
        bob.upload()
    for many, said in ((2, "Over 2 documents match"), (3, "3 documents match")):
        with patch.object(selection, "_MANY", many), patch.object(selection, "MAX_BATCH", 2):
            page = Seen(bob.get("/console/selection/matching").text).text
        assert said in page
        assert "Process the first 2" in page


def test_a_filter_that_is_none(bob: Browser) -> None:
    assert bob.get("/console/selection/matching?status=NONE").status_code == 422
    assert bob.get("/console/selection/matching?trashed=true").status_code == 422
    assert bob.post("/console/selection/process-matching", status="NONE").status_code == 422
    assert bob.post("/console/selection/process-matching", cursor="x").status_code == 422
    assert "0 documents match" in Seen(bob.get("/console/selection/matching?folder=none").text).text


def test_many_refusals_are_counted(bob: Browser) -> None:
    ids = [str(uuid4()) for _ in range(120)]
    seen = Seen(act(bob, "delete", *ids).text).text
    assert ("Refused: 120" in seen, "20 more are not shown" in seen) == (True, True)


def test_what_may_not_be_done_is_refused_whole(process: Process, bob: Browser) -> None:
    own = bob.upload()
    for action in ACTIONS:
        answer = process.http("POST", f"/console/selection/{action}", headers=[("Cookie", bob.cookie)])
        assert answer.status_code == 403, action
    assert UUID(bob.api(f"/documents/{own}")["id"]) == UUID(own)
