"""PDF of DOCX, by a service that may be away, busy or wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.processors.convert import ConvertProcessor
from app.testing import check
from tests.support.converter import HUGE, Converter, converting, missing
from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx
from tests.support.invariants import Ledger
from tests.support.server import Server, free_port
from tests.support.user import User
from tests.support.waiting import until

QUICK = "tests.support.impatient"


@pytest.fixture(scope="module")
def service() -> Iterator[Converter]:
    with converting() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, service: Converter) -> Iterator[Server]:
    """One that tries once, for four seconds. The service wants a password."""
    url = service.url.replace("http://", "http://user:s3cret@") + "/"
    settings = {"CONVERSION_URL": url, "JOB_MAX_TRIES": "1", "JOB_TIMEOUT": "4", "MAX_UPLOAD_BYTES": str(HUGE // 2)}
    with Server(tmp_path_factory.mktemp("convert") / "var", settings) as running:
        yield running
        assert "s3cret" not in running.log_file.read_text()
        assert "Unclosed" not in running.log_file.read_text()
        ledger = Ledger(running.data_dir)
        ledger.settle()
        ledger.check()


@pytest.fixture
def user(server: Server) -> User:
    return server.register()


def uploaded(user: User, text: str = "Hello", name: str = "letter.docx") -> str:
    document_id: str = user.upload(docx(text), name, content_type=DOCX_TYPE)["id"]
    return document_id


def converted(user: User, document_id: str, **params: Any) -> dict[str, Any]:
    """The job, once it is finished."""
    return user.finished(user.start(document_id, processor="convert", params=params)["id"])


def children(user: User, document_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.http.get(f"/documents/{document_id}/children").json()["items"]
    return found


def text_of(user: User, document_id: str) -> str:
    job = user.finished(user.start(document_id, processor="text")["id"])
    text: str = user.http.get(job["result_url"]).json()["data"]["text"]
    return text


def test_a_docx_becomes_a_pdf(user: User, service: Converter) -> None:
    document_id = uploaded(user, "Dear reader", "a letter.v2.docx")
    job = converted(user, document_id, pages="1-3,7", pdfa="PDF/A-2b")
    assert job["state"] == "SUCCEEDED"
    [child] = children(user, document_id)
    assert (child["filename"], child["content_type"], child["status"]) == ("a letter.v2.pdf", PDF_TYPE, "UPLOADED")
    result = user.http.get(job["result_url"]).json()["data"]
    assert result == {"children": [{name: child[name] for name in ("id", "filename", "size", "sha256")}]}
    assert text_of(user, child["id"]) == "Dear reader 1"
    form = next(each for each in service.forms if each.headers["Gotenberg-Trace"] == job["id"])
    assert form.fields == {"nativePageRanges": "1-3,7", "pdfa": "PDF/A-2b"}
    assert (form.filename, form.content_type) == ("document.docx", DOCX_TYPE)
    assert form.size == user.document(document_id)["size"]
    assert form.headers["Authorization"] == "Basic dXNlcjpzM2NyZXQ="
    assert "letter" not in str(form)


def test_the_pdf_is_processed_and_the_docx_goes(user: User) -> None:
    document_id = uploaded(user)
    user.start(document_id, processor="convert", params={"then": {"processor": "text"}, "delete_original": True})
    [child] = until(lambda: user.http.get("/documents", params={"parent_id": document_id}).json()["items"])
    assert user.finished(child["job_id"])["state"] == "SUCCEEDED"
    assert user.http.get(f"/documents/{document_id}").status_code == 404


def test_it_keeps_the_contract(service: Converter, tmp_path: Path) -> None:
    letter = tmp_path / "letter.docx"
    letter.write_bytes(docx("Hello"))
    assert [finding for finding in check(ConvertProcessor(service.url), letter) if finding.fault] == []


def test_what_it_takes(user: User) -> None:
    schemas = user.http.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["ArchivalPdf"]["enum"] == ["PDF/A-1b", "PDF/A-2b", "PDF/A-3b"]
    assert schemas["ConvertResult"]["properties"]["children"]["items"] == {"$ref": "#/components/schemas/MadeDocument"}


FAILURES = {
    "hangs": ("conversion-unavailable", "gave no complete answer in time"),
    "stalls": ("conversion-unavailable", "gave no complete answer in time"),
    "is cut off": ("conversion-unavailable", "broke off before its answer was complete"),
    "is too much": ("conversion-unavailable", "answered 429"),
    "breaks it": ("conversion-unavailable", "answered 500"),
    "is for somebody else": ("conversion-unavailable", "answered 401"),
    "is elsewhere": ("conversion-unavailable", "answered 307"),
    "is a page": ("conversion-unavailable", "answered with what is no PDF"),
    "is refused": ("conversion-refused", "(400)"),
    "cannot be converted": ("conversion-refused", "(422)"),
    "is no PDF": ("output-not-accepted", ""),
    "is huge": ("output-too-large", ""),
}


@pytest.mark.parametrize("fault", FAILURES)
def test_what_goes_wrong_is_named_and_leaves_nothing(user: User, fault: str) -> None:
    document_id = uploaded(user, fault)
    code, detail = FAILURES[fault]
    job = converted(user, document_id)
    assert (job["state"], job["error"]["code"]) == ("FAILED", code)
    assert detail in job["error"]["detail"]
    assert job["dead"] == (code == "conversion-unavailable"), "only an outage is worth another try"
    assert children(user, document_id) == []
    assert user.http.get("/auth/me").json()["usage"]["documents"] == 1


def test_a_job_that_is_cancelled_waits_for_nothing(user: User) -> None:
    document_id = uploaded(user, "stalls")
    job_id = user.start(document_id, processor="convert")["id"]
    until(lambda: user.job(job_id)["state"] == "RUNNING")
    assert user.http.post(f"/jobs/{job_id}/cancel").status_code == 202
    assert user.finished(job_id, timeout=2)["state"] == "CANCELLED"


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"pages": "0"}, "/params/pages"),
        ({"pages": "1-"}, "/params/pages"),
        ({"pages": "1\n"}, "/params/pages"),
        ({"pdfa": "PDF/A-9"}, "/params/pdfa"),
        ({"landscape": True}, "/params/landscape"),
    ],
)
def test_params_that_are_wrong(user: User, params: dict[str, Any], pointer: str) -> None:
    answer = user.process(uploaded(user), processor="convert", params=params)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]


def test_a_pdf_is_not_converted(user: User) -> None:
    answer = user.process(user.upload()["id"], processor="convert")
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported-content-type")


def test_a_service_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    with converting(busy=1) as service, Server(tmp_path / "var", {"CONVERSION_URL": service.url}, QUICK) as server:
        user = server.register()
        document_id = uploaded(user)
        job = converted(user, document_id)
        assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2)
        assert len(service.forms) == 2
        assert len(children(user, document_id)) == 1


def test_a_job_waits_for_a_service_that_is_away(tmp_path: Path) -> None:
    port = free_port()
    settings = {"CONVERSION_URL": f"http://user:s3cret@127.0.0.1:{port}", "JOB_MAX_TRIES": "100"}
    with Server(tmp_path / "var", settings, QUICK) as server:
        user = server.register()
        document_id = uploaded(user)
        job_id = user.start(document_id, processor="convert")["id"]
        error = until(lambda: user.job(job_id)["error"])
        assert error["code"] == "conversion-unavailable"
        assert error["detail"] == "The conversion service cannot be reached: Connection refused."
        with converting(port):
            job = user.finished(job_id)
        assert (job["state"], job["attempt"] > 1) == ("SUCCEEDED", True)
        assert len(children(user, document_id)) == 1
        assert "s3cret" not in server.log_file.read_text()


def test_a_service_that_nobody_has_heard_of(tmp_path: Path) -> None:
    settings = {"CONVERSION_URL": "http://conversion.invalid", "JOB_MAX_TRIES": "1"}
    with Server(tmp_path / "var", settings) as server:
        user = server.register()
        error = converted(user, uploaded(user))["error"]
        assert error["detail"] == "The conversion service cannot be reached: its name cannot be resolved."


@pytest.mark.parametrize(
    "point",
    [
        "outputs.before_publish:1",
        *(pytest.param(each, marks=pytest.mark.long) for each in ("output.after_store:1", "finish.after_commit:1")),
    ],
)
@pytest.mark.long
def test_killed_at_any_point_there_is_one_pdf(tmp_path: Path, point: str) -> None:
    with converting() as service:
        settings = {"CONVERSION_URL": service.url, "FAULT": point, "LEASE_SECONDS": "1.5"}
        with Server(tmp_path / "var", settings, QUICK) as server:
            user = server.register()
            document_id = uploaded(user)
            with pytest.raises(httpx2.TransportError):
                converted(user, document_id)
            user = server.restarted(user, FAULT="")
            job = user.finished(user.http.get("/jobs", params={"processor": "convert"}).json()["items"][0]["id"])
            tries = 1 if point.startswith("finish.after") else 2
            assert (job["state"], job["attempt"], len(service.forms)) == ("SUCCEEDED", tries, tries)
            assert len(children(user, document_id)) == 1
            ledger = Ledger(server.data_dir)
            ledger.settle()
            ledger.check()


def test_without_a_service_it_is_not_offered(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        offered = [each["name"] for each in user.http.get("/processors").json()["items"]]
        assert "convert" not in offered


@pytest.mark.skipif(missing() is not None, reason=f"convert: {missing()}")
def test_by_libreoffice(tmp_path: Path) -> None:
    with (
        converting(soffice=True) as service,
        Server(tmp_path / "var", {"CONVERSION_URL": service.url}) as server,
    ):
        user = server.register()
        document_id = uploaded(user, "Dear reader")
        assert converted(user, document_id)["state"] == "SUCCEEDED"
        [child] = children(user, document_id)
        assert text_of(user, child["id"]) == "Dear reader"
