"""Accounts that have something of everything that the console shows."""

import json
from pathlib import Path
from typing import NamedTuple

from tests.support.factories import PDF_TYPE, encrypted_pdf
from tests.support.receiver import receiving
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until

SETTINGS = {
    "PROCESSORS": "simulated,text,split,merge,language,keywords",
    "PIPELINES": "read=text,language,keywords",
}
SAMPLES = Path("app/samples")
_LIVES: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("contract.pdf", "text", {}),
    ("invoice 2026-118.pdf", "read", {}),
    ("letters.pdf", "split", {"every": 1}),
    (
        "scan of a very long name that somebody gave to it with all that it has.pdf",
        "simulated",
        {"fail": "permanent"},
    ),
    ("delivery note.pdf", "simulated", {"flaky": 1}),
    ("minutes.docx", "text", {}),
)


class Exhibition(NamedTuple):
    """A user and an operator, and the paths of all pages of the console with something on them."""

    user: User
    operator: User
    of_user: dict[str, str]
    of_operator: dict[str, str]


def prepare(server: Server) -> Exhibition:
    """Fill a server."""
    user, operator = server.register("ada@example.com"), server.operator()
    with receiving(answers=[200, 200, 500, 200]) as receiver:
        webhook = receiver.told_of(user, description="The archive").removeprefix("/webhooks/")
        documents = [_lived(user, name, processor, params) for name, processor, params in _LIVES]
        user.upload(name="just in.pdf")
        trashed = user.upload(name="old draft.pdf")["id"]
        user.http.delete(f"/documents/{trashed}")
        locked = user.upload(encrypted_pdf("secret"), "locked.pdf")["id"]
        until(lambda: len(_delivered(user, webhook)) > len(documents))
        delivery = _delivered(user, webhook)[0]
    user.http.patch(f"/documents/{documents[1]}", json={"folder": "invoices/2026", "tags": ["acme", "to pay"]})
    user.http.patch(f"/documents/{documents[1]}", json={"description": "For the annual audit, paid in November."})
    user.http.post("/api-keys", json={"name": "importer", "scopes": ["documents:read", "documents:write"]})
    own = user.http.get("/auth/me").json()["id"]
    held = operator.http.put(f"/documents/{documents[0]}/hold", json={"reason": "for the auditors"})
    assert held.status_code == 200, held.text
    job = user.http.get(f"/documents/{documents[3]}").json()["job_id"]
    return Exhibition(
        user,
        operator,
        {
            "overview": "",
            "documents": "/documents",
            "documents on hold": "/documents?held=true",
            "matching": "/selection/matching",
            "trash": "/documents?trashed=true",
            "trashed": f"/documents/{trashed}",
            "document": f"/documents/{documents[1]}",
            "failed document": f"/documents/{documents[3]}",
            "split document": f"/documents/{documents[2]}",
            "locked document": f"/documents/{locked}",
            "pages": f"/documents/{documents[0]}/pages",
            "page": f"/documents/{documents[0]}/pages/1",
            "file": f"/documents/{documents[0]}/files/1",
            "upload": "/upload",
            **{f"upload and {name}": f"/upload?process={name}" for name in _offered(user)},
            "jobs": "/jobs",
            "jobs that gave up": "/jobs?dead=true",
            "jobs of an idle processor": "/jobs?processor=language",
            "jobs to retry": "/jobs/retry",
            "jobs to cancel": "/jobs/cancel",
            "webhooks": "/webhooks",
            "webhook": f"/webhooks/{webhook}",
            "delivery": f"/webhooks/{webhook}/deliveries/{delivery}",
            "keys": "/keys",
            "account": "/account",
            "sessions": "/sessions",
            "reference": "/reference",
        },
        {
            "health": "/operators/health",
            "accounts": "/operators/accounts",
            "account": f"/operators/accounts/{own}",
            "all documents": "/operators/documents",
            "any document": f"/operators/documents/{documents[1]}",
            "all jobs": "/operators/jobs",
            "any job": f"/operators/jobs/{job}",
            "all jobs of an idle processor": "/operators/jobs?processor=language",
            "all jobs to retry": "/operators/jobs/retry",
            "all jobs to cancel": "/operators/jobs/cancel",
            "workers": "/operators/workers",
            "processors": "/operators/processors",
            "audit": "/operators/audit",
            "verification": "/operators/audit/verify",
        },
    )


def _lived(user: User, name: str, processor: str, params: dict[str, object]) -> str:
    """The id of a document with work behind it."""
    sample = SAMPLES / ("sample.docx" if name.endswith(".docx") else "sample.pdf")
    seconds = {"seconds": 0.3} if processor == "simulated" else {}
    stated = json.dumps({"description": f"{name}, as it came in"})
    sent = {"file": (name, sample.read_bytes(), PDF_TYPE if sample.suffix == ".pdf" else "application/octet-stream")}
    document_id = str(user.http.post("/documents", files=sent, data={"metadata": stated}).json()["id"])
    answer = user.process(document_id, processor=processor, params=params | seconds)
    assert answer.status_code == 202, answer.text
    user.finished(answer.json()["job"]["id"])
    return document_id


def _offered(user: User) -> list[str]:
    return [each["name"] for each in user.http.get("/processors").json()["items"]]


def _delivered(user: User, webhook: str) -> list[str]:
    items = user.http.get(f"/webhooks/{webhook}/deliveries").json()["items"]
    return [each["id"] for each in items if each["state"] == "DELIVERED"]
