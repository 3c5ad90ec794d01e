"""Settings in a secret of AWS Secrets Manager: what nothing else says, and why one is refused."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import pytest

from app.errors import ConfigurationError
from app.settings import load, misspelt
from tests.support.brokers import AWS, MINISTACK, Sqs
from tests.support.server import free_port

MakeSecret = Callable[..., str]


@pytest.fixture
def make_secret(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSecret]:
    """Makes a secret, which SECRETS_MANAGER_ID then names."""
    if MINISTACK is None:
        pytest.skip("there is no server of AWS's services in .venv/ministack")
    sqs: Sqs = request.getfixturevalue("sqs")
    for name, value in sqs.environment.items():
        monkeypatch.setenv(name, value)
    with closing(sqs.client_of("secretsmanager")) as client:

        def make(**value: str | bytes) -> str:
            secret_id = f"test-{uuid4()}"
            client.create_secret(Name=secret_id, **value)
            monkeypatch.setenv("SECRETS_MANAGER_ID", secret_id)
            return secret_id

        yield make


def test_what_a_secret_says_holds_where_nothing_else_does(
    make_secret: MakeSecret, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"JWT_SECRET": "a" * 32, "port": 8001, "Console": "off", "JWT_ISSUER": "secret", "JWT_AUDIENCE": "secret"}
    more = {"OPERATOR_CONTENT": True, "PUBLIC_URL": None, "unheard_of": ["x"], "JOB_TIMOUT": "1"}
    secret_id = make_secret(SecretString=json.dumps(said | more))
    (tmp_path / "jwt_issuer").write_text("file")
    (tmp_path / ".env").write_text("JWT_AUDIENCE=.env\nHOST=::1\n")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("HOST", "0.0.0.0")  # noqa: S104 - nobody listens
    monkeypatch.chdir(tmp_path)
    settings = load()
    assert (settings.jwt_secrets, settings.port, settings.console) == (["a" * 32], 8001, "off")
    assert (settings.jwt_issuer, settings.jwt_audience, settings.host) == ("file", ".env", "0.0.0.0")  # noqa: S104
    assert (settings.operator_content, settings.public_url) == (True, "")
    assert misspelt(secret_id) == [("SECRETS_MANAGER_ID", "job_timout", "JOB_TIMEOUT")]
    assert "a" * 32 not in repr(settings)


def test_a_value_in_a_secret_is_refused_as_any_other(make_secret: MakeSecret) -> None:
    make_secret(SecretString='{"DATABASE_URL": "mysql://user:s3cret@host", "PORT": "80"}')
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL: must be") as refusal:
        load()
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        ({"SecretBinary": b"s3cret"}, "it is binary, and must be text"),
        ({"SecretString": "s3cret"}, "it must be a JSON object"),
        ({"SecretString": '["s3cret"]'}, "it must be a JSON object"),
        ({"SecretString": "[" * 5000}, "it must be a JSON object"),
    ],
    ids=["binary", "text", "a list", "deep"],
)
def test_a_secret_that_cannot_be_used(make_secret: MakeSecret, value: dict[str, str | bytes], refusal: str) -> None:
    make_secret(**value)
    assert refused().startswith(f"SECRETS_MANAGER_ID: {refusal}")


@pytest.mark.parametrize("name", ["jwt_secret", "PORT", "Inbox_Params"])
@pytest.mark.parametrize(
    "value", [["s3cret"], {"s3cret": "s3cret"}, [], {}, "s3cret\0", "\ud800s3cret"], ids=json.dumps
)
def test_a_value_that_no_variable_could_have(make_secret: MakeSecret, name: str, value: object) -> None:
    make_secret(SecretString=json.dumps({name: value}))
    assert refused() == f"{name.upper()}: in SECRETS_MANAGER_ID it must be text without NUL, a number, true or false"


def test_there_is_no_such_secret(make_secret: MakeSecret, monkeypatch: pytest.MonkeyPatch) -> None:
    make_secret()
    monkeypatch.setenv("SECRETS_MANAGER_ID", "nothing")
    assert refused() == "SECRETS_MANAGER_ID: there is no such secret, or it has no value"


def refused() -> str:
    with pytest.raises(ConfigurationError) as refusal:
        load()
    assert "\n" not in str(refusal.value)
    assert "s3cret" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the SDK ask a port of this machine."""

    def ask(port: int) -> None:
        for name, value in AWS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("SECRETS_MANAGER_ID", f"test-{uuid4()}")

    return ask


class Refusing(BaseHTTPRequestHandler):
    """Answers as Secrets Manager does."""

    def do_POST(self) -> None:
        said = json.dumps({"__type": self.server.code, "Message": "s3cret"}).encode()  # type: ignore[attr-defined]
        self.send_response(400)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("AccessDeniedException", "it may not be read: that needs secretsmanager:GetSecretValue"),
        ("UnrecognizedClientException", "the AWS credentials are not accepted"),
        ("InvalidRequestException", "Secrets Manager refused it: InvalidRequestException"),
    ],
)
def test_it_may_not_be_read(elsewhere: Callable[[int], None], code: str, refusal: str) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.code = code  # type: ignore[attr-defined]
        Thread(target=server.handle_request).start()
        elsewhere(server.server_port)
        assert refused().startswith(f"SECRETS_MANAGER_ID: {refusal}")


def test_nobody_answers(elsewhere: Callable[[int], None]) -> None:
    elsewhere(free_port())
    assert refused() == "SECRETS_MANAGER_ID: Secrets Manager cannot be asked: EndpointConnectionError"


@pytest.mark.parametrize("lacking", ["AWS_DEFAULT_REGION", "AWS_SECRET_ACCESS_KEY"])
def test_what_the_sdk_lacks(elsewhere: Callable[[int], None], lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(free_port())
    monkeypatch.delenv(lacking)
    monkeypatch.setenv("HOME", "/nowhere")
    expected = {"AWS_DEFAULT_REGION": "it needs a region: AWS_DEFAULT_REGION"}
    assert refused() == f"SECRETS_MANAGER_ID: {expected.get(lacking, 'no AWS credentials were found')}"


@pytest.mark.long
def test_an_answer_is_not_waited_for_without_end(elsewhere: Callable[[int], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        elsewhere(silent.getsockname()[1])
        began = time.monotonic()
        assert refused() == "SECRETS_MANAGER_ID: Secrets Manager cannot be asked: ReadTimeoutError"
        assert time.monotonic() - began < 20
