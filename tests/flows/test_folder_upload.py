"""`python -m app client upload`: a folder, whatever happens meanwhile. Each file is one document in the end."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support import reaper
from tests.support.factories import docx, pdf
from tests.support.relay import Relay
from tests.support.server import Server
from tests.support.user import PASSWORD, User
from tests.support.waiting import until
from tests.support.zygote import Forked, run

ROOT = Path(__file__).parents[2]
ALL = ("documents:read", "documents:write", "documents:process")


def key_of(user: User, scopes: Iterable[str] = ALL) -> str:
    key: str = user.http.post("/api-keys", json={"name": "upload", "scopes": [*scopes]}).json()["key"]
    return key


def environment(user: User, url: str = "") -> dict[str, str]:
    return {"DOCUMENT_API_URL": url or user.server.url, "DOCUMENT_API_KEY": key_of(user)}


def upload(folder: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return run("client", "upload", str(folder), *options, **environment)


def filled(folder: Path, count: int) -> Path:
    """A folder with so many different files."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}.pdf").write_bytes(pdf(f"{folder.name} {number}"))
    return folder


def documents(user: User) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        page = user.http.get("/documents", params={"limit": 100, **({"cursor": cursor} if cursor else {})}).json()
        found, cursor = found + page["items"], page["next_cursor"]
    return found


def stored(user: User) -> int:
    total: int = user.http.get("/documents", params={"limit": 1, "count": True}).json()["total"]
    return total


def names(user: User) -> list[str]:
    return sorted(document["filename"] for document in documents(user))


def counted(told: str, what: str) -> int:
    """A number in the summary."""
    [number] = re.findall(rf"(\d+) {re.escape(what)}(?:,|$)", told, re.MULTILINE)
    return int(number)


def calls(server: Server, method: str, route: str) -> list[dict[str, Any]]:
    lines = server.logs("http.request")
    return [line for line in lines if (line["method"], line["route"]) == (method, route)]


def lines_of(report: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return {line["path"]: line for line in lines}


def test_a_client_that_is_killed_goes_on_where_it_was(user: User, tmp_path: Path) -> None:
    folder, told = filled(tmp_path / "d", 200), environment(user)
    for enough in (30, 90):
        process = Forked(("client", "upload", str(folder)), told, tmp_path / "out")
        until(lambda enough=enough: stored(user) >= enough)
        process.kill()
        process.wait()
    before = stored(user)
    assert before < 200
    done = upload(folder, **told)
    assert done.returncode == 0, done.stderr
    assert counted(done.stdout, "uploaded") + counted(done.stdout, "already there") == 200
    assert counted(done.stdout, "already there") >= before
    assert names(user) == sorted(path.name for path in folder.iterdir())


@pytest.mark.long
def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"LEASE_SECONDS": "3"}) as server:
        user = server.register()
        folder = filled(tmp_path / "d", 100)
        process = Forked(
            ("client", "upload", str(folder), "--process", "text", "--wait"), environment(user), tmp_path / "out"
        )
        until(lambda: stored(user) >= 30)
        server.kill()
        user = server.restarted(user)
        assert process.wait(120) == 0, (tmp_path / "out").read_text()
        told = (tmp_path / "out").read_text()
        assert counted(told, "succeeded") == 100
        assert names(user) == sorted(path.name for path in folder.iterdir())
        assert {document["status"] for document in documents(user)} == {"COMPLETED"}
        assert all(user.story(document["id"]).count("queued") == 1 for document in documents(user)[:5])


def test_an_answer_that_gets_lost(server: Server, user: User, tmp_path: Path) -> None:
    """Also that of a call to process, of which the document shows nothing when its job has failed meanwhile."""
    folder, relay = filled(tmp_path / "d", 1), Relay(server.port)
    told = environment(user, f"http://127.0.0.1:{relay.port}")
    losses = [relay.lose_answer(b"POST /documents HTTP")]
    assert upload(folder, **told).returncode == 0
    losses.append(relay.lose_answer(b"/process HTTP"))
    failing = ("--process", "simulated", "--params", '{"seconds": 0, "fail": "permanent"}', "--wait")
    assert upload(folder, *failing, **told).returncode == 1
    relay.cut()
    assert all(loss.happened for loss in losses)
    [document] = documents(user)
    assert user.story(document["id"]).count("queued") == 1


def test_keys_that_are_forgotten(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"IDEMPOTENCY_TTL": "1"}) as server:
        user, folder = server.register(), filled(tmp_path / "d", 3)
        told = environment(user)
        assert counted(upload(folder, **told).stdout, "uploaded") == 3
        time.sleep(1.1)  # longer than keys are kept
        assert counted(upload(folder, **told).stdout, "already there") == 3
        assert len(documents(user)) == len(calls(server, "POST", "/documents")) == 3


def test_refused_files_are_told_and_do_not_stop_the_others(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"MAX_UPLOAD_BYTES": "100000"}) as server:
        user, folder = server.register(), filled(tmp_path / "d", 3)
        (folder / "text.pdf").write_text("This is no PDF." * 10)
        (folder / "long.PDF").write_bytes(pdf("a") + b" " * 3_000_000)
        (folder / "empty.docx").touch()
        (folder / "notes.txt").touch()
        (folder / ".hidden.pdf").touch()
        (folder / "link.pdf").symlink_to(folder / "0000.pdf")
        (folder / "below").mkdir()
        (folder / "below/under.pdf").write_bytes(pdf("under"))
        os.mkfifo(folder / "pipe.pdf")
        report = tmp_path / "report"
        done = upload(folder, "--report", str(report), **environment(user))
        assert done.returncode == 1
        told = lines_of(report)
        why = {
            path: (line["outcome"], line.get("code")) for path, line in told.items() if line["outcome"] != "uploaded"
        }
        assert why == {
            "text.pdf": ("refused", "unsupported-document"),
            "long.PDF": ("refused", "payload-too-large"),
            "empty.docx": ("refused", "unsupported-document"),
            "notes.txt": ("skipped", None),
            "link.pdf": ("skipped", None),
            "pipe.pdf": ("skipped", None),
        }
        assert all(path in done.stderr for path in why)
        assert told["text.pdf"]["detail"] in done.stderr
        assert names(user) == ["0000.pdf", "0001.pdf", "0002.pdf"]


def test_the_same_file_in_two_folders_and_strange_names(user: User, tmp_path: Path) -> None:
    folder, content = tmp_path / "d", docx("same")
    for name in (
        "a/x.docx",
        "b/c/x.docx",
        "x.docx",
        'q"uo\\te;.docx',
        "e\u0301\u200dé.docx",
        "really a docx.pdf",
        "\x1b[31m.docx",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with open(os.fsencode(folder) + b"/\xff.docx", "wb") as file:  # noqa: PTH123 - a path has no bytes
        file.write(content)
    for outcome in ("uploaded", "already there"):
        done = upload(folder, "--recursive", "--folder", "in", "--tag", "t", "--tag", "u", **environment(user))
        assert done.returncode == 0, done.stderr
        assert counted(done.stdout, outcome) == 8
    assert {tuple(document["tags"]) for document in documents(user)} == {("t", "u")}
    found = Counter((document["folder"], document["filename"]) for document in documents(user))
    assert found == Counter(
        {
            ("in/a", "x.docx"): 1,
            ("in/b/c", "x.docx"): 1,
            ("in", "x.docx"): 1,
            ("in", 'q"uo_te;.docx'): 1,
            ("in", "é\u200dé.docx"): 1,
            ("in", "really a docx.pdf.docx"): 1,
            ("in", "_[31m.docx"): 1,
            ("in", "\ufffd.docx"): 1,
        }
    )
    assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.long
def test_jobs_that_fail_are_counted_and_tried_again(user: User, tmp_path: Path) -> None:
    folder, report = filled(tmp_path / "d", 2), tmp_path / "report"
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\n" + b"z" * 100 + b"\nstartxref\n0\n%%EOF\n")
    for times in (1, 2):
        done = upload(folder, "--process", "text", "--wait", "--report", str(report), **environment(user))
        assert done.returncode == 1
        broken = lines_of(report)["broken.pdf"]
        assert (broken["outcome"], broken["job_state"]) == ("uploaded" if times == 1 else "already there", "FAILED")
        assert counted(done.stdout, "succeeded") == 2
        assert counted(done.stdout, f"failed ({broken['code']})") == 1
        assert broken["detail"] in done.stderr
        assert user.story(broken["document_id"]).count("queued") == times
    assert user.story(lines_of(report)["0000.pdf"]["document_id"]) == ["queued", "started", "succeeded"]


@pytest.mark.long
def test_many_jobs_are_waited_for_with_few_calls(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user, folder = server.register(), filled(tmp_path / "d", 150)
        wanted = ("--process", "simulated", "--params", '{"seconds": 1}', "--wait")
        done = upload(folder, *wanted, **environment(user))
        assert (done.returncode, counted(done.stdout, "succeeded")) == (0, 150)
        assert len(calls(server, "GET", "/jobs") + calls(server, "GET", "/jobs/{job_id}")) < 30


def test_a_document_that_is_deleted_meanwhile(user: User, tmp_path: Path) -> None:
    folder = filled(tmp_path / "d", 1)
    wanted = ("client", "upload", str(folder), "--process", "simulated", "--params", '{"seconds": 30}', "--wait")
    process = Forked(wanted, environment(user), tmp_path / "out")
    until(lambda: any(document["job_id"] for document in documents(user)))
    [document] = documents(user)
    user.http.post(f"/jobs/{document['job_id']}/cancel")
    until(lambda: user.http.delete(f"/documents/{document['id']}").status_code == 204)
    assert process.wait(30) == 1
    assert re.search(r"Jobs: 1 (deleted|cancelled)$", (tmp_path / "out").read_text(), re.MULTILINE)


def test_jobs_that_delete_their_documents_have_succeeded(user: User, tmp_path: Path) -> None:
    options = ("--process", "split", "--params", '{"delete_original": true}', "--wait")
    key = key_of(user, (*ALL, "documents:delete"))
    done = upload(filled(tmp_path / "d", 3), *options, **environment(user) | {"DOCUMENT_API_KEY": key})
    assert (done.returncode, counted(done.stdout, "succeeded")) == (0, 3)
    assert [each["parent_id"] is None for each in documents(user)] == [False] * 3


@pytest.mark.long
def test_a_rate_that_is_limited_is_kept(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"RATE_LIMIT": "15/second"}) as server:
        user, folder = server.register(), filled(tmp_path / "d", 40)
        told = environment(user)
        done = upload(folder, "--at-once", "8", **told)
        assert (done.returncode, counted(done.stdout, "uploaded")) == (0, 40), done.stderr
        assert any(line["status"] == 429 for line in server.logs("http.request"))


@pytest.mark.parametrize(
    ("scopes", "missing"), [(ALL[1:], "documents:read"), (ALL[:1], "documents:write"), (ALL[:2], "documents:process")]
)
def test_a_key_that_may_not(server: Server, user: User, tmp_path: Path, scopes: tuple[str, ...], missing: str) -> None:
    folder = filled(tmp_path / "d", 8)
    told = {"DOCUMENT_API_URL": server.url, "DOCUMENT_API_KEY": key_of(user, scopes)}
    done = upload(folder, "--process", "text", **told)
    [line] = done.stderr.splitlines()
    assert (done.returncode, documents(user)) == (1, [])
    assert line.startswith("stopped: 403 insufficient-scope: ")
    assert missing in line


def test_a_key_that_is_none(server: Server, tmp_path: Path) -> None:
    done = upload(filled(tmp_path / "d", 8), DOCUMENT_API_URL=server.url, DOCUMENT_API_KEY="dla_no")
    [line] = done.stderr.splitlines()
    assert (done.returncode, line.split(": ")[:2]) == (1, ["stopped", "401 invalid-token"])


@pytest.mark.long
def test_a_password_and_tokens_that_expire(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"ACCESS_TOKEN_TTL": "1"}) as server:
        user, folder = server.register(), filled(tmp_path / "d", 6)
        (tmp_path / "password").write_text(PASSWORD + "\n")
        account = ("--email", user.email, "--password-file", str(tmp_path / "password"))
        wanted = ("--process", "simulated", "--params", '{"seconds": 3}', "--wait")
        done = upload(folder, *account, *wanted, DOCUMENT_API_URL=server.url)
        assert (done.returncode, counted(done.stdout, "succeeded")) == (0, 6), done.stderr
        (tmp_path / "password").write_text("wrong")
        done = upload(folder, *account, DOCUMENT_API_URL=server.url)
        assert (done.returncode, "stopped: 401 invalid-credentials" in done.stderr) == (1, True)


def test_what_would_be_refused_for_each_file_stops_at_once(user: User, tmp_path: Path) -> None:
    folder = filled(tmp_path / "d", 8)
    for wanted in (("--process", "none"), ("--process", "text", "--params", '{"no": 1}'), ("--tag", "x" * 99)):
        done = upload(folder, *wanted, **environment(user))
        [line] = done.stderr.splitlines()
        assert (done.returncode, line.startswith("stopped: ")) == (1, True)
    assert documents(user) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--url", "ftp://a"), "--url must be"),
        (("--url", "http://u:p@a"), "--url must be"),
        (("--params", "{}"), "--process"),
        (("--wait",), "--process"),
        (("--process", "text", "--params", "[]"), "JSON object"),
        (("--report", "/proc/no/report"), "--report"),
        (("--at-once", "0"), "--at-once"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, options: tuple[str, ...], why: str) -> None:
    done = upload(tmp_path, *options, DOCUMENT_API_KEY="k", NO_COLOR="1", TERM="dumb", COLUMNS="200")
    assert done.returncode == 2
    assert why in done.stderr


def test_without_credentials_or_a_terminal(tmp_path: Path) -> None:
    done = upload(tmp_path, COLUMNS="200")
    assert (done.returncode, "DOCUMENT_API_KEY" in done.stderr) == (2, True)


def test_a_server_that_is_another_one(tmp_path: Path, server: Server) -> None:
    folder = filled(tmp_path / "d", 1)
    done = upload(folder, "--url", f"{server.url}/nowhere", DOCUMENT_API_KEY="k")
    [line] = done.stderr.splitlines()
    assert (done.returncode, line.startswith("stopped: ")) == (1, True)


def test_a_bar_on_a_terminal_and_an_interruption(user: User, tmp_path: Path) -> None:
    folder = filled(tmp_path / "d", 20)
    (folder / "text.pdf").write_text("This is no PDF." * 10)
    terminal, end = pty.openpty()
    command = [sys.executable, "-m", "app", "client", "upload", str(folder)]
    env = {"PATH": os.environ["PATH"], "TERM": "xterm", **environment(user)}
    process = subprocess.run(command, cwd=ROOT, env=env, stderr=end, stdout=subprocess.PIPE, check=False, timeout=60)
    os.close(end)
    shown = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert (process.returncode, "21/21" in shown, "refused: text.pdf" in shown) == (1, True, True)
    wanted = ("client", "upload", str(folder), "--process", "simulated", "--params", '{"seconds": 60}', "--wait")
    # What a shell runs in the background ignores the signal, and so does what that starts.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    waiting = subprocess.Popen(
        [*command, *wanted[3:]], cwd=ROOT, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, inherited)
    reaper.watch(waiting.pid)
    until(lambda: user.http.get("/jobs", params={"limit": 1, "count": True}).json()["total"] == 20)
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, err.splitlines()[-1]) == (1, "interrupted. Run the same command again to go on.")
    assert counted(out, "unfinished") >= 16, "all but those whose answers were not here yet"
    for document in documents(user):
        user.http.post(f"/jobs/{document['job_id']}/cancel")


def test_the_client_imports_nothing_of_the_service() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "app", "client", "upload", "--help"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"fastapi", "sqlalchemy", "aiohttp", "app.cli", "app.wiring"}
