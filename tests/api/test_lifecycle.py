"""The main job, as the README tells it."""

import hashlib

from tests.support.factories import docx, pdf
from tests.support.user import User


def test_upload_process_and_fetch(user: User) -> None:
    content = pdf("The main job")
    answer = user.post_file(content, "main.pdf", metadata={"description": "d", "folder": "f", "tags": ["a", "b", "a"]})
    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert answer.headers["location"] == f"/documents/{document['id']}"
    assert document["status"] == "UPLOADED"
    assert document["sha256"] == hashlib.sha256(content).hexdigest()
    assert document["tags"] == ["a", "b"]

    accepted = user.process(document["id"], params={"seconds": 0.5})
    assert accepted.status_code == 202
    assert accepted.json()["started"] is True
    assert accepted.json()["document"]["status"] == "PROCESSING"
    job = accepted.json()["job"]
    assert accepted.headers["location"] == f"/jobs/{job['id']}"
    assert accepted.headers["retry-after"]
    job = user.finished(job["id"])
    assert (job["state"], job["attempt"], job["progress"], job["dead"]) == ("SUCCEEDED", 1, 1.0, False)

    result = user.http.get(job["result_url"])
    assert result.status_code == 200
    data = {"simulated": True, "size": len(content), "sha256": document["sha256"], "content_type": "application/pdf"}
    assert result.json()["data"] == data
    assert user.document(document["id"])["status"] == "COMPLETED"
    assert [event["event"] for event in user.events(document["id"])] == [
        "document.uploaded",
        "document.status_changed",
        "job.queued",
        "job.started",
        "job.succeeded",
        "document.status_changed",
    ]


def test_text_of_a_docx(user: User) -> None:
    document = user.upload(docx("Words to find"), "words.docx")
    job = user.finished(user.start(document["id"], processor="text")["id"])
    assert job["state"] == "SUCCEEDED", job
    assert "Words to find" in user.http.get(job["result_url"]).json()["data"]["text"]
