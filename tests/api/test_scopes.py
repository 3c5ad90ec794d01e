"""What a principal may do: each operation needs one scope, and says which, whether a login asks or an API key."""

import re
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx2
import pytest

from app.auth.principal import KEY_SCOPES, Role, Scope
from app.main import app
from tests.support.inprocess import Process
from tests.support.user import PASSWORD

PUBLIC = {
    *(f"post /auth/{name}" for name in ("register", "login", "token", "refresh", "logout")),
    *(f"get /{name}" for name in ("livez", "readyz", "metrics")),
    "put /uploads/{document_id}",
}
OPERATIONS = {
    f"{method} {path}": operation
    for path, methods in app.openapi()["paths"].items()
    for method, operation in methods.items()
}
HOLDERS = {name for name in OPERATIONS if "/remote/jobs/{job_id}/" in name and not name.endswith("/claim")}
GUARDED = sorted(OPERATIONS.keys() - PUBLIC - HOLDERS)
SCOPES = {
    **dict.fromkeys(GUARDED, Scope.DOCUMENTS_READ),
    **dict.fromkeys((name for name in GUARDED if "/webhooks" in name), Scope.WEBHOOKS_MANAGE),
    **dict.fromkeys(("get /auth/me", "get /auth/me/activity", "get /auth/sessions"), Scope.ACCOUNT_READ),
    **{name: Scope.OPERATOR for name in GUARDED if " /admin/" in name},
    **{name: Scope.WORKER for name in GUARDED if " /remote/" in name},
    **dict.fromkeys(("get /audit", "get /audit/export"), Scope.AUDIT_READ),
    **dict.fromkeys(("get /api-keys", "get /api-keys/{key_id}"), Scope.ACCOUNT_READ),
    "post /auth/password": Scope.ACCOUNT_WRITE,
    "delete /auth/sessions": Scope.ACCOUNT_WRITE,
    "delete /auth/sessions/{session_id}": Scope.ACCOUNT_WRITE,
    "post /api-keys": Scope.ACCOUNT_WRITE,
    "post /api-keys/{key_id}/rotate": Scope.ACCOUNT_WRITE,
    "delete /api-keys/{key_id}": Scope.ACCOUNT_WRITE,
    "post /documents": Scope.DOCUMENTS_WRITE,
    "patch /documents/{document_id}": Scope.DOCUMENTS_WRITE,
    "put /documents/{document_id}/content": Scope.DOCUMENTS_WRITE,
    "patch /documents/{document_id}/files/{number}": Scope.DOCUMENTS_WRITE,
    "post /documents/{document_id}/files/{number}/restore": Scope.DOCUMENTS_WRITE,
    "delete /documents/{document_id}/files/{number}": Scope.DOCUMENTS_DELETE,
    "post /documents/initiate-upload": Scope.DOCUMENTS_WRITE,
    "post /documents/{document_id}/complete-upload": Scope.DOCUMENTS_WRITE,
    "post /documents/{document_id}/restore": Scope.DOCUMENTS_WRITE,
    "delete /documents/{document_id}": Scope.DOCUMENTS_DELETE,
    "delete /trash": Scope.DOCUMENTS_DELETE,
    "put /documents/{document_id}/hold": Scope.OPERATOR,
    "delete /documents/{document_id}/hold": Scope.OPERATOR,
    "post /documents/process-batch": Scope.DOCUMENTS_PROCESS,
    "post /documents/{document_id}/process": Scope.DOCUMENTS_PROCESS,
    "post /jobs/{job_id}/cancel": Scope.DOCUMENTS_PROCESS,
}
ACCOUNT = {"email": "ada@example.com", "password": PASSWORD}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """With an account that may do everything."""
    process = Process(tmp_path_factory.mktemp("scopes") / "var")
    process.http("POST", "/auth/register", json=ACCOUNT)
    process.operate(lambda accounts: accounts.set_role(ACCOUNT["email"], Role.OPERATOR))
    yield process
    process.kill()


@pytest.fixture(scope="module")
def token(process: Process) -> str:
    found: str = process.http("POST", "/auth/login", json=ACCOUNT).json()["access_token"]
    return found


class Keys(dict[frozenset[Scope], str]):
    """API keys by their scopes."""

    def __init__(self, process: Process, token: str) -> None:
        self._process, self._token = process, token

    def __missing__(self, scopes: frozenset[Scope]) -> str:
        wanted = {"name": "a program", "scopes": sorted(scopes)}
        answer = self._process.http("POST", "/api-keys", token=self._token, json=wanted)
        assert answer.status_code == 201, answer.text
        self[scopes] = str(answer.json()["key"])
        return self[scopes]


@pytest.fixture(scope="module")
def keys(process: Process, token: str) -> Keys:
    return Keys(process, token)


def ask(process: Process, token: str, operation: str, **body: object) -> httpx2.Response:
    method, path = operation.split()
    return process.http(method.upper(), re.sub(r"{\w+}", str(uuid4()), path), token=token, **body)


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read")
    yield b""


def refuses(answer: httpx2.Response, name: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient-scope")
    challenge = f'Bearer error="insufficient_scope", scope="{SCOPES[name]}"'  # RFC 6750 §3.1
    assert answer.headers["www-authenticate"] == challenge


def opens(answer: httpx2.Response) -> None:
    assert answer.status_code not in {401, 403}, answer.text


def test_only_what_must_be_is_public() -> None:
    assert {name for name, operation in OPERATIONS.items() if "security" not in operation} == PUBLIC


def test_what_a_worker_does_with_a_job_takes_the_token_of_its_claim(process: Process, token: str) -> None:
    for name in HOLDERS:
        assert OPERATIONS[name]["security"] == [{"HTTPBearer": []}], name
        for other in ("", token):
            assert ask(process, other, name, content=unread()).status_code == 401, name


def test_an_operation_says_which_scope_it_needs_and_how_it_refuses() -> None:
    for name in GUARDED:
        by = ["HTTPBearer", "OAuth2PasswordBearer"] + ["apiKey"] * (SCOPES[name] in KEY_SCOPES)
        assert OPERATIONS[name]["security"] == [{scheme: [SCOPES[name]]} for scheme in by], name
        refusal = OPERATIONS[name]["responses"]["403"]
        assert "insufficient-scope" in refusal["content"]["application/problem+json"]["examples"], name
        assert "insufficient_scope" in refusal["headers"]["WWW-Authenticate"]["example"], name


def test_every_scope_is_described() -> None:
    described = app.openapi()["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]["scopes"]
    assert list(described) == list(Scope)
    assert all(described.values())


@pytest.mark.parametrize("name", GUARDED, ids=lambda name: name.replace(" ", ":"))
def test_an_operation_opens_to_its_scope_alone_and_to_no_other(
    process: Process, token: str, keys: Keys, name: str
) -> None:
    """Where all others together do not open it, none of them does."""
    needed = SCOPES[name]
    opens(ask(process, token, name))
    assert ask(process, "", name, content=unread()).status_code == 401
    with process.limited(needed):
        opens(ask(process, token, name))
    with process.limited(*(set(Scope) - {needed})):
        refuses(ask(process, token, name, content=unread()), name)
    refuses(ask(process, keys[frozenset(KEY_SCOPES) - {needed}], name, content=unread()), name)
    if needed in KEY_SCOPES:
        opens(ask(process, keys[frozenset({needed})], name))


def test_a_method_that_is_not_there_needs_no_scope(process: Process, token: str) -> None:
    with process.limited():
        answers = [process.http("PUT", path, token=token) for path in ("/auth/me", "/documents", f"/jobs/{uuid4()}")]
    assert [(answer.status_code, answer.headers["allow"]) for answer in answers] == [
        (405, "GET, HEAD"),
        (405, "GET, POST, HEAD"),
        (405, "GET, HEAD"),
    ]
