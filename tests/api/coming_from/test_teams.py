"""Coming from what teams build themselves."""

import hmac
import json
from base64 import urlsafe_b64encode
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.documents.models import documents
from app.remote.tokens import ClaimTokens
from tests.support import databases
from tests.support.elsewhere import STATED, Worker as Elsewhere, described
from tests.support.factories import PDF_TYPE, pdf
from tests.support.guide import (
    FAILING,
    FLAKY,
    QUICK,
    TOKEN,
    TOO_LARGE,
    Walk,
    at_work,
    code,
    elsewhere,
    failed,
    files_in,
    lease,
    longest_attempt,
    seconds_until,
    walking,
)
from tests.support.server import Server
from tests.support.user import PASSWORD, User
from tests.support.waiting import until


def test_sqs_postgresql_and_a_worker_under_compose(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    databases.prepare(rows)
    apart = {"DATABASE_URL": databases.url(rows), "DATA_DIR": str(tmp_path / "var")}
    server = Server(rows, apart | {"REMOTE_PROCESSORS": str(described(tmp_path))})
    with walking("SQS, PostgreSQL and a worker under Compose", server) as walk:
        user, operator = walk.user(), walk.operator()
        flaky = user.start(user.upload()["id"], **FLAKY)
        walk.at("an upload, an INSERT")
        document = user.upload(metadata={"process": {"params": {"seconds": 60}}})
        path = f"/jobs/{document['job']['id']}"
        walk.at("ReceiveMessage")
        until(lambda: user.http.get(path).json()["state"] == "RUNNING")
        walk.at("ChangeMessageVisibility")
        user.http.get(path)
        walk.at("DeleteMessage")
        user.http.post(f"{path}/cancel")
        assert user.finished(user.start(document["id"], **QUICK)["id"])["state"] == "SUCCEEDED"
        walk.at("SELECT … FROM jobs")
        [found] = user.http.get(f"/jobs?state=SUCCEEDED&document_id={document['id']}").json()["items"]
        assert operator.http.get(f"/admin/jobs?document_id={document['id']}").json()["items"][0]["id"] == found["id"]
        walk.at("a delayed retry")
        until(lambda: user.job(flaky["id"])["error"])
        walk.at("ApproximateNumberOfMessages")
        walk.anybody().get("/metrics")
        walk.at("a look into the dead-letter queue")
        assert user.finished(flaky["id"])["dead"]
        [dead] = operator.http.get("/admin/jobs?dead=true").json()["items"]
        assert (dead["id"], dead["attempt"]) == (flaky["id"], 2)
        walk.at("StartMessageMoveTask")
        asked: dict[str, Any] = {"filter": {"dead": True}}
        matching = operator.http.post("/admin/jobs/rerun", json=asked).json()["matching"]
        rerun = operator.http.post("/admin/jobs/rerun", json=asked | {"confirm": matching})
        assert rerun.json()["changed"] == 1
        walk.at("PurgeQueue")
        purged = user.start(document["id"], params={"seconds": 60})["id"]
        asked = {"filter": {"document_id": document["id"]}, "confirm": 1}
        assert operator.http.post("/admin/jobs/cancel", json=asked).json()["changed"] == 1
        assert user.document(document["id"])["status"] == "COMPLETED"
        queue_states(walk, user, dead["id"], purged)
        queue_settings(walk, user)
    assert documents_in(rows)


def documents_in(rows: Path) -> int:
    """How many documents a database has that is none of the server's folder."""
    with databases.engine(rows).connect() as conn:
        return conn.scalar(select(func.count()).select_from(documents)) or 0


def queue_states(walk: Walk, user: User, dead_id: str, purged: str) -> None:
    other = user.upload()["id"]
    walk.at("visible")
    job = user.start(other, **QUICK)
    assert job["state"] == "QUEUED"
    user.finished(job["id"])
    walk.at("in flight")
    with at_work(user, other) as job_id:
        assert user.job(job_id)["attempt"] == 1
    walk.at("deleted")
    assert user.job(job["id"])["state"] == "SUCCEEDED"
    walk.at("in the dead-letter queue")
    assert user.job(dead_id)["dead"]
    assert not failed(user, other, **FAILING)["dead"]
    walk.at("purged")
    assert user.job(purged)["state"] == "CANCELLED"


def queue_settings(walk: Walk, user: User) -> None:
    walk.at("DATABASE_URL", "DATABASE_URL")  # the test looks there in the end
    walk.at("the queue's URL", "BROKER_URL")
    walk.at("VisibilityTimeout", "LEASE_SECONDS")
    with at_work(user, user.upload()["id"]) as job_id:
        assert 10 < lease(walk, job_id) <= 20
        walk.at("maxReceiveCount", "JOB_MAX_TRIES")
        assert user.job(job_id)["max_attempts"] == 2
    walk.at("messages in flight", "JOB_CONCURRENCY")
    assert 'document_api_slots{resource="jobs"} 2.0' in walk.anybody().get("/metrics").text
    walk.at("the time limit of the work", "JOB_TIMEOUT")
    assert longest_attempt(walk, user) == pytest.approx(60, abs=20)


def test_jwt_and_idempotent_processing(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    databases.prepare(rows)
    urls = {"DATABASE_URL": databases.url(rows), "STORAGE_URL": f"file://{tmp_path}/kept"}
    with walking("JWT and idempotent processing", Server(tmp_path / "var", urls)) as walk:
        account = {"email": "ada@example.com", "password": PASSWORD}
        http = walk.anybody()
        walk.at("register")
        assert http.post("/auth/register", json=account).status_code == 201
        walk.at("log in")
        tokens = http.post("/auth/login", json=account).json()
        walk.at("refresh")
        tokens = http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
        http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        user = User(walk.server, account["email"], http, tokens)
        walk.at("upload")
        first, again = (user.post_file(pdf("once"), key="upload") for _ in range(2))
        assert (first.content, again.headers["idempotent-replayed"]) == (again.content, "true")
        walk.at("list, with a filter")
        for _ in range(2):
            user.upload()
        assert http.get("/documents?status=UPLOADED&limit=2").json()["next_cursor"]
        document_id = first.json()["id"]
        walk.at("process")
        job = user.start(document_id, key="process", params={"seconds": 0.3})
        walk.at("process again")
        running = user.process(document_id, params={"seconds": 0.3})
        user.finished(job["id"])
        afterwards = user.process(document_id, params={"seconds": 0.3})
        assert [(each.status_code, each.json()["job"]["id"]) for each in (running, afterwards)] == [
            (200, job["id"]),
            (200, job["id"]),
        ]
        walk.at("the same key with another request")
        assert user.process(document_id, key="process", processor="text").status_code == 422
        walk.at("the status")
        assert user.document(document_id)["status"] == "COMPLETED"
        walk.at("the result")
        assert http.get(f"/documents/{document_id}/result").status_code == 200
        walk.at("the history")
        assert user.story(document_id) == ["queued", "started", "succeeded"]
        walk.at("delete")
        assert http.delete(f"/documents/{document_id}").status_code == 204
        walk.at("log out")
        assert http.post("/auth/logout", json={"refresh_token": tokens["refresh_token"]}).status_code == 204
        assert code(http.get("/documents")) == (401, "invalid-token")

        jwt_states(walk)
        jwt_settings(walk)
    assert files_in(tmp_path / "kept") > 2
    assert documents_in(rows)


def jwt_states(walk: Walk) -> None:
    user = walk.user()
    walk.at("UPLOADED")
    document_id = user.upload()["id"]
    walk.at("PROCESSING")
    with at_work(user, document_id):
        assert code(user.http.get(f"/documents/{document_id}/result")) == (409, "result-not-ready")
        user.document(document_id)
    walk.at("COMPLETED")
    user.finished(user.start(document_id, **QUICK)["id"])
    user.document(document_id)
    walk.at("FAILED")
    failed(user, document_id, **FAILING)


def jwt_settings(walk: Walk) -> None:
    user = walk.user()
    walk.at("the secret that signs tokens", "JWT_SECRET")
    said, _, signature = user.tokens["access_token"].rpartition(".")
    made = hmac.digest(TOKEN.encode(), said.encode(), "sha256")
    assert urlsafe_b64encode(made).decode().rstrip("=") == signature
    walk.at("a token's life", "ACCESS_TOKEN_TTL")
    assert user.tokens["expires_in"] == 600
    walk.at("the folder of uploads", "STORAGE_URL")  # the test looks there in the end
    walk.at("the largest upload", "MAX_UPLOAD_BYTES")
    assert code(user.post_file(TOO_LARGE)) == (413, "payload-too-large")
    walk.at("the database", "DATABASE_URL")  # there, too


def test_pdf_splitting_on_lambda(tmp_path: Path) -> None:
    named = {"REMOTE_PROCESSORS": str(described(tmp_path)), "PUBLIC_URL": "https://api.example.com/v1"}
    server = Server(tmp_path / "var", named | {"JWT_SECRET": TOKEN})
    with walking("PDF splitting on Lambda", server) as walk:
        user = walk.user()
        params = {
            "split_params": {"file_map": [{"pages": [0, 1]}, {"pages": [2]}]},
            "prefix": "split",
            "suffix": "2024",
        }
        form = {
            "metadata": json.dumps({"folder": "in"}),
            "process": "split",
            "process_params": json.dumps(params | {"then": {"processor": "simulated", "params": {"seconds": 0}}}),
        }
        walk.at("the one call")
        sent = {"file": ("report.pdf", pdf("a", pages=3), PDF_TYPE)}
        document = user.http.post("/documents", files=sent, data=form).json()
        walk.at("split_params with a file_map")
        again = user.post_file(pdf("b", pages=3), metadata={"process": {"processor": "split", "params": params}}).json()
        assert [each["pages"] for each in again["job"]["params"]["file_map"]] == [[0, 1], [2]]
        walk.at("prefix and suffix")
        assert user.finished(document["job"]["id"])["state"] == "SUCCEEDED"
        children = user.http.get(f"/documents/{document['id']}/children").json()["items"]
        walk.at("the records that come back")
        assert len(user.http.get(f"/documents/{document['id']}/children").json()["items"]) == 2
        walk.at("the children's own processing")
        user.job(document["job"]["id"])
        assert [user.finished(each["job_id"])["state"] for each in children] == ["SUCCEEDED"] * 2

        function = elsewhere(walk)
        content = pdf("c", pages=2)
        job = user.upload(content, metadata={"process": {"processor": "cut"}})["job"]
        walk.at("SQS starts the function")
        assert function.claim_job(job["id"]).status_code == 200
        assert code(function.claim_job(job["id"])) == (409, "already-claimed")
        walk.at("the function fetches the input")
        assert function.ask("GET", "inputs/0").content == content
        walk.at("the function stores what it made")
        outputs = function.send_documents(1)
        walk.at("the callback")
        done = [function.complete({"parts": 1}, outputs) for _ in range(2)]
        assert [each.json()["state"] for each in done] == ["SUCCEEDED"] * 2
        walk.at("the callback that tells a failure")
        refused = user.upload(metadata={"process": {"processor": "cut"}})["job"]["id"]
        function.claim_job(refused)
        assert function.fail(transient=False).json()["state"] == "FAILED"
        walk.at("the key from Secrets Manager")
        waiting = user.upload(metadata={"process": {"processor": "cut"}})["job"]["id"]
        function.claim_job(waiting)

        walk.at("received")
        assert user.upload(metadata={"process": {"processor": "cut"}})["job"]["state"] == "QUEUED"
        walk.at("the function runs")
        assert user.job(waiting)["state"] == "WAITING"
        walk.at("split")
        assert user.job(job["id"])["state"] == "SUCCEEDED"
        walk.at("failed")
        assert user.job(refused)["state"] == "FAILED"
        lambda_settings(walk, user, function)


def lambda_settings(walk: Walk, user: User, function: Elsewhere) -> None:
    walk.at("the function and what it does", "REMOTE_PROCESSORS")
    assert STATED.keys() <= {each["name"] for each in user.http.get("/processors").json()["items"]}
    job = user.upload(metadata={"process": {"processor": "cut"}})["job"]
    function.claim_job(job["id"])
    walk.at("the function's timeout", "JOB_TIMEOUT")
    assert seconds_until(datetime.fromisoformat(function.held["deadline"])) == pytest.approx(300, abs=30)
    walk.at("maxReceiveCount", "JOB_MAX_TRIES")
    assert job["max_attempts"] == 2
    walk.at("the callback's URL", "PUBLIC_URL")
    assert function.held["inputs"][0]["url"].startswith("https://api.example.com/v1/remote/")
    walk.at("the callback's secret", "JWT_SECRET")
    assert ClaimTokens([TOKEN]).verify(function.held["token"]).job_id == UUID(job["id"])
