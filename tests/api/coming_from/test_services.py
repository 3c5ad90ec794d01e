"""Coming from what teams run or rent."""

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.support.direct_uploads import announce, complete
from tests.support.elsewhere import STATED, described
from tests.support.factories import encrypted_pdf, pdf
from tests.support.guide import (
    FAILING,
    QUICK,
    TOKEN,
    TOO_LARGE,
    Walk,
    at_work,
    code,
    elsewhere,
    failed,
    files_in,
    longest_attempt,
    scraped,
    sections,
    walking,
)
from tests.support.receiver import receiving
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

TEXT: dict[str, Any] = {"process": {"processor": "text"}}
TAX = TEXT | {"folder": "tax"}
RESULTS_END = 'document_api_upkeep_interval_seconds{chore="results"}'
SCOPES = ["documents:read", "documents:write", "documents:process", "documents:delete", "webhooks:manage"]


def test_docling_serve(tmp_path: Path) -> None:
    remote = described(tmp_path, {"count": STATED["count"]})
    named = {"REMOTE_PROCESSORS": str(remote), "STORAGE_URL": f"file://{tmp_path}/kept"}
    with walking("docling-serve", Server(tmp_path / "var", named)) as walk:
        owner = walk.user()
        user = walk.with_key(owner, *SCOPES)
        document = docling_converts(walk, user)
        docling_tells(walk, user, document)
        docling_is_run(walk, user)
        docling_states(walk, user)
        docling_settings(walk, owner, user)
    assert files_in(tmp_path / "kept") > 2


def docling_converts(walk: Walk, user: User) -> str:
    walk.at("POST /v1/convert/file/async")
    document = user.upload(pdf("to read", pages=3), metadata=TEXT)
    walk.at("POST /v1/convert/source/async")
    announce(user, pdf())
    walk.at("POST /v1/convert/file")
    job = user.http.get(f"/jobs/{document['job']['id']}?wait=30").json()
    assert (job["state"], job["progress"]) == ("SUCCEEDED", 1)
    walk.at("POST /v1/convert/source/batch")
    asked = {"document_ids": [user.upload()["id"]], "processor": "simulated", "params": {"seconds": 0}}
    [accepted] = user.http.post("/documents/process-batch", json=asked).json()["accepted"]
    walk.at("POST /v1/chunk/")
    job = user.start(document["id"], processor="text", params={"chunks": {"size": 100, "overlap": 10}})
    walk.at("GET /v1/status/poll/")
    assert user.http.get(f"/jobs/{job['id']}?wait=30").json()["state"] == "SUCCEEDED"
    walk.at("task_position")
    assert 0 <= user.job(accepted["job_id"])["progress"] <= 1
    id_: str = document["id"]
    return id_


def docling_tells(walk: Walk, user: User, document_id: str) -> None:
    path = f"/documents/{document_id}"
    walk.at("/v1/status/ws/")
    with user.http.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
    walk.at("GET /v1/result/")
    first, second = (user.http.get(f"{path}/result").json()["data"]["chunks"] for _ in range(2))
    assert first == second != []
    walk.at("to_formats=md")
    wanted = '{"processor": "text", "params": {"format": "markdown"}}'
    answer = user.http.post(f"{path}/process", content=wanted, headers={"Content-Type": "application/json"})
    user.finished(answer.json()["job"]["id"])
    walk.at("page_range")
    user.finished(user.start(document_id, processor="text", params={"max_pages": 1})["id"])
    assert user.http.get(f"{path}/result", headers={"Accept": "text/plain"}).text == "to read 1"
    walk.at("callbacks")
    with receiving() as receiver:
        receiver.told_of(user, event_types=["document.completed"])
        user.start(document_id, processor="text")
        until(lambda: receiver.received)
        assert receiver.received[0].verified
    walk.at("POST /v1/callback/task/progress")
    worker = elsewhere(walk)
    job_id = user.upload(metadata={"process": {"processor": "count"}})["job"]["id"]
    worker.claim_job(job_id)
    assert worker.beat(0.5).status_code == 200
    assert user.job(job_id)["progress"] == 0.5
    walk.at("GET /v1/clear/results")
    assert user.http.delete(f"{path}?permanent=true").status_code == 204


def docling_is_run(walk: Walk, user: User) -> None:
    for theirs, page in (("GET /health", "/livez"), ("GET /ready", "/readyz"), ("GET /version", "/processors")):
        walk.at(theirs)
        assert user.http.get(page).status_code == 200
    walk.at("GET /metrics")
    assert scraped(walk, TOKEN) == 200
    for theirs, page in (("GET /docs", "/docs"), ("GET /openapi-3.0.json", "/openapi.json"), ("/ui", "/console")):
        walk.at(theirs)
        assert walk.anybody().get(page, follow_redirects=True).status_code == 200
    walk.at("X-Api-Key")
    assert user.http.get("/documents").status_code == 200
    walk.at("X-Tenant-Id")
    assert code(walk.user().http.get(f"/documents/{user.upload()['id']}")) == (404, "not-found")


def docling_states(walk: Walk, user: User) -> None:
    walk.at("pending")
    document = user.upload(metadata={"process": QUICK})
    job_id, path = document["job"]["id"], f"/documents/{document['id']}"
    assert user.finished(job_id)["max_attempts"] == 3
    walk.at("started")
    with at_work(user, document["id"]):
        pass
    walk.at("success")
    assert user.job(job_id)["state"] == "SUCCEEDED"
    walk.at("partial_success")
    user.finished(user.start(document["id"], processor="text")["id"])
    assert user.http.get(f"{path}/result").json()["data"]["unreadable_pages"] == []
    walk.at("failure")
    failed(user, document["id"], **FAILING)


def docling_settings(walk: Walk, owner: User, user: User) -> None:
    metrics = walk.anybody().get("/metrics").text
    walk.at("DOCLING_SERVE_API_KEY", "QUOTA_API_KEYS")
    made = [owner.http.post("/api-keys", json={"name": "a", "scopes": SCOPES}) for _ in range(5)]
    assert code(made[-1]) == (403, "api-key-quota-exceeded")
    walk.at("DOCLING_SERVE_MAX_FILE_SIZE", "MAX_UPLOAD_BYTES")
    assert code(user.post_file(TOO_LARGE)) == (413, "payload-too-large")
    walk.at("DOCLING_SERVE_MAX_DOCUMENT_TIMEOUT", "JOB_TIMEOUT")
    assert longest_attempt(walk, user) == pytest.approx(900, abs=30)
    walk.at("DOCLING_SERVE_ENG_LOC_NUM_WORKERS", "JOB_CONCURRENCY")
    assert 'document_api_slots{resource="jobs"} 8.0' in metrics
    walk.at("DOCLING_SERVE_ENG_KIND", "BROKER_URL")
    walk.at("DOCLING_SERVE_ENG_RAY_MAX_TASK_RETRIES", "JOB_MAX_TRIES")
    assert user.upload(metadata={"process": QUICK})["job"]["max_attempts"] == 3
    walk.at("DOCLING_SERVE_ENG_RAY_MAX_QUEUED_TASKS", "QUOTA_JOBS")
    assert owner.http.get("/auth/me").json()["quota"]["jobs"] == 20
    walk.at("DOCLING_SERVE_ENG_RQ_RESULTS_TTL", "RESULT_TTL")
    assert RESULTS_END in metrics
    walk.at("DOCLING_SERVE_SCRATCH_PATH", "DATA_DIR")
    assert (walk.server.data_dir / "jwt-secret").exists()
    walk.at("DOCLING_SERVE_ARTIFACT_STORAGE_*", "STORAGE_URL")  # the test looks there in the end
    walk.at("DOCLING_SERVE_CORS_*", "CORS_ORIGINS")
    origin = walk.server.settings["CORS_ORIGINS"]
    assert walk.anybody(Origin=origin).get("/livez").headers["access-control-allow-origin"] == origin
    walk.at("DOCLING_SERVE_LOG_LEVEL", "LOG_LEVEL")
    assert {"info", "debug"}.isdisjoint(each["level"] for each in walk.server.logs())
    walk.at("DOCLING_SERVE_ENABLE_UI", "CONSOLE")
    walk.at("DOCLING_SERVE_ALLOW_EXTERNAL_PLUGINS", "PROCESSORS")
    offered = user.http.get("/processors").json()["items"]
    assert {each["name"] for each in offered} == {"text", "simulated", "count"}
    walk.at("UVICORN_HOST", "KEEP_ALIVE_SECONDS")
    walk.at("DOCLING_SERVE_OTEL_*", "METRICS_TOKEN")
    assert [scraped(walk, said) for said in (TOKEN, "another")] == [200, 404]


def test_amazon_textract(tmp_path: Path) -> None:
    with walking("Amazon Textract", Server(tmp_path / "var")) as walk:
        user = walk.user()
        document = textract_starts(walk, user)
        textract_gets(walk, user, document)
        textract_refuses(walk, user, document["id"])
        textract_states(walk, user, document["id"])


def textract_starts(walk: Walk, user: User) -> dict[str, Any]:
    content = pdf("to read", pages=2)
    walk.at("StartDocumentTextDetection")
    user.finished(user.upload(content, metadata=TEXT)["job"]["id"])
    walk.at("DocumentLocation")
    announce(user, content)
    walk.at("ClientRequestToken")
    document, again = (user.post_file(content, metadata=TAX, key="token").json() for _ in range(2))
    assert document["job"]["id"] == again["job"]["id"]
    walk.at("JobTag")
    assert user.document(document["id"])["folder"] == "tax"
    user.finished(document["job"]["id"])
    walk.at("NotificationChannel")
    with receiving() as receiver:
        receiver.told_of(user, event_types=["document.completed"])
        user.finished(user.start(document["id"], processor="text", force=True)["id"])
        walk.at("the notification")
        until(lambda: receiver.received)
        [notification] = receiver.received
        assert notification.verified
        assert notification.body["data"]["document"]["folder"] == "tax"
        walk.hear(receiver)
    found: dict[str, Any] = document
    return found


def textract_gets(walk: Walk, user: User, document: dict[str, Any]) -> None:
    path = f"/documents/{document['id']}/result"
    walk.at("OutputConfig")
    url = user.job(document["job"]["id"])["result_url"]
    walk.at("GetDocumentTextDetection")
    assert user.http.get(f"/jobs/{document['job']['id']}?wait=30").json()["state"] == "SUCCEEDED"
    walk.at("Blocks")
    assert [each["text"] for each in user.http.get(path).json()["data"]["pages"]] == ["to read 1", "to read 2"]
    walk.at("MaxResults")
    first = user.http.get("/documents?limit=1").json()
    second = user.http.get("/documents", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert first["items"] != second["items"]
    walk.at("DocumentMetadata")
    assert user.http.get(url).json()["data"]["page_count"] == 2
    walk.at("DetectDocumentTextModelVersion")
    assert user.http.get(url).json()["processor_version"]
    walk.at("Warnings")
    assert user.http.get(url).json()["data"]["unreadable_pages"] == []
    walk.at("StatusMessage")
    assert failed(user, document["id"], **FAILING)["error"].keys() == {"code", "detail"}
    walk.at("StartDocumentAnalysis")
    user.http.get(url)
    walk.at("QueriesConfig")
    user.http.get("/processors")


def textract_refuses(walk: Walk, user: User, document_id: str) -> None:
    walk.at("IdempotentParameterMismatchException")
    assert user.post_file(pdf("other"), key="token").status_code == 422
    walk.at("InvalidParameterException")
    asked = user.process(document_id, processor="text", params={"max_pages": -1})
    assert asked.json()["errors"][0]["pointer"] == "/params/max_pages"
    walk.at("InvalidJobIdException")
    assert user.http.get(f"/jobs/{document_id}").status_code == 404
    walk.at("InvalidS3ObjectException")
    assert complete(user, announce(user, pdf("never sent"))).status_code == 422
    walk.at("UnsupportedDocumentException")
    assert user.post_file(b"GIF89a").status_code == 415
    walk.at("DocumentTooLargeException")
    assert user.post_file(TOO_LARGE).status_code == 413
    walk.at("BadDocumentException")
    failed(user, user.upload(encrypted_pdf("secret"))["id"], processor="text")
    walk.at("AccessDeniedException")
    assert walk.with_key(user, "documents:write").http.get("/documents").status_code == 403
    walk.at("LimitExceededException")
    with at_work(user, document_id):
        assert user.process(user.upload()["id"]).status_code == 429
    walk.at("ThrottlingException")
    http = walk.user().http
    answers = [http.get("/documents?limit=1") for _ in range(101)]
    assert answers[-1].status_code == 429
    assert "retry-after" in answers[-1].headers


def textract_states(walk: Walk, user: User, document_id: str) -> None:
    walk.at("IN_PROGRESS")
    with at_work(user, document_id):
        pass
    walk.at("SUCCEEDED")
    user.finished(user.start(document_id, **QUICK)["id"])
    walk.at("FAILED")
    failed(user, document_id, **FAILING)
    walk.at("PARTIAL_SUCCESS")
    user.http.get(f"/documents/{document_id}/results/text")
    walk.at("transactions a second", "RATE_LIMIT")
    other = walk.user().http
    assert "q=100;w=3600" in other.get("/auth/me").headers["ratelimit-policy"]
    walk.at("jobs at once", "QUOTA_JOBS")
    assert other.get("/auth/me").json()["quota"]["jobs"] == 1
    walk.at("the size of a document", "MAX_UPLOAD_BYTES")
    assert other.post("/documents", files={"file": TOO_LARGE}).status_code == 413
    walk.at("seven days", "RESULT_TTL")
    assert RESULTS_END in walk.anybody().get("/metrics").text


def test_every_name_of_textract_is_there() -> None:
    """Those of its asynchronous calls, as the SDK has them."""
    text = sections()["Amazon Textract"]
    packed = files("botocore").joinpath("data/textract/2018-06-27/service-2.json.gz").read_bytes()
    model = json.loads(gzip.decompress(packed))
    starts = {name for name in model["operations"] if name.startswith("Start")}
    names = starts | {name.replace("Start", "Get") for name in starts} | {*model["shapes"]["JobStatus"]["enum"]}
    for name in starts | {name.replace("Start", "Get") for name in starts}:
        operation = model["operations"][name]
        for side in ("input", "output"):
            names |= set(model["shapes"][operation[side]["shape"]]["members"])
        names |= {each["shape"] for each in operation["errors"]}
    assert {name for name in names if f"`{name}`" not in text} == set()
