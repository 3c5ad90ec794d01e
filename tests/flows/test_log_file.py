"""LOG_FILE: every line is in one file, whole, whatever becomes of the file meanwhile; and no request fails of it."""

import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from app.telemetry.streams import LOOK_SECONDS
from tests.support.server import Server, Worker
from tests.support.volume import Volume
from tests.support.waiting import until
from tests.support.zygote import run

LOGROTATE = shutil.which("logrotate") or shutil.which("logrotate", path="/usr/sbin") or ""
SAMPLE = Path(__file__).parents[2] / "deploy" / "logrotate" / "document-api"
KILOBYTE = 1024
CLIENTS = 4


def lines(*files: Path) -> list[dict[str, Any]]:
    """The lines of the files so far, but for one that is being written."""
    texts = [file.read_text().rpartition("\n")[0] for file in files]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def requests(*files: Path) -> Counter[str]:
    return Counter(line["request_id"] for line in lines(*files) if line["event"] == "http.request")


def assert_once(asked: list[str], *files: Path) -> None:
    """Each request's line is in exactly one of the files."""
    written = requests(*files)
    assert {request_id: written[request_id] for request_id in asked} == dict.fromkeys(asked, 1)


def ask(server: Server) -> str:
    """Ask for something; returns the request's id."""
    request_id = uuid4().hex
    client = server.clients[0] if server.clients else server.client()
    assert client.get("/", headers={"X-Request-ID": request_id}).status_code == 200
    return request_id


@contextmanager
def asking(server: Server) -> Iterator[list[str]]:
    """Clients ask without a pause, meanwhile; gives the ids of all that was answered in the end."""
    over, asked = Event(), list[str]()

    def one() -> None:
        while not over.is_set():
            asked.append(ask(server))

    ask(server)  # there is a client
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(one) for _ in range(CLIENTS)]
        try:
            yield asked
        finally:
            over.set()
    for client in clients:
        client.result()


@contextmanager
def served(tmp_path: Path, **settings: str) -> Iterator[tuple[Server, Path]]:
    """A server, and its log file."""
    path = tmp_path / "log" / "server.log"
    path.parent.mkdir()
    with Server(tmp_path / "var", {"LOG_FILE": str(path), **settings}) as server:
        yield server, path


@pytest.mark.parametrize(("workers", "parent"), [("1", "Started server process"), ("2", "Started parent process")])
def test_all_lines_are_in_the_file(workers: str, parent: str, tmp_path: Path) -> None:
    with served(tmp_path, WORKERS=workers) as (server, path):
        asked = ask(server)
        assert server.stop() == 0
        events = [line["event"] for line in lines(path)]
        assert requests(path)[asked] == 1
        assert {"server.starting", "server.started", "server.stopped"} < set(events)
        assert any(event.startswith(parent) for event in events), "uvicorn's own"
        assert server.logs() == []


@pytest.mark.postgresql
def test_a_worker_writes_to_the_same_file(tmp_path: Path) -> None:
    with (
        served(tmp_path, JOB_CONCURRENCY="0") as (server, path),
        Worker(tmp_path / "var", {"LOG_FILE": str(path)}) as worker,
    ):
        user = server.register()
        user.finished(user.start(user.upload()["id"])["id"])
        assert worker.stop() == 0
        assert {line["pid"] for line in lines(path) if line["event"] == "server.started"} == {server.pid, worker.pid}
        assert "job.succeeded" in [line["event"] for line in lines(path)]
        assert worker.logs() == server.logs() == []


@pytest.mark.long
def test_the_file_is_moved_away_while_two_processes_write(tmp_path: Path) -> None:
    with served(tmp_path, WORKERS="2") as (server, path):
        moved = []
        with asking(server) as asked:
            for _ in range(3):
                moved.append(path.rename(path.with_suffix(f".{len(moved)}")))
                until(lambda: path.exists() and requests(path), timeout=5)
        assert server.stop() == 0
        assert_once(asked, path, *moved)


def unchanged(file: Path) -> bool:
    """Whether every process has begun another file."""
    return time.time() - file.stat().st_mtime > LOOK_SECONDS + 0.1


@pytest.mark.skipif(not LOGROTATE, reason="needs logrotate")
@pytest.mark.long
def test_logrotate(tmp_path: Path) -> None:
    sample, state = tmp_path / "document-api", tmp_path / "state"
    with served(tmp_path, WORKERS="2") as (server, path):
        text = SAMPLE.read_text().replace("/var/log/document-api", str(path.parent))
        sample.write_text(text.replace("    su document-api document-api\n", ""))
        sample.chmod(0o644)
        with asking(server) as asked:
            for _ in range(2):
                subprocess.run([LOGROTATE, "--force", "--state", state, sample], check=True)
                until(lambda: unchanged(path.with_suffix(".log.1")))
        assert server.stop() == 0
    compressed = path.with_suffix(".log.2.gz")
    path.with_suffix(".log.2").write_bytes(gzip.decompress(compressed.read_bytes()))
    compressed.unlink()
    assert {file.name for file in path.parent.iterdir()} == {"server.log", "server.log.1", "server.log.2"}
    assert_once(asked, *path.parent.iterdir())


def test_the_file_is_deleted(tmp_path: Path) -> None:
    with served(tmp_path) as (server, path):
        path.unlink()
        until(lambda: ask(server) and path.exists(), timeout=5)
        until(lambda: requests(path))


@pytest.mark.parametrize("what", ["a missing folder", "a folder", "a folder in a file", "a pipe"])
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_what_cannot_be_written_is_refused_at_start(command: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")  # that nobody reads
    names = {"a missing folder": "missing/log", "a folder": ".", "a folder in a file": "file/log", "a pipe": "pipe"}
    path = tmp_path / names[what]
    database = {"DATABASE_URL": "postgresql://user@127.0.0.1:1/name"} if command == "worker" else {}
    done = run(command, LOG_FILE=str(path), DATA_DIR=str(tmp_path / "var"), **database)
    assert done.returncode == 1
    assert re.fullmatch(rf"configuration: LOG_FILE: {re.escape(str(path))}: [A-Z].*\n", done.stderr)
    assert not (tmp_path / "var").exists()


def test_commands_keep_to_the_terminal(tmp_path: Path) -> None:
    settings = {"LOG_FILE": str(tmp_path / "missing" / "log"), "DATA_DIR": str(tmp_path / "var")}
    done = run("migrate", LOG_FORMAT="json", **settings)
    assert done.returncode == 0
    assert "up to date" in done.stdout


def fails(server: Server, path: Path, break_it: Callable[[], None], reason: str) -> list[str]:
    """What was asked while the file took no lines: each was answered, and its line is on standard error."""
    break_it()
    until(lambda: ask(server) and server.logs("log.file_failed"))
    asked = [ask(server) for _ in range(3)]
    until(lambda: server.logs("http.request")[-1]["request_id"] == asked[-1])
    [notice] = server.logs("log.file_failed")
    assert (notice["level"], notice["file"], notice["reason"]) == ("error", str(path), reason)
    assert set(asked) <= requests(server.log_file).keys()
    return asked


def works_again(server: Server, path: Path) -> None:
    """The file gets lines again, and standard error none."""
    until(lambda: ask(server) and path.exists() and requests(path))
    asked = ask(server)
    until(lambda: requests(path)[asked] == 1)
    assert asked not in requests(server.log_file)


def test_a_folder_that_goes_and_comes_back(tmp_path: Path) -> None:
    with served(tmp_path) as (server, path):
        fails(server, path, lambda: shutil.rmtree(path.parent), "No such file or directory")
        path.parent.mkdir()
        works_again(server, path)


@pytest.mark.long
def test_a_server_process_starts_though_the_file_takes_nothing(tmp_path: Path) -> None:
    with served(tmp_path, WORKERS="2") as (server, path):
        shutil.rmtree(path.parent)
        server.signal(signal.SIGHUP)
        until(lambda: len(server.logs("server.started")) == 2)
        ask(server)


def test_a_file_that_takes_nothing(tmp_path: Path) -> None:
    def exchange() -> None:
        full = path.with_suffix(".full")
        full.symlink_to("/dev/full")
        full.rename(path)

    with served(tmp_path) as (server, path):
        fails(server, path, exchange, "No space left on device")
        path.unlink()
        works_again(server, path)


def test_a_pipe_whose_reader_is_slow_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4 * KILOBYTE)
    with Server(tmp_path / "var", {"LOG_FILE": str(path)}) as server:
        fails(server, path, lambda: None, "Resource temporarily unavailable")
        os.close(reader)
        ask(server)


@pytest.mark.sqlite
def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    path, settings = folder / "server.log", {"LOG_FILE": str(folder / "server.log")}
    with Volume(folder, 256 * KILOBYTE) as volume, Server(tmp_path / "var", settings, prefix=volume.prefix) as server:
        seen = volume.seen / "server.log"
        before = [ask(server) for _ in range(3)]
        with volume.full():
            while not server.logs("log.file_failed"):  # its last page is filled
                before.append(ask(server))
            during = fails(server, path, lambda: None, "No space left on device")
        last = ask(server)
        until(lambda: requests(seen)[last] == 1)
        assert_once([*before, last, *during], seen, server.log_file)
