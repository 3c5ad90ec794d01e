"""Any order of operations, kills and lost leases included: each is answered as the model says, and changes no more."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import UUID

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from app.auth import passwords
from app.auth.principal import Role
from app.documents import models as tables
from app.events import events
from app.events.failure import Failure
from app.jobs import transitions
from app.jobs.kinds import Failed, Outcome, Released, Retryable, Succeeded
from app.processing import kind
from app.processing.publication import Product
from app.processing.results import Made
from app.processing.schemas import Provenance
from tests.support import databases
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process, addresses
from tests.support.invariants import Ledger
from tests.support.model import (
    FILES,
    FILES_TTL,
    KEPT,
    KEPT_URL,
    LEASE,
    MAX_TRIES,
    TRASH,
    Attempt,
    Document,
    File,
    Job,
    Model,
    processor,
)
from tests.support.rows import Rows, told
from tests.support.torture import LONG
from tests.support.user import PASSWORD

ERROR = Failure(code="broken", detail="It broke.")
DIRECT_TEXT = "sent directly"
DIRECT = pdf(DIRECT_TEXT)
FILES_BY_TEXT = {text: pdf(text) for text in ("one", "two", DIRECT_TEXT)}

RANDOM = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),  # as is Hypothesis's own default for state machines
)
# The same examples every time; to shrink one would take minutes.
QUICK = settings(RANDOM, max_examples=3 if databases.POSTGRESQL else 6, derandomize=True, phases=[Phase.generate])


class Wanted(NamedTuple):
    """A way to ask for work; there is more than one for the same."""

    work: str
    options: dict[str, Any]


def one_of(choices: Callable[["DocumentLifecycle"], list[Any]]) -> tuple[st.SearchStrategy[Any], Any]:
    """A strategy that draws from what there is by then, newest first, and the precondition that there is something."""
    drawn = st.runner().flatmap(lambda machine: st.sampled_from(choices(machine)[::-1]))
    return drawn, precondition(lambda machine: machine.server and choices(machine))


serving = precondition(lambda machine: machine.server)
documents, with_documents = one_of(lambda machine: machine.model.seen)
all_documents, with_any = one_of(lambda machine: machine.model.documents)
uploads, with_uploads = one_of(lambda machine: [each for each in machine.model.documents if each.upload])
jobs, with_jobs = one_of(lambda machine: machine.model.jobs)
attempts, with_attempts = one_of(lambda machine: machine.model.attempts)
sent, with_sent = one_of(lambda machine: list(machine.model.sent))
texts = st.sampled_from(["one", "two"])
numbers = st.integers(1, 4)
keys = st.sampled_from([None, None, None, "k1", "k2"])
follow_ups = st.sampled_from(["claimed", "claimed", "nothing", "finished", "failed"])
wanted_works = st.sampled_from(
    [
        Wanted("1 s", {}),
        Wanted("1 s", {"processor": "simulated", "params": {"seconds": 1}}),
        Wanted("2 s", {"params": {"seconds": 2}}),
        Wanted("text", {"processor": "text"}),
    ]
)

# What a request needs before it is looked for what it is about.
BODIES = {
    "/documents/{document_id}/content": {"document_id": str(UUID(int=0))},
    "/webhooks/{webhook_id}": {"description": None},
    "/webhooks/{webhook_id}/recover": {"since": "2026-11-21T00:00:00Z", "until": "2026-11-22T00:00:00Z"},
}


class DocumentLifecycle(RuleBasedStateMachine):
    """Users speak HTTP. What workers do is done step by step, by the functions that they call.

    `then` says what workers make of what is due after an operation, so that even a few operations get far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.rows, self.seen = Rows({}, {}, {}, {}, {}), 0
        self.resources = ExitStack()
        self.data_dir = Path(self.resources.enter_context(TemporaryDirectory())) / "var"
        self.resources.enter_context(databases.clock(lambda: self.model.now))
        self.ledger = Ledger(self.data_dir)
        self.server: Any = None  # a Process, while it is alive
        self.start()

    def start(self) -> None:
        keeping = {"trash_seconds": TRASH, "file_versions_max": FILES, "file_version_ttl": FILES_TTL}
        self.server = Process(self.data_dir, lease_seconds=LEASE, job_max_tries=MAX_TRIES, **keeping)

    def teardown(self) -> None:
        if self.server:
            self.kill()
        self.resources.close()

    @initialize(then=follow_ups)
    def register(self, then: str) -> None:
        self.owner, self.stranger = map(self.registered, ("owner@example.com", "stranger@example.com"))
        self.operator = self.server.enter("operator@example.com", Role.OPERATOR)[1]
        self.upload("one", None)
        self.the_promise_is_kept()
        self.process(self.model.documents[0], Wanted("1 s", {}), None, then, force=False)

    def registered(self, email: str) -> str:
        """The access token of a new user."""
        credentials = {"email": email, "password": PASSWORD}
        assert self.server.http("POST", "/auth/register", json=credentials).status_code == 201
        token: str = self.server.http("POST", "/auth/login", json=credentials).json()["access_token"]
        return token

    def http(self, method: str, path: str, key: str | None = None, **body: Any) -> httpx2.Response:
        answer: httpx2.Response = self.server.http(method, path, token=self.owner, key=key, **body)
        return answer

    @precondition(lambda machine: machine.server and len(machine.model.seen) < 3)
    @rule(text=st.sampled_from(["one", "two"]), key=keys)
    def upload(self, text: str, key: str | None) -> None:
        body = {"files": {"file": ("a.pdf", pdf(text), PDF_TYPE)}}
        answer = self.http("POST", "/documents", key, **body)
        if not self.replayed(key, "/documents", body, answer):
            assert answer.status_code == 201
            document = self.model.upload(UUID(answer.json()["id"]), text)
            self.model.remember(key, "/documents", body, document, kept(answer))

    @precondition(lambda machine: machine.server and len(machine.model.seen) < 3)
    @rule(name=st.sampled_from(["a.pdf", "b.pdf"]), key=keys)
    def initiate(self, name: str, key: str | None) -> None:
        path = "/documents/initiate-upload"
        body = {"json": {"filename": name, "content_type": PDF_TYPE, "size": len(DIRECT)}}
        answer = self.http("POST", path, key, **body)
        if not self.replayed(key, path, body, answer):
            assert answer.status_code == 201
            upload = answer.json()
            document = self.model.initiate(UUID(upload["document_id"]), upload["upload_url"])
            document.file.text = DIRECT_TEXT
            self.model.remember(key, path, body, document, kept(answer), KEPT_URL)

    @with_uploads
    @rule(document=uploads)
    def put(self, document: Document) -> None:
        upload = document.upload
        assert upload
        expected = 404 if not document.seen else 412 if upload.sent else 200
        assert self.server.http("PUT", upload.url, content=DIRECT, kind=PDF_TYPE).status_code == expected
        upload.sent |= expected == 200

    @with_uploads
    @rule(document=uploads)
    def complete(self, document: Document) -> None:
        assert document.upload
        expected = 404 if not document.seen else 200 if document.upload.sent else 422
        answer = self.http("POST", f"/documents/{document.id}/complete-upload")
        assert answer.status_code == expected
        if expected == 200:
            if document.status == "INITIATED":
                self.model.complete(document)
            assert (answer.json()["status"], answer.json()["version"]) == (document.status, document.version)

    @with_documents
    @rule(document=documents, wanted=wanted_works, key=keys, force=st.booleans(), then=follow_ups)
    def process(self, document: Document, wanted: Wanted, key: str | None, then: str, *, force: bool) -> None:
        path, body = f"/documents/{document.id}/process", {"json": {**wanted.options, "force": force}}
        answer = self.http("POST", path, key, **body)
        if self.replayed(key, path, body, answer):
            return
        assert answer.status_code == document.on_process(wanted.work, force=force)
        seen = answer.json()
        if answer.is_error:
            assert seen["code"] == ("upload-incomplete" if document.status == "INITIATED" else "job-in-progress")
            return
        self.model.remember(key, path, body, document, kept(answer))
        assert seen["started"] == (answer.status_code == 202)
        if seen["started"]:
            self.model.start(document, UUID(seen["job"]["id"]), wanted.work)
        made = None if seen["started"] or document.status == "PROCESSING" else document.made_by(wanted.work)
        self.shows(document, seen["document"], seen["job"], made or document.job)
        self.follow(then)

    def replayed(self, key: str | None, path: str, body: dict[str, Any], answer: httpx2.Response) -> bool:
        """Whether the key alone decided which answer this is: the first one again, or that the key is taken."""
        first = self.model.remembered(key)
        if first is None:
            assert "idempotent-replayed" not in answer.headers
        elif (first.path, first.body) == (path, body):
            assert kept(answer) == first.answer
            assert answer.headers["idempotent-replayed"] == "true"
        else:
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused")
        return first is not None

    @with_sent
    @rule(key=sent)
    def send_again(self, key: str) -> None:
        """As a client does whose answer was lost."""
        if first := self.model.remembered(key):
            answer = self.http("POST", first.path, key, **first.body)
            assert self.replayed(key, first.path, first.body, answer)

    @with_jobs
    @rule(job=jobs)
    def cancel(self, job: Job) -> None:
        expected = 404 if not job.document.seen else 202 if job.live else 409
        assert self.http("POST", f"/jobs/{job.id}/cancel").status_code == expected
        if expected == 202:
            self.model.cancel(job)

    @with_any
    @rule(document=all_documents, permanent=st.booleans())
    def delete(self, document: Document, *, permanent: bool) -> None:
        found = not document.deleted if permanent else document.seen
        expected = document.on_delete() if found else 404
        query = "?permanent=true" if permanent else ""
        answer = self.http("DELETE", f"/documents/{document.id}{query}")
        assert answer.status_code == expected
        if expected == 204:
            self.model.delete(document, permanent=permanent)
        elif expected == 409:
            assert answer.json()["code"] == ("on-hold" if document.hold else "document-processing")

    @with_any
    @rule(document=all_documents)
    def restore(self, document: Document) -> None:
        answer = self.http("POST", f"/documents/{document.id}/restore")
        if document.deleted:
            assert answer.status_code == (404 if document.expired_upload else 410)
        else:
            self.model.restore(document)
            assert (answer.status_code, answer.json()["version"]) == (200, document.version)

    @serving
    @rule()
    def empty_trash(self) -> None:
        assert self.http("DELETE", "/trash").status_code == 204
        self.model.empty_trash()

    def put_file(self, document: Document, **body: Any) -> httpx2.Response:
        """Replace the document's file, at the version that it has."""
        version = [("If-Match", f'"{document.version}"')]
        return self.http("PUT", f"/documents/{document.id}/content", headers=version, **body)

    def new_file(self, document: Document, text: str) -> None:
        """The document has another file now, or the same if that says the same."""
        if document.file.text != text:
            [row] = self.ledger.rows(select(tables.documents).where(tables.documents.c.id == document.id))
            self.model.replace(document, File(row.file_id, text))

    @with_documents
    @rule(document=documents, text=texts)
    def replace(self, document: Document, text: str) -> None:
        answer = self.put_file(document, content=pdf(text), kind=PDF_TYPE)
        assert answer.status_code == document.on_replace()
        if answer.is_success:
            self.new_file(document, text)
            self.shows(document, answer.json(), None, None)

    @with_uploads
    @with_documents
    @rule(document=documents, other=uploads)
    def adopt(self, document: Document, other: Document) -> None:
        answer = self.put_file(document, json={"document_id": str(other.id)})
        taken = other.only_sent and other is not document
        assert answer.status_code == (409 if document.on_replace() == 409 else 200 if taken else 422)
        if answer.is_success:
            self.new_file(document, DIRECT_TEXT)
            self.model.absorb(other)
            self.shows(document, answer.json(), None, None)

    @with_documents
    @rule(document=documents, number=numbers)
    def restore_file(self, document: Document, number: int) -> None:
        answer = self.http("POST", f"/documents/{document.id}/files/{number}/restore")
        file = document.file_of(number)
        assert answer.status_code == (409 if document.on_replace() == 409 else 200 if file else 404)
        if file and answer.is_success:
            self.new_file(document, file.text)
            self.shows(document, answer.json(), None, None)

    @with_documents
    @rule(document=documents, number=numbers, keep=st.booleans())
    def keep_file(self, document: Document, number: int, *, keep: bool) -> None:
        answer = self.http("PATCH", f"/documents/{document.id}/files/{number}", json={"keep": keep})
        assert answer.status_code == (200 if document.file_of(number) else 404)
        if answer.is_success:
            self.model.keep(document, number, keep=keep)

    @with_documents
    @rule(document=documents, number=numbers)
    def remove_file(self, document: Document, number: int) -> None:
        answer = self.http("DELETE", f"/documents/{document.id}/files/{number}")
        if document.file_of(number) is None:
            assert answer.status_code == 404
        elif number == document.file_number or document.hold:
            code = "current-file" if number == document.file_number else "on-hold"
            assert (answer.status_code, answer.json()["code"]) == (409, code)
        else:
            assert answer.status_code == 204
            self.model.remove_file(document, number)

    @with_documents
    @rule(document=documents)
    def files(self, document: Document) -> None:
        path = f"/documents/{document.id}"
        listed = self.http("GET", f"{path}/files").json()["items"]
        assert [each["number"] for each in listed] == [document.file_number, *sorted(document.previous, reverse=True)]
        for number, file in document.previous.items():
            assert self.http("GET", f"{path}/content?file={number}").content == FILES_BY_TEXT[file.text]
            found = self.http("GET", f"{path}/results?file={number}").json()["items"]
            assert {each["processor"]: each["data"] for each in found} == {
                name: made_by(attempt) for name, attempt in file.published.items()
            }

    @with_documents
    @rule(document=documents, seconds=st.sampled_from([1, KEPT]))
    def let_expire(self, document: Document, seconds: int) -> None:
        moment = self.model.after(seconds)
        answer = self.http("PATCH", f"/documents/{document.id}", json={"expires_at": moment.isoformat()})
        assert answer.status_code == 200
        self.model.edit(document, moment)

    @with_any
    @rule(document=all_documents, reason=st.sampled_from(["a case", "another", None]))
    def hold(self, document: Document, reason: str | None) -> None:
        body = {"json": {"reason": reason}} if reason else {}
        path = f"/documents/{document.id}/hold"
        answer = self.server.http("PUT" if reason else "DELETE", path, token=self.operator, **body)
        assert answer.status_code == (404 if document.deleted else 200 if reason else 204)
        if not document.deleted:
            self.model.set_hold(document, reason)

    @with_documents
    @rule(document=documents)
    def result(self, document: Document) -> None:
        seen = self.http("GET", f"/documents/{document.id}").json()
        job = self.http("GET", f"/jobs/{seen['job_id']}").json() if document.job else None
        self.shows(document, seen, job, document.job)
        answer = self.http("GET", f"/documents/{document.id}/result")
        seen = answer.json()
        if document.status == "COMPLETED":
            assert document.job
            published = document.published[processor(document.job.work)]
            assert (UUID(seen["job_id"]), seen["data"]) == (document.job.id, made_by(published))
        else:
            code = "processing-failed" if document.status == "FAILED" else "result-not-ready"
            assert (answer.status_code, seen["code"]) == (409, code)
        kept = self.http("GET", f"/documents/{document.id}/results").json()["items"]
        assert {each["processor"]: each["data"] for each in kept} == {
            name: made_by(attempt) for name, attempt in document.published.items()
        }

    def shows(self, document: Document, seen: dict[str, Any], job: dict[str, Any] | None, expected: Job | None) -> None:
        assert (seen["status"], seen["version"]) == (document.status, document.version)
        if expected:
            assert job
            assert (UUID(job["id"]), job["state"], job["attempt"]) == (expected.id, expected.state, expected.tries)

    @serving
    @rule(data=st.data())
    def pry(self, data: st.DataObject) -> None:
        """At no address does another user find anything, nor the owner what is deleted, in the trash or for good."""
        document = data.draw(st.sampled_from(self.model.documents[::-1]))
        names = ("document_id", "job_id", "session_id", "key_id", "webhook_id", "delivery_id")
        ids = dict.fromkeys(names, document.id)
        ids |= {"job_id": document.job.id} if document.job else {}
        token = self.stranger if document.seen else self.owner
        for method, path in addresses():
            if path.endswith(("{document_id}/restore", "/hold")):
                continue
            address, body = path.format(**ids, processor="simulated", name="a.png", number=1), BODIES.get(path, {})
            any_version = [("If-Match", "*")]
            answer = self.server.http(method, address, token=token, key="k1", headers=any_version, json=body)
            assert answer.status_code == 404, (method, path)
        for path in ("/documents", "/jobs"):
            assert self.server.http("GET", path, token=self.stranger).json()["items"] == []

    def follow(self, then: str) -> None:
        """Let a worker have what is due after this operation."""
        if then == "nothing":
            return
        self.the_promise_is_kept()
        for attempt in self.pulled(10):
            self.the_promise_is_kept()
            if then == "finished":
                self.finish(attempt)
            elif then == "failed":
                self.fail(attempt, Retryable(ERROR))

    @with_jobs
    @rule(limit=st.integers(1, 3))
    def pull(self, limit: int) -> None:
        self.pulled(limit)

    def pulled(self, limit: int) -> list[Attempt]:
        """The attempts that begin when a worker pulls so many jobs."""
        claimed = self.server.claim(limit, LEASE)
        due = {job.id: job for job in self.model.due}
        assert len(claimed) == min(limit, len(due))
        taken = [due.pop(job.id) for job in claimed]
        assert not due or not taken or max(job.run_at for job in taken) <= min(job.run_at for job in due.values())
        for job in taken:
            self.model.claim(job)
        begun = [Attempt(job, claim) for job, claim in zip(taken, claimed, strict=True)]
        self.model.attempts += begun
        return begun

    @with_attempts
    @rule(attempt=attempts)
    def heartbeat(self, attempt: Attempt) -> None:
        assert self.server.write(transitions.heartbeat, attempt.claimed, LEASE, 0.5) == self.model.heartbeat(attempt)

    @with_attempts
    @rule(attempt=attempts)
    def finish(self, attempt: Attempt) -> None:
        self.settle(attempt, Succeeded(product_of(attempt)), held=self.model.finish(attempt))

    @with_attempts
    @rule(attempt=attempts, outcome=st.sampled_from([Failed(ERROR), Retryable(ERROR), Released()]))
    def fail(self, attempt: Attempt, outcome: Outcome) -> None:
        if isinstance(outcome, Released):
            held = self.model.release(attempt)
        else:
            held = self.model.fail(attempt, for_good=isinstance(outcome, Failed))
        self.settle(attempt, outcome, held=held)

    def settle(self, attempt: Attempt, outcome: Outcome, *, held: bool) -> None:
        """A worker that is refused stops; one that is not may say the same again."""
        with patch.object(kind, "uniform", lambda _low, high: high):
            assert self.server.settle(attempt.claimed, outcome) == held
        if not held:
            self.model.attempts.remove(attempt)

    @precondition(lambda machine: machine.model.sent or machine.model.busy)
    @rule(seconds=st.sampled_from([1, LEASE // 2, LEASE + 1, KEPT_URL, KEPT]))
    def pause(self, seconds: float) -> None:
        """Everybody sleeps through it: leases run out, retries fall due, keys are forgotten."""
        self.model.now = self.model.after(seconds)

    @serving
    @rule(seconds=st.sampled_from([LEASE + 1, 5]), then=follow_ups)
    def tick(self, seconds: float, then: str) -> None:
        self.pause(seconds)
        self.server.tick()
        self.model.sweep()
        self.model.expire()
        self.follow(then)

    @precondition(lambda machine: machine.server and machine.model.busy)
    @rule()
    def kill(self) -> None:
        """The attempts of the dead process live on as zombies: to the database they are those of a paused one."""
        self.server.kill()
        self.server = None

    @precondition(lambda machine: not machine.server)
    @rule(then=follow_ups)
    def restart(self, then: str) -> None:
        self.start()
        self.server.tick()
        self.model.sweep()
        self.model.expire()
        self.follow(then)

    @invariant()
    def zombies_are_refused(self) -> None:
        for attempt in self.model.attempts if self.server else []:
            if not attempt.held:
                assert not self.server.write(transitions.heartbeat, attempt.claimed, LEASE, 1.0)

    @invariant()
    def the_promise_is_kept(self) -> None:
        before, self.rows = self.rows, Rows.of(self.ledger)
        told_since = select(events).where(events.c.document_id.is_not(None), events.c.seq > self.seen)
        news = self.ledger.rows(told_since.order_by(events.c.seq))
        self.seen = max([self.seen, *(event.seq for event in news)])
        self.rows.follow_legally(before, news)
        self.rows.hold(self.model)
        assert Counter(map(told, news)) == self.model.told
        assert self.ledger.files().keys() == self.model.stored
        self.ledger.check_usage()
        self.model.told.clear()


def made_by(attempt: Attempt) -> dict[str, Any]:
    """The data of its result."""
    return {"job": str(attempt.job.id), "fence": attempt.fence}


def product_of(attempt: Attempt) -> Product:
    """What its worker settles it with."""
    return Product([Made(Provenance.of(attempt.claimed), json.dumps(made_by(attempt)))])


def kept(answer: httpx2.Response) -> tuple[int, bytes, str]:
    """What of an answer a replay repeats."""
    return answer.status_code, answer.content, answer.headers["location"]


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Passwords are cheap; the umask that the app sets does not outlive the test."""
    umask = os.umask(0o077)
    monkeypatch.setattr(passwords, "ARGON2", passwords.ARGON2.using(memory_cost=64))
    yield
    os.umask(umask)


# In parts, so that several processes can share them.
@pytest.mark.long
@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize("profile", [RANDOM] * 20 if LONG else [QUICK])
def test_any_order_of_operations_keeps_the_promise(profile: settings) -> None:
    run_state_machine_as_test(DocumentLifecycle, settings=profile)
