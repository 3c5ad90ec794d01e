"""Coming from a processor service on S3 or MinIO."""

from datetime import datetime
from pathlib import Path

import pytest

from tests.support.factories import PDF_TYPE, pdf
from tests.support.guide import (
    FAILING,
    QUICK,
    TOKEN,
    Walk,
    at_work,
    code,
    failed,
    files_in,
    scraped,
    seconds_until,
    walking,
)
from tests.support.receiver import receiving
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until


def test_a_processor_service_on_s3_or_minio(tmp_path: Path) -> None:
    places = {"LOG_FILE": str(tmp_path / "log"), "STORAGE_URL": f"file://{tmp_path}/kept"}
    server = Server(tmp_path / "var", places)
    with walking("A processor service on S3 or MinIO", server) as walk, receiving() as receiver:
        owner, operator = walk.user(), walk.operator()
        user = service_key(walk, owner)
        http = user.http
        walk.at("register for callbacks")
        webhook = receiver.told_of(user, event_types=["document.completed"])
        walk.at("a processor, by its name")
        http.get("/processors")
        walk.at("put an object")
        document = user.upload()
        path = f"/documents/{document['id']}"
        walk.at("put another version")
        sent, seen = {"file": ("b.pdf", pdf("second"), PDF_TYPE)}, {"If-Match": f'"{document["version"]}"'}
        assert http.put(f"{path}/content", files=sent, headers=seen).json()["file_number"] == 2
        walk.at("list versions")
        assert len(http.get(f"{path}/files").json()["items"]) == 2
        walk.at("process an object")
        job = user.start(document["id"])
        walk.at("the callback")
        until(lambda: receiver.received)
        assert receiver.received[0].verified
        walk.hear(receiver)
        walk.at("callbacks that failed")
        assert len(http.get(f"{webhook}/deliveries").json()["items"]) == 1
        walk.at("a rate limit's headers")
        answers = [operator.http.get("/documents?limit=1") for _ in range(101)]
        assert code(answers[-1]) == (429, "rate-limited")
        walk.at("metrics")
        operator = walk.operator()
        assert scraped(walk, TOKEN) == 200
        walk.at("the audit log")
        told = operator.http.get(f"/audit?document_id={document['id']}").json()["items"]
        assert "job.succeeded" in [each["event"] for each in told]
        walk.at("the management UI")
        assert walk.anybody().get("/console", follow_redirects=True).status_code == 200

        service_states(walk, owner, user)
        receiver.answers = [500]
        service_settings(walk, owner, webhook, path)
        assert files_in(tmp_path / "kept") > 2
        assert job["id"] in (tmp_path / "log").read_text()


def service_key(walk: Walk, owner: User) -> User:
    """The same user, with a key that took the place of another."""
    walk.at("make a key")
    scopes = ["documents:read", "documents:write", "documents:process", "webhooks:manage"]
    made = owner.http.post("/api-keys", json={"name": "a", "scopes": scopes}).json()
    walk.at("X-API-Key")
    http = walk.anybody(**{"X-API-Key": made["key"]})
    assert http.get("/documents").status_code == 200
    walk.at("replace a key")
    rotated = owner.http.post(f"/api-keys/{made['id']}/rotate", json={"previous_valid_for": 60}).json()
    assert http.get("/documents").status_code == 200
    http.headers["X-API-Key"] = rotated["key"]
    return User(walk.server, owner.email, http, made)


def service_states(walk: Walk, owner: User, user: User) -> None:
    walk.at("stored")
    other = user.upload()["id"]
    walk.at("processing")
    with at_work(user, other):
        user.document(other)
    walk.at("done")
    user.finished(user.start(other, **QUICK)["id"])
    user.document(other)
    walk.at("failed")
    failed(user, other, **FAILING)
    walk.at("key revoked")
    assert owner.http.delete(f"/api-keys/{user.tokens['id']}").status_code == 204
    assert code(user.http.get("/documents")) == (401, "invalid-token")


def service_settings(walk: Walk, owner: User, webhook: str, document: str) -> None:
    walk.at("endpoint, bucket and path style", "STORAGE_URL")  # the test looks there in the end
    walk.at("requests an hour", "RATE_LIMIT")
    assert "q=100;w=3600" in owner.http.get("/auth/me").headers["ratelimit-policy"]
    walk.at("the callback's timeout", "WEBHOOK_TIMEOUT")
    walk.at("the callback's retries", "WEBHOOK_RETRY_SCHEDULE")
    delivery = owner.http.post(f"{webhook}/test").json()["id"]
    until(lambda: next_attempt(owner, f"{webhook}/deliveries/{delivery}") == pytest.approx(75, abs=25))
    walk.at("who may read metrics", "METRICS_TOKEN")
    assert [scraped(walk, said) for said in (TOKEN, "another")] == [200, 404]
    walk.at("the UI", "CONSOLE")
    walk.at("pages of other origins", "CORS_ORIGINS")
    origin = walk.server.settings["CORS_ORIGINS"]
    assert walk.anybody(Origin=origin).get("/livez").headers["access-control-allow-origin"] == origin
    walk.at("versions that are kept", "FILE_VERSIONS_MAX")
    for number in (3, 4):
        sent = {"file": ("b.pdf", pdf(f"file {number}"), PDF_TYPE)}
        seen = {"If-Match": owner.http.get(document).headers["etag"]}
        assert owner.http.put(f"{document}/content", files=sent, headers=seen).json()["file_number"] == number
    assert len(owner.http.get(f"{document}/files").json()["items"]) == 1 + 2
    walk.at("the log's file", "LOG_FILE")  # the test looks into it in the end


def next_attempt(user: User, delivery: str) -> float:
    """Seconds until it; 0 if there is none."""
    moment = user.http.get(delivery).json()["next_attempt_at"]
    return seconds_until(datetime.fromisoformat(moment)) if moment else 0
