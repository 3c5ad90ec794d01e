"""What the API's description allows is taken, what it forbids is refused, and every answer is as it says.

schemathesis reads the description that the server serves, makes requests of it, and judges the answers by every check
that it has.
"""

import json
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4
from zlib import crc32

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import engine
from schemathesis.core.failures import AcceptedNegativeData, MalformedJson
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished, SchemaAnalysisWarnings
from schemathesis.generation.meta import TestPhase as Phase
from schemathesis.openapi.checks import JsonSchemaError, MissingHeaderNotRejected, RejectedPositiveData

from app.files.names import display_name
from tests.support.direct_uploads import announce, complete, put
from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx, pdf
from tests.support.receiver import NOBODY, paused_webhook
from tests.support.server import Server
from tests.support.torture import LONG
from tests.support.user import PASSWORD

OPERATIONS = [
    *("register", "login", "token", "refresh", "logout", "me"),
    *("listActivity", "listAudit", "exportAudit"),
    *("changePassword", "listSessions", "endSession", "endOtherSessions"),
    *("createApiKey", "listApiKeys", "getApiKey", "rotateApiKey", "revokeApiKey"),
    *("uploadDocument", "listDocuments", "getDocument", "editDocument", "deleteDocument"),
    *("restoreDocument", "emptyTrash"),
    *("replaceDocumentContent", "listDocumentFiles", "editDocumentFile", "restoreDocumentFile", "deleteDocumentFile"),
    *("listDocumentChildren", "listResultFiles", "getResultFile"),
    *("getDocumentContent", "getPagePicture", "getDocumentTimeline", "processDocument", "getResult"),
    *("listResults", "getProcessorResult", "listProcessors", "processBatch"),
    *("initiateUpload", "putUpload", "completeUpload"),
    *("listJobs", "getJob", "cancelJob"),
    *("createWebhook", "listWebhooks", "getWebhook", "editWebhook", "deleteWebhook", "rotateWebhookSecret"),
    *("testWebhook", "recoverWebhook", "listDeliveries", "getDelivery", "redeliver"),
    *("livez", "readyz", "metrics"),
]
# Of operators, who try them on a server of their own: they disable accounts and pause processors.
OPERATING = [
    *("listAccounts", "getAccount", "changeAccount", "signOutAccount", "getQuota", "setQuota"),
    *("listAllDocuments", "getAnyDocument", "getAnyTimeline", "getAnyContent", "getAnyResult"),
    *("holdDocument", "releaseDocument"),
    *("listAllJobs", "getAnyJob", "cancelAnyJob", "rerunJobs", "cancelJobs"),
    *("pauseProcessor", "resumeProcessor", "getStatus"),
    *("claimNextJob", "claimJob"),
]
GENERATION = {"max-examples": 300 if LONG else 3, "deterministic": not LONG, "database": "none"}
# No links but those described: some that the tool infers take a `job_id` of null for an id.
SEQUENCES = {
    "generation": {"max-examples": 150 if LONG else 8},  # no test may take `faulthandler_timeout`
    "max-steps": 20,
    "inference": {"algorithms": []},
}
# Valid requests that the state of things refuses. Of 404 and 409 the tool knows that by itself.
REFUSED_BY_STATE = {"precondition-failed", "range-not-satisfiable", "idempotency-key-reused", "upload-missing"}
REFUSED_BY_STATE |= {"weak-password"}  # and no schema can list what is too common

# No schema can say that bytes are a PDF.
PDFS, DOCXS = st.text("abc").map(pdf), st.text("abc").map(docx)
schemathesis.openapi.media_type(PDF_TYPE, PDFS)
schemathesis.openapi.media_type(DOCX_TYPE, DOCXS)
schemathesis.openapi.media_type("application/octet-stream", PDFS | DOCXS)


@schemathesis.hook
def filter_failure(_context, failure, case, response):
    if isinstance(failure, MalformedJson | JsonSchemaError):
        return response.status_code != 206  # a range of JSON is none, or other JSON
    if isinstance(failure, AcceptedNegativeData):
        # What `Client` has changed is validated again, by a schema of JSON, in which a file has no bytes.
        return getattr(case.meta.phase.data, "description", "") != "Positive test case"
    if isinstance(failure, MissingHeaderNotRejected):
        return response.status_code != 428  # RFC 6585 §3
    return not (isinstance(failure, RejectedPositiveData) and response.json()["code"] in REFUSED_BY_STATE)


class Client:
    """Puts into valid requests what a client has from the server, and no schema can describe."""

    def __init__(self, user):
        self.http = user.http
        job = user.start(user.upload()["id"])
        user.finished(job["id"])
        waiting = announce(user, pdf())["document_id"]
        self.user = user
        self.ids = {"document_id": [job["document_id"], user.upload()["id"], waiting], "job_id": [job["id"]]}
        self.ids["processor"] = ["simulated", "text"]
        self.ids["number"] = [1, 2]
        self.ids |= {
            name: [each] for name, each in zip(("webhook_id", "delivery_id"), paused_webhook(user), strict=True)
        }
        self.ids["account_id"] = [user.server.register().http.get("/auth/me").json()["id"]]
        for key in user.http.get("/api-keys").json()["items"]:
            user.http.delete(f"/api-keys/{key['id']}")
        made = user.http.post("/api-keys", json={"name": "a program", "scopes": ["documents:read"]})
        self.ids["key_id"] = [made.json()["id"]]

    def complete(self, case):
        if case.meta.generation.mode.is_negative:
            return
        if case.meta.phase.name is Phase.EXAMPLES and name_of(case.operation) == "uploadDocument":
            case.body["file"] = pdf()  # the tool's own sample is an image
        if case.meta.phase.name is not Phase.STATEFUL:  # there the links have the ids
            case.path_parameters = {name: self.known(name, made_up) for name, made_up in case.path_parameters.items()}
        elif "Idempotency-Key" in case.headers:  # a replay may tell of what a sequence before has deleted
            case.headers["Idempotency-Key"] = uuid4().hex
        if "cursor" in case.query:
            case.query["cursor"] = self.issued(case)
        if name_of(case.operation) == "initiateUpload":
            case.body["size"] = min(case.body["size"], 10_000)  # the limit is a setting
            case.body["filename"] = display_name(case.body["filename"]) or "a.pdf"
        if name_of(case.operation) == "changePassword":
            case.body |= {"current_password": PASSWORD, "new_password": PASSWORD}  # tests to come log in with it
        if name_of(case.operation) == "endSession":
            case.path_parameters = {"session_id": self.another_session(case.path_parameters["session_id"])}
        if name_of(case.operation) == "putUpload":
            self.open_upload(case)
        self.send_a_file(case)
        self.tell_nobody(case)
        self.ask_for_one_thing(case)
        self.make_haste(case)

    def tell_nobody(self, case):
        """No schema can say which URLs are public, or that one moment is before another."""
        if name_of(case.operation) in {"createWebhook", "editWebhook"} and "url" in case.body:
            case.body["url"] = NOBODY
        if name_of(case.operation) == "recoverWebhook":
            case.body = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}

    def ask_for_one_thing(self, case):
        """No schema can say that something is said in one way only, or which documents there are."""
        if name_of(case.operation) == "uploadDocument":
            case.body.pop("process", None)
            case.body.pop("process_params", None)
            asked = (case.body.get("metadata") or {}).get("process")
        elif name_of(case.operation) in {"processDocument", "processBatch"}:
            asked = case.body
        else:
            return
        params = asked.get("params") if isinstance(asked, dict) else None
        if isinstance(params, dict):
            for name in ("with", "then", "file_map", "split_params", "ranges", "delete_original"):
                params.pop(name, None)

    def open_upload(self, case):
        """An upload of this very body."""
        upload = announce(self.user, case.body, content_type=PDF_TYPE if case.body.startswith(b"%PDF") else DOCX_TYPE)
        case.path_parameters = {"document_id": upload["document_id"]}
        case.query = dict(parse_qsl(urlsplit(upload["upload_url"]).query))

    def send_a_file(self, case):
        """Whatever version there is; no schema can say which documents came by a direct upload."""
        if name_of(case.operation) != "replaceDocumentContent":
            return
        case.headers["If-Match"] = "*"
        if isinstance(case.body, dict) and "document_id" in case.body:
            upload = announce(self.user, content := pdf(uuid4().hex))
            put(upload, content)
            case.body["document_id"] = complete(self.user, upload).json()["id"]
        elif case.meta.phase.name is Phase.EXAMPLES and isinstance(case.body, dict):
            case.body["file"] = pdf()

    def another_session(self, made_up):
        """The id of another session of the user's, or mostly the one that is made up: a login takes time."""
        if crc32(made_up.encode()) % 5:
            return made_up
        self.user.server.log_in(self.user.email)
        sessions = self.http.get("/auth/sessions").json()["items"]
        return next(each["id"] for each in sessions if not each["current"])

    def known(self, name, made_up):
        """Mostly an id, or a name, that exists."""
        choices = [*self.ids.get(name, ()), made_up]
        return choices[crc32(str(made_up).encode()) % len(choices)]

    def issued(self, case):
        """A cursor of this very list."""
        first = {"limit": 1, "sort": case.query.get("sort", "-created_at")}
        return self.http.get(case.formatted_path, params=first).json().get("next_cursor")

    def make_haste(self, case):
        """Other tests use the same server, and nothing is learned while it waits."""
        if "wait" in case.query:
            case.query["wait"] = min(float(case.query["wait"]), 0.1)
        if name_of(case.operation) in {"rerunJobs", "cancelJobs"}:
            case.body.pop("cursor", None)
        if name_of(case.operation) in {"processDocument", "processBatch"}:
            asked = case.body
            if isinstance(asked, dict):
                asked.pop("cursor", None)  # of another batch
        elif name_of(case.operation) == "uploadDocument":
            asked = (case.body.get("metadata") or {}).get("process")
        else:
            return
        if isinstance(asked, dict) and asked.get("pipeline"):
            asked.pop("processor", None)
            asked |= {"pipeline": ["simulated"], "params": {"simulated": {"seconds": 0}}}  # no schema lists the stages
        elif isinstance(asked, dict) and asked.get("processor", "simulated") == "simulated":
            asked["params"] = {**asked.get("params", {}), "seconds": 0}


@pytest.fixture(scope="module")
def users(server):
    return [server.register(), server.register()]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("operated") / "var", {"OPERATOR_CONTENT": "true"}) as server:
        yield server


@pytest.fixture(scope="module")
def operators(own_server):
    """An operator, and somebody who is none."""
    return [own_server.operator(), own_server.register()]


@pytest.fixture
def api(server, users, tmp_path):
    """The description as it is served, and two users to try it as, who must not see what the other has."""
    yield from described(server, users, tmp_path)


@pytest.fixture
def operated(own_server, operators, tmp_path):
    """The same for an operator and somebody who must see nothing."""
    yield from described(own_server, operators, tmp_path)
    for processor in ("simulated", "text"):
        operators[0].http.post(f"/admin/processors/{processor}/resume")


def described(server, users, tmp_path):
    user, stranger = (server.log_in(each.email) for each in users)
    identities = tmp_path / "identities.json"
    identities.write_text(json.dumps({"auth": [identity("user", user), identity("stranger", stranger)]}))
    config = schemathesis.Config.from_dict(
        {
            "auth": {"wfc": {"path": str(identities), "user": "user", "peers": ["user", "stranger"]}},
            "generation": GENERATION,
            "phases": {"stateful": SEQUENCES},
        }
    )
    client = Client(user)

    @schemathesis.hook
    def before_call(_context, case, _kwargs):
        client.complete(case)

    yield schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=config)
    schemathesis.hooks.unregister(before_call)


def identity(name, user):
    return {"name": name, "fixedHeaders": [{"name": "Authorization", "value": user.http.headers["Authorization"]}]}


def name_of(operation):
    return operation.definition.raw["operationId"]


def judge(api, *phases):
    """Run these phases of the tool. Each finding comes with a command that repeats the request."""
    api.config.phases.update(phases=phases)
    sent, found = 0, []
    for event in engine.from_schema(api).execute():
        match event:
            case ScenarioFinished(recorder=recorder):
                sent += len(recorder.cases)
                checks = [check.failure_info for checks in recorder.checks.values() for check in checks]
                found += [f"{each.failure}\n{each.code_sample}" for each in checks if each]
            case SchemaAnalysisWarnings(warnings=warnings):
                found += [warning.message for warning in warnings]
            case NonFatalError(value=error):
                found.append(str(error))
            case FatalError(exception=error):
                raise error
    assert sent
    if found:
        pytest.fail("\n\n".join(found), pytrace=False)


def test_every_operation_is_tested(api):
    endless = ["streamEvents"]  # tests/flows/test_feed.py
    held = ["heartbeat", "getJobInput", "getJobResult", "putJobOutput", "completeJob", "failJob"]
    held.append("releaseJob")  # tests/api/test_remote.py
    tested = sorted(OPERATIONS + OPERATING + endless + held)
    assert sorted(name_of(each.ok()) for each in api.get_all_operations()) == tested


@pytest.mark.long
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(api, name):
    judge(api.include(operation_id=name), "examples", "coverage", "fuzzing")


@pytest.mark.long
@pytest.mark.parametrize("name", OPERATING)
def test_operation_of_operators(operated, name):
    judge(operated.include(operation_id=name), "examples", "coverage")


@pytest.mark.long
def test_sequences(api):
    judge(api.exclude(path_regex="^/admin"), "stateful")
