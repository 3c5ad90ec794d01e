"""Coming from presigned uploads, on the default and on S3 and SQS, as the block of settings on the page has it."""

import os
import re
import shutil
import subprocess
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.session import get_session
from sqlalchemy import URL

from app.settings import broker, database, storage
from tests.support import brokers
from tests.support.brokers import Sqs
from tests.support.direct_uploads import announce, complete, sha256
from tests.support.factories import PDF_TYPE, pdf
from tests.support.guide import (
    FAILING,
    FLAKY,
    QUICK,
    TOO_LARGE,
    Walk,
    at_work,
    code,
    failed,
    files_in,
    lease,
    seconds_until,
    sections,
    walking,
)
from tests.support.server import Server, Worker
from tests.support.user import User

BASH = shutil.which("bash") or "bash"
KEY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # which the emulator knows
HEADING = "Presigned uploads, a queue and a worker"


def put(walk: Walk, upload: dict[str, Any], content: bytes) -> int:
    return walk.anybody().put(upload["upload_url"], content=content, headers=upload["headers"]).status_code


def presigned(walk: Walk) -> None:
    user = walk.user()
    document_id = comes_in(walk, user)
    is_processed(walk, user, document_id)
    states(walk, user)
    settings(walk, user)


def comes_in(walk: Walk, user: User) -> str:
    content = pdf("presigned", pages=2)
    walk.at("a call for a presigned URL")
    upload = announce(user, content, sha256=sha256(content))
    walk.at("PUT to that URL")
    assert put(walk, upload, content) in {200, 204}
    assert put(walk, upload, content) == 412
    walk.at("S3's event, or a call")
    assert complete(user, upload).json()["status"] == "UPLOADED"
    id_: str = upload["document_id"]
    assert user.http.get(f"/documents/{id_}/content").content == content
    return id_


def is_processed(walk: Walk, user: User, document_id: str) -> None:
    path = f"/documents/{document_id}"
    walk.at("a message for the worker")
    job_id = user.start(document_id, processor="text")["id"]
    walk.at("a status call")
    answer = user.http.get(path)
    assert "etag" in answer.headers
    assert answer.json()["status"] == "COMPLETED" or "retry-after" in answer.headers
    walk.at("polling")
    assert user.http.get(f"/jobs/{job_id}?wait=30").json()["state"] == "SUCCEEDED"
    walk.at("the worker receives, hides and deletes")
    user.events(document_id)
    walk.at("the result as an object")
    assert user.http.get(f"{path}/result").json()["data"]["text"] == "presigned 1\fpresigned 2"
    walk.at("a presigned URL to download")
    part = user.http.get(f"{path}/content", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"%PDF")
    walk.at("the dead-letter queue")
    dead = failed(user, document_id, **FLAKY)
    assert dead["attempt"] == dead["max_attempts"] == 1
    assert [each["id"] for each in user.http.get("/jobs?dead=true").json()["items"]] == [dead["id"]]


def states(walk: Walk, user: User) -> None:
    walk.at("URL issued")
    announced = announce(user, pdf())
    assert code(complete(user, announced)) == (422, "upload-missing")
    assert user.document(announced["document_id"])["status"] == "INITIATED"
    walk.at("uploaded")
    document_id = user.upload()["id"]
    walk.at("queued, processing")
    with at_work(user, document_id):
        assert user.document(document_id)["status"] == "PROCESSING"
    walk.at("processed")
    user.finished(user.start(document_id, **QUICK)["id"])
    assert user.document(document_id)["status"] == "COMPLETED"
    walk.at("failed")
    failed(user, document_id, **FAILING)
    assert user.document(document_id)["error"]["code"] == "simulated-permanent"


def settings(walk: Walk, user: User) -> None:
    walk.at("the bucket and its prefix", "STORAGE_URL")  # the tests look there in the end
    walk.at("the queue", "BROKER_URL")
    walk.at("the URL's expiry", "UPLOAD_URL_TTL")
    expiry = datetime.fromisoformat(announce(user, pdf())["expires_at"])
    assert seconds_until(expiry) == pytest.approx(600, abs=30)
    walk.at("the largest object", "MAX_UPLOAD_BYTES")
    announced = {"filename": "a.pdf", "content_type": PDF_TYPE, "size": len(TOO_LARGE)}
    assert code(user.http.post("/documents/initiate-upload", json=announced)) == (413, "payload-too-large")
    walk.at("the visibility timeout", "LEASE_SECONDS")
    with at_work(user, user.upload()["id"]) as job_id:
        assert 10 < lease(walk, job_id) <= 20
        walk.at("maxReceiveCount", "JOB_MAX_TRIES")
        assert user.job(job_id)["max_attempts"] == 1
    walk.at("a lifecycle rule", "ORPHAN_GRACE_SECONDS")


def test_presigned_uploads_a_queue_and_a_worker(tmp_path: Path) -> None:
    storage_url = {"STORAGE_URL": f"file://{tmp_path}/kept"}
    with walking(HEADING, Server(tmp_path / "var", storage_url)) as walk:
        presigned(walk)
    assert files_in(tmp_path / "kept") > 2


@pytest.mark.postgresql
@pytest.mark.skipif(brokers.MINISTACK is None, reason="there is no SQS server in .venv/ministack")
def test_from_the_default_to_s3_and_sqs(sqs: Sqs, tmp_path: Path) -> None:
    """The very lines, but for the database and for the address and credentials of AWS. `simulated` can fail."""
    [lines] = re.findall(r"```sh\n(.*?)```", sections()["From the default to S3 and SQS"], re.DOTALL)
    commands = re.findall(r"^python -m app (\w+)", lines, re.MULTILINE)
    assert commands == ["migrate", "worker", "serve"]
    env = exported(lines)
    assert isinstance(database.parse(env.pop("DATABASE_URL")), URL)
    env |= {**KEY, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{sqs.port}", "REGISTRATION": "open"}
    env["PROCESSORS"] += ",simulated"
    bucket, queue = storage.parse(env["STORAGE_URL"]), broker.parse(env["BROKER_URL"])
    assert isinstance(bucket, storage.Bucket)
    at = {"endpoint_url": env["AWS_ENDPOINT_URL"], "region_name": env["AWS_DEFAULT_REGION"]}
    s3 = get_session().create_client("s3", aws_access_key_id="test", aws_secret_access_key="test", **at)
    with closing(s3), sqs.queue(queue.queue):
        s3.create_bucket(Bucket=bucket.name, CreateBucketConfiguration={"LocationConstraint": at["region_name"]})
        with (
            walking(HEADING, Server(tmp_path / "var", env)) as walk,
            Worker(tmp_path / "var", walk.server.settings),
        ):
            presigned(walk)
            assert "broker" not in walk.anybody().get("/readyz").json()["alarms"]
        kept = s3.list_objects_v2(Bucket=bucket.name, Prefix=f"{bucket.prefix}documents/")["KeyCount"]
    assert kept > 2


def exported(lines: str) -> dict[str, str]:
    """What these lines put into the environment."""
    script = "".join(f"{line}\n" for line in lines.splitlines() if line.startswith("export "))
    path = {"PATH": os.environ["PATH"]}
    done = subprocess.run([BASH, "-euc", f"{script}env -0"], env=path, check=True, capture_output=True, text=True)
    found = dict(each.split("=", 1) for each in done.stdout.split("\0") if each)
    return {name: found[name] for name in re.findall(r"export (\w+)=", script)}
