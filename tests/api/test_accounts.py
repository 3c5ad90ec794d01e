"""What the operator does with accounts: `python -m app users`."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app.accounts import service
from app.accounts.listing import ListedAccount
from app.accounts.service import Accounts
from app.database import metadata
from app.documents import trash
from app.errors import StorageUnavailable
from app.events import events
from app.files import claim
from app.files.orphans import Orphans
from app.jobs import settlement
from tests.support import maker
from tests.support.direct_uploads import announce, complete, put
from tests.support.factories import PDF_TYPE, pdf
from tests.support.inprocess import Process
from tests.support.invariants import Ledger
from tests.support.server import Server
from tests.support.user import PASSWORD, User
from tests.support.waiting import until
from tests.support.zygote import run

REPLACING = {"If-Match": "*", "Content-Type": PDF_TYPE}
OTHER_PASSWORD = "another one, and as long"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("accounts") / "var") as server:
        yield server


def manage(server: Server, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return run("users", *arguments, stdin=stdin, **server.environment)


def done(server: Server, *arguments: str, stdin: str = "") -> str:
    """What a command says that succeeds."""
    found = manage(server, *arguments, stdin=stdin)
    assert (found.returncode, [line for line in logged(found) if line["level"] != "info"]) == (0, [])
    return found.stdout


def logged(found: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    """What a command that succeeds writes to its log."""
    return [json.loads(line) for line in found.stderr.splitlines()]


def listed(server: Server, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done(server, "list", "--json", *arguments).splitlines()]


def log_in(user: User, password: str) -> int:
    return user.http.post("/auth/login", json={"email": user.email, "password": password}).status_code


def works(user: User) -> bool:
    return user.http.get("/auth/me").status_code == 200


def address() -> str:
    return f"{uuid4().hex}@example.com"


def test_create(server: Server) -> None:
    email = address()
    said = done(server, "create", email.upper(), "--password-stdin", stdin=PASSWORD + "\n")
    user = server.log_in(email)
    assert said.split() == [user.http.get("/auth/me").json()["id"], email]


def test_the_password_is_asked_for(server: Server) -> None:
    """On a terminal, twice, and without being shown."""
    terminal, theirs = os.openpty()
    email = address()
    begin = ["sh", "-c", 'exec "$@" <"$0"', os.ttyname(theirs)]  # whoever leads a session gets the terminal by that
    command = [sys.executable, "-m", "app", "users", "create", email]
    with subprocess.Popen(
        begin + command, env=server.environment, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        while (prompts := shown.count(b": ")) < 2 or process.poll() is None:
            try:
                shown += os.read(terminal, 1000)
            except OSError:  # it has ended
                break
            if shown.count(b": ") > prompts:
                os.write(terminal, PASSWORD.encode() + b"\n")
    os.close(terminal)
    assert process.returncode == 0, shown
    assert PASSWORD.encode() not in shown
    assert server.log_in(email)


REFUSED = [
    ("create no-address", PASSWORD, "email: not an email address"),
    ("create a@b.de", "short", "password: String should have at least 8 characters"),
    ("create a@b.de", "two\nlines, but long", "password: String should match pattern"),
    ("create a@b.de", "password", "weak-password: This is one of the most common passwords."),
    ("create somebody.else@b.de", "somebody.else1", "weak-password: This is little more than"),
    ("password a@b.de", PASSWORD, "not-found: There is no such user."),
]


@pytest.mark.parametrize(("command", "password", "reason"), REFUSED)
def test_a_refusal_is_one_line_without_the_password(server: Server, command: str, password: str, reason: str) -> None:
    refused = manage(server, *command.split(), "--password-stdin", stdin=password)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith(reason)
    assert password not in line.partition(":")[2] or password == "password"


@pytest.mark.parametrize("command", ["enable", "disable", "sign-out", "erase --yes"])
def test_an_account_that_is_not_there(server: Server, command: str) -> None:
    refused = manage(server, *command.split(), "a@b.de")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (1, "not-found: There is no such user.")


def test_what_the_operator_does_is_logged(server: Server) -> None:
    user = server.register()
    user_id = user.http.get("/auth/me").json()["id"]
    for command, event in (("disable", "user.disabled"), ("enable", "user.enabled"), ("erase --yes", "user.erased")):
        lines = logged(manage(server, *command.split(), user.email))
        assert (event, "operator", user_id) in [
            (line["event"], line["actor"], line["user_id"]) for line in lines if "user_id" in line
        ]


def test_an_email_is_taken_once(server: Server) -> None:
    user = server.register()
    refused = manage(server, "create", user.email.title(), "--password-stdin", stdin=PASSWORD)
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (1, "email-taken")


def test_a_password_is_not_taken_from_the_command_line(server: Server) -> None:
    """A list of processes shows that."""
    assert manage(server, "create", address(), "--password", PASSWORD).returncode == 2


def test_list_shows_what_accounts_use(server: Server) -> None:
    user, idle = server.register(), address()
    done(server, "create", idle, "--password-stdin", stdin=PASSWORD)
    size = user.upload(pdf("x" * 1000))["size"] + user.upload()["size"]
    user.begin(seconds=60)
    size += user.http.get("/documents").json()["items"][0]["size"]
    [account] = listed(server, "--search", user.email.upper()[:20])
    assert account.items() >= {"email": user.email, "active": True, "documents": 3, "bytes": size}.items()
    assert (account["live_jobs"], account["last_login_at"] > account["created_at"]) == (1, True)
    [other] = listed(server, "--search", idle)
    assert (other["documents"], other["bytes"], other["live_jobs"], other["last_login_at"]) == (0, 0, 0, None)
    lines = [line for line in done(server, "list").splitlines() if line.endswith((user.email, idle))]
    assert [("active" in line, "never" in line) for line in lines] == [(True, False), (True, True)]
    assert f"3 documents  {size} bytes  1 jobs" in lines[0]
    assert listed(server, "--search", "%") == [], "it is text"


def test_disable_ends_all_that_goes_on_and_enable_lets_in_again(server: Server) -> None:
    user, stranger = server.register(), server.register()
    upload = announce(user, pdf("direct"))
    (document_id, running), (_, theirs) = user.begin(seconds=60), stranger.begin(seconds=60)
    assert "jobs cancelled: 1" in done(server, "disable", user.email.upper())
    assert not works(user)
    assert user.http.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]}).status_code == 401
    assert put(upload, pdf("direct")) == 404
    assert complete(user, upload).status_code == 401
    refused = [
        user.http.post("/auth/login", json={"email": user.email, "password": each}) for each in (PASSWORD, "wrong")
    ]
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(401, "invalid-credentials")}
    assert [each["active"] for each in listed(server, "--search", user.email)] == [False]
    assert "jobs cancelled: 0" in done(server, "disable", user.email)
    done(server, "enable", user.email)
    done(server, "enable", user.email)
    assert not works(user), "what was ended stays so"
    user = server.log_in(user.email)
    assert user.job(running)["state"] == "CANCELLED"
    assert user.document(document_id)["status"] == "UPLOADED"
    assert put(upload, pdf("direct")) == 200
    assert complete(user, upload).json()["status"] == "UPLOADED"
    assert stranger.job(theirs)["state"] == "RUNNING"
    user_id = UUID(user.http.get("/auth/me").json()["id"])
    told = [row.event for row in Ledger(server.data_dir).rows(select(events).where(events.c.user_id == user_id))]
    assert (told.count("user.disabled"), told.count("user.enabled")) == (1, 1)


def test_an_operator_is_promoted_and_demoted(server: Server) -> None:
    user = server.register()
    for command, expected in (("promote", "operator"), ("promote", "operator"), ("demote", "user"), ("demote", "user")):
        done(server, command, user.email)
        assert user.http.get("/auth/me").json()["role"] == expected, "it counts from the next request on"
        assert listed(server, "--search", user.email)[0]["role"] == expected
    user_id = UUID(user.http.get("/auth/me").json()["id"])
    changes = Ledger(server.data_dir).rows(select(events).where(events.c.user_id == user_id))
    assert [row.data for row in changes if row.event == "user.role_changed"] == [
        {"old": "user", "new": "operator"},
        {"old": "operator", "new": "user"},
    ]


def test_password_and_sign_out_end_all_sessions(server: Server) -> None:
    user = server.register()
    others = [server.log_in(user.email) for _ in range(2)]
    done(server, "password", user.email, "--password-stdin", stdin=OTHER_PASSWORD)
    assert not any(works(each) for each in (user, *others))
    assert [log_in(user, each) for each in (PASSWORD, OTHER_PASSWORD)] == [401, 200]
    assert "sessions ended: 1" in done(server, "sign-out", user.email)
    assert log_in(user, OTHER_PASSWORD) == 200


def rows_about(data_dir: Path, user_id: UUID) -> dict[str, int]:
    """How many rows of each table, but events, have the user's id."""
    found = {}
    for table in metadata.tables.values():
        name = "id" if table.name == "users" else "user_id" if "user_id" in table.c else "owner_id"
        if name in table.c and table is not events:
            found[table.name] = len(Ledger(data_dir).rows(select(table).where(table.c[name] == user_id)))
    return found


def test_erase_leaves_nothing_but_ids(server: Server) -> None:
    user, stranger = server.register(), server.register()
    user_id = UUID(user.http.get("/auth/me").json()["id"])
    kept = stranger.upload()["id"]
    finished = user.upload(name="private.pdf", key="key")["id"]
    user.finished(user.start(finished)["id"])
    user.begin(seconds=60)
    sent, _never = announce(user, pdf("sent")), announce(user, pdf("never"))
    assert put(sent, pdf("sent")) == 200
    tables = {"users", "token_families", "documents", "document_texts", "jobs", "idempotency_keys", "usage"}
    until(lambda: {name for name, count in rows_about(server.data_dir, user_id).items() if count} == tables)
    declined = manage(server, "erase", user.email, stdin="n\n")
    assert (declined.returncode, works(user)) == (1, True)
    assert "is erased: 4 documents, 0 of them" in done(server, "erase", user.email, stdin="y\n")
    assert not any(rows_about(server.data_dir, user_id).values())
    assert set(Ledger(server.data_dir).files()) & {UUID(finished), UUID(sent["document_id"])} == set()
    assert UUID(kept) in Ledger(server.data_dir).files()
    about = [row for row in Ledger(server.data_dir).rows(select(events)) if row.user_id == user_id]
    assert about[-1].event == "user.erased"
    assert not [row for row in about if user.email in str(row) or "private.pdf" in str(row)]
    assert not works(user)
    again = server.register(user.email)
    assert again.http.get("/documents").json()["items"] == []


def test_erase_takes_whatever_a_document_has_had(tmp_path: Path) -> None:
    made = {"PROCESSORS": f"simulated,text,keywords,{maker.NAMED}"}
    with Server(tmp_path / "var", made) as server:
        user = server.register()
        user_id = UUID(user.http.get("/auth/me").json()["id"])
        path = f"/documents/{user.upload()['id']}"
        user.finished(user.start(path.rpartition("/")[2], processor="maker", params={"files": 2})["id"])
        user.finished(user.start(path.rpartition("/")[2], pipeline=["text", "keywords"])["id"])
        replaced = user.http.put(f"{path}/content", content=pdf("other"), headers=REPLACING)
        assert replaced.json()["file_number"] == 2
        user.finished(user.start(path.rpartition("/")[2], pipeline=["text", "keywords"])["id"])
        assert user.http.delete(path).status_code == 204
        other = user.upload()["id"]
        done_by(server, "documents", "hold", other, "--reason", "Case 117")
        refused = manage(server, "erase", user.email, "--yes")
        assert (refused.returncode, f"on hold first: {other}" in refused.stderr, works(user)) == (1, True, True)
        done_by(server, "documents", "release", other)

        stored = len(Ledger(server.data_dir).files())
        report, *left = map(json.loads, done(server, "erase", user.email, "--yes", "--json").splitlines())
        assert (report["documents"], report["trashed"], report["files"]) == (2, 1, stored)
        assert Ledger(server.data_dir).files() == {}
        assert not any(rows_about(server.data_dir, user_id).values())
        of_user = select(events.c.id).where(events.c.user_id == user_id)
        ids = {str(row.id) for row in Ledger(server.data_dir).rows(of_user)}
        assert {each["event_id"] for each in left} == ids
        assert report["left"][0]["count"] == len(ids)
        until(lambda: not Ledger(server.data_dir).rows(select(metadata.tables["document_texts"])))


def done_by(server: Server, *arguments: str) -> None:
    """Run a command that succeeds."""
    found = run(*arguments, **server.environment)
    assert found.returncode == 0, found.stderr


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr(claim, "SETTLED", 0.0)
    process = Process(tmp_path / "var")
    yield process
    process.kill()


def owner_of(process: Process, many: int) -> str:
    """A user with so many documents, of which each has a job in the queue."""
    account = {"email": address(), "password": PASSWORD}
    process.http("POST", "/auth/register", json=account)
    token = process.http("POST", "/auth/login", json=account).json()["access_token"]
    for number in range(many):
        file = ("a.pdf", pdf(str(number)), PDF_TYPE)
        document = process.http("POST", "/documents", token=token, files={"file": file}).json()
        assert process.http("POST", f"/documents/{document['id']}/process", token=token).status_code == 202
    return account["email"]


def found(process: Process, part: str = "") -> list[ListedAccount]:
    async def find(accounts: Accounts) -> list[ListedAccount]:
        return [account async for account in accounts.find(part)]

    return process.operate(find)


@pytest.mark.long
def test_the_list_has_no_end(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PAGE", 2)
    emails = [owner_of(process, 0) for _ in range(5)]
    assert [account.email for account in found(process)] == emails


def test_any_number_of_jobs_is_cancelled(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "CANCELLED_AT_ONCE", 2)
    email, other = owner_of(process, 5), owner_of(process, 1)
    assert process.operate(lambda accounts: accounts.disable(email)) == 5
    assert [found(process, each)[0].live_jobs for each in (email, other)] == [0, 1]


def test_an_erasure_that_was_interrupted_is_repeated(
    process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trash, "PURGE_BATCH", 2)
    email, other = owner_of(process, 5), owner_of(process, 1)
    with patch.object(Orphans, "remove", side_effect=StorageUnavailable), pytest.raises(StorageUnavailable):
        process.operate(lambda accounts: accounts.erase(email))
    [half] = found(process, email)
    assert (half.active, half.documents) == (False, 3)
    assert process.operate(lambda accounts: accounts.erase(email)).documents == 3
    assert [account.email for account in found(process)] == [other]
    process.tick()
    kept = {row.id for row in Ledger(tmp_path / "var").rows(select(metadata.tables["documents"]))}
    assert len(kept) == 1


UPLOAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + pdf() + b"\r\n--b--\r\n"
NEW_PASSWORD = {"current_password": PASSWORD, "new_password": f"{PASSWORD} anew"}
LATE = {
    "POST /documents": ("multipart/form-data; boundary=b", UPLOAD),
    "POST /documents/initiate-upload": (
        "application/json",
        b'{"filename": "a.pdf", "content_type": "application/pdf", "size": 9}',
    ),
    "POST /documents/{id}/process": ("application/json", b'{"processor": "simulated"}'),
    "PATCH /documents/{id}": ("application/json", b'{"folder": "a"}'),
    "POST /auth/password": ("application/json", json.dumps(NEW_PASSWORD).encode()),
}


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (("disable",), "POST /documents"),
        (("erase", "--yes"), "POST /documents"),
        *((("sign-out",), call) for call in LATE),
    ],
    ids=lambda each: each if isinstance(each, str) else each[0],
)
def test_who_was_let_in_before_the_end_of_the_session_adds_nothing(
    server: Server, command: tuple[str, ...], call: str
) -> None:
    """The body arrives afterwards."""
    user = server.register()
    method, path = call.format(id=user.upload()["id"]).split()
    kind, body = LATE[call]
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nIf-Match: *\r\n"
        f"Authorization: {user.http.headers['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + body[:9])
        time.sleep(0.2)
        done(server, command[0], user.email, *command[1:])
        connection.sendall(body[9:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
