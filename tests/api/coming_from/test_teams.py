"""Coming from what teams build themselves."""

import json
from pathlib import Path
from typing import Any

from tests.support.elsewhere import described
from tests.support.factories import PDF_TYPE, pdf
from tests.support.guide import FAILING, FLAKY, QUICK, TOO_LARGE, Walk, at_work, code, elsewhere, failed, walking
from tests.support.receiver import receiving
from tests.support.server import Server
from tests.support.user import PASSWORD, User
from tests.support.waiting import until


def test_sqs_postgresql_and_a_worker_under_compose(tmp_path: Path) -> None:
    with walking("SQS, PostgreSQL and a worker under Compose", Server(tmp_path / "var")) as walk:
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
        for theirs in (
            "DATABASE_URL",
            "the queue's URL",
            "VisibilityTimeout",
            "maxReceiveCount",
            "messages",
            "the time",
        ):
            walk.at(theirs)


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


def test_jwt_and_idempotent_processing(tmp_path: Path) -> None:
    with walking("JWT and idempotent processing", Server(tmp_path / "var")) as walk:
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

        jwt_states_and_settings(walk)


def jwt_states_and_settings(walk: Walk) -> None:
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
    walk.at("the secret that signs tokens")
    walk.at("a token's life")
    assert user.tokens["expires_in"] == 600
    walk.at("the folder of uploads")
    walk.at("the largest upload")
    assert code(user.post_file(TOO_LARGE)) == (413, "payload-too-large")
    walk.at("the database")


def test_pdf_splitting_on_lambda(tmp_path: Path) -> None:
    server = Server(tmp_path / "var", {"REMOTE_PROCESSORS": str(described(tmp_path))})
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
        for theirs in ("the function and what it does", "the function's timeout", "maxReceiveCount"):
            walk.at(theirs)
        walk.at("the callback's URL")
        walk.at("the callback's secret")


def test_a_processor_service_on_s3_or_minio(tmp_path: Path) -> None:
    server = Server(tmp_path / "var", {"LOG_FILE": str(tmp_path / "log")})
    with walking("A processor service on S3 or MinIO", server) as walk, receiving() as receiver:
        owner, operator = walk.user(), walk.operator()
        walk.at("make a key")
        scopes = ["documents:read", "documents:write", "documents:process", "webhooks:manage"]
        made = owner.http.post("/api-keys", json={"name": "a", "scopes": scopes}).json()
        walk.at("X-API-Key")
        http = walk.anybody(**{"X-API-Key": made["key"]})
        user = User(walk.server, owner.email, http, {})
        assert http.get("/documents").status_code == 200
        walk.at("replace a key")
        rotated = owner.http.post(f"/api-keys/{made['id']}/rotate", json={"previous_valid_for": 60}).json()
        assert http.get("/documents").status_code == 200
        http.headers["X-API-Key"] = rotated["key"]
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
        token = walk.server.settings["METRICS_TOKEN"]
        assert walk.anybody(Authorization=f"Bearer {token}").get("/metrics").status_code == 200
        walk.at("the audit log")
        told = operator.http.get(f"/audit?document_id={document['id']}").json()["items"]
        assert "job.succeeded" in [each["event"] for each in told]
        walk.at("the management UI")
        assert walk.anybody().get("/console", follow_redirects=True).status_code == 200

        service_states(walk, owner, user, made["id"])
        service_settings(walk, owner)
        assert job["id"] in (tmp_path / "log").read_text()


def service_states(walk: Walk, owner: User, user: User, key_id: str) -> None:
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
    assert owner.http.delete(f"/api-keys/{key_id}").status_code == 204
    assert code(user.http.get("/documents")) == (401, "invalid-token")


def service_settings(walk: Walk, owner: User) -> None:
    walk.at("endpoint, bucket and path style")
    walk.at("requests an hour")
    assert "q=100;w=3600" in owner.http.get("/auth/me").headers["ratelimit-policy"]
    for theirs in ("the callback's timeout", "the callback's retries", "who may read metrics", "the UI"):
        walk.at(theirs)
    walk.at("pages of other origins")
    origin = walk.server.settings["CORS_ORIGINS"]
    assert walk.anybody(Origin=origin).get("/livez").headers["access-control-allow-origin"] == origin
    walk.at("versions that are kept")
    walk.at("the log's file")
