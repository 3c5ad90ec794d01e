"""What a principal may do: each operation needs one scope, and says which."""

import re
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import httpx2
import pytest

from app.auth.principal import Scope
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
GUARDED = sorted(OPERATIONS.keys() - PUBLIC)
SCOPES = {
    **dict.fromkeys(GUARDED, Scope.DOCUMENTS_READ),
    **dict.fromkeys((name for name in GUARDED if "/webhooks" in name), Scope.WEBHOOKS_MANAGE),
    **dict.fromkeys(("get /auth/me", "get /auth/sessions"), Scope.ACCOUNT_READ),
    "post /auth/password": Scope.ACCOUNT_WRITE,
    "delete /auth/sessions": Scope.ACCOUNT_WRITE,
    "delete /auth/sessions/{session_id}": Scope.ACCOUNT_WRITE,
    "post /documents": Scope.DOCUMENTS_WRITE,
    "patch /documents/{document_id}": Scope.DOCUMENTS_WRITE,
    "post /documents/initiate-upload": Scope.DOCUMENTS_WRITE,
    "post /documents/{document_id}/complete-upload": Scope.DOCUMENTS_WRITE,
    "delete /documents/{document_id}": Scope.DOCUMENTS_DELETE,
    "post /documents/process-batch": Scope.DOCUMENTS_PROCESS,
    "post /documents/{document_id}/process": Scope.DOCUMENTS_PROCESS,
    "post /jobs/{job_id}/cancel": Scope.DOCUMENTS_PROCESS,
}
ACCOUNT = {"email": "ada@example.com", "password": PASSWORD}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("scopes") / "var")
    process.http("POST", "/auth/register", json=ACCOUNT)
    yield process
    process.kill()


@pytest.fixture(scope="module")
def token(process: Process) -> str:
    found: str = process.http("POST", "/auth/login", json=ACCOUNT).json()["access_token"]
    return found


def ask(process: Process, token: str, operation: str, **body: object) -> httpx2.Response:
    method, path = operation.split()
    return process.http(method.upper(), re.sub(r"{\w+}", str(uuid4()), path), token=token, **body)


def test_only_what_must_be_is_public() -> None:
    assert {name for name, operation in OPERATIONS.items() if "security" not in operation} == PUBLIC


@pytest.mark.parametrize("name", GUARDED)
def test_an_operation_says_which_scope_it_needs_and_how_it_refuses(name: str) -> None:
    assert [list(each.values()) for each in OPERATIONS[name]["security"]] == [[[SCOPES[name]]]] * 2
    refusal = OPERATIONS[name]["responses"]["403"]
    assert "insufficient-scope" in refusal["content"]["application/problem+json"]["examples"]
    assert "insufficient_scope" in refusal["headers"]["WWW-Authenticate"]["example"]


def test_every_scope_is_described() -> None:
    described = app.openapi()["components"]["securitySchemes"]["OAuth2PasswordBearer"]["flows"]["password"]["scopes"]
    assert list(described) == list(Scope)
    assert all(described.values())


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("the body was read")
    yield b""


@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("scope", Scope)
def test_one_scope_opens_its_operations_only(process: Process, token: str, name: str, scope: Scope) -> None:
    with process.limited(scope):
        if scope == SCOPES[name]:
            assert ask(process, token, name).status_code not in {401, 403}
        else:
            refuses(ask(process, token, name, content=unread()), name)


@pytest.mark.parametrize("name", GUARDED)
def test_all_other_scopes_do_not_open_an_operation(process: Process, token: str, name: str) -> None:
    with process.limited(*(set(Scope) - {SCOPES[name]})):
        refuses(ask(process, token, name, content=unread()), name)


def refuses(answer: httpx2.Response, name: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient-scope")
    challenge = f'Bearer error="insufficient_scope", scope="{SCOPES[name]}"'  # RFC 6750 §3.1
    assert answer.headers["www-authenticate"] == challenge


@pytest.mark.parametrize("name", GUARDED)
def test_a_login_has_every_scope_and_a_stranger_none(process: Process, token: str, name: str) -> None:
    assert ask(process, token, name).status_code not in {401, 403}
    assert ask(process, "", name, content=unread()).status_code == 401


def test_a_method_that_is_not_there_needs_no_scope(process: Process, token: str) -> None:
    with process.limited():
        answers = [process.http("PUT", path, token=token) for path in ("/auth/me", "/documents", f"/jobs/{uuid4()}")]
    assert [(answer.status_code, answer.headers["allow"]) for answer in answers] == [
        (405, "GET, HEAD"),
        (405, "GET, POST, HEAD"),
        (405, "GET, HEAD"),
    ]
