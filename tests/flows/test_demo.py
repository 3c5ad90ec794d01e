"""The demo: the main job on a throwaway server, which touches nothing that is real, or on one that runs."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import URL

from app import demo, settings
from app.settings import sources
from tests.support.server import Server, free_port
from tests.support.zygote import run


def shown(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("demo", *options, PATH=os.environ["PATH"], **environment)


def refused(url: str) -> str:
    """The one line that says why."""
    done = shown("--url", url)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    return line


class Impostor(BaseHTTPRequestHandler):
    """Answers, once each, as it was told; the last one again and again."""

    answers: Sequence[tuple[int, bytes]]
    asked = 0

    def do_GET(self) -> None:
        status, body = self.answers[min(self.asked, len(self.answers) - 1)]
        type(self).asked += 1
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that it has there
        pass


@contextmanager
def impostor(*answers: tuple[int, bytes]) -> Iterator[str]:
    """Somebody else's server."""
    with HTTPServer(("127.0.0.1", 0), type("Told", (Impostor,), {"answers": answers})) as server:
        thread = Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_on_a_throwaway_server(tmp_path: Path) -> None:
    done = shown(DATA_DIR=str(tmp_path / "var"), DATABASE_URL="postgresql+asyncpg://real@127.0.0.1:1/real")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("job.succeeded") == 2
    assert not any(tmp_path.iterdir())


def test_a_throwaway_server_reads_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/database_url").write_text("postgresql+asyncpg://real@database/real")
    monkeypatch.setattr(sources, "_SECRETS_DIR", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert isinstance(settings.load().database, URL), "or this test proves nothing"
    for name, value in demo.environment(str(tmp_path), 1).items():
        monkeypatch.setenv(name, value)
    assert settings.load().database == tmp_path / "app.db"


def test_on_a_server_that_runs(server: Server) -> None:
    done = shown("--url", server.url)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "localhost",
        "ftp://127.0.0.1",
        "http://",
        "http://a:b",
        "http://[::1",
        "http://u:p@a",
        "http://a b",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(demo.DemoError, match=r"^--url must be http://host:port or https://host:port$"):
        demo.run(url)


def test_a_server_that_is_not_ready_yet_is_waited_for() -> None:
    with impostor((503, b"<html>"), (503, b"{}"), (200, b"{}"), (403, b'{"detail": "Closed"}')) as url:
        waiting, line = shown("--url", url).stderr.splitlines()
    assert waiting.startswith(f"Waiting for {url}")
    assert line == f"demo: {url}: POST /auth/register → 403: Closed"


def test_a_server_that_never_comes_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "STARTUP_TIMEOUT", 0.2)
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(demo.DemoError, match=f"^{url}: Connection refused$"):
        demo.run(url)
    assert capsys.readouterr().err == f"Waiting for {url}, 0 seconds at most\n"


@pytest.mark.parametrize("answer", [(200, b"<html>"), (200, b"\xff"), (404, b"Not found"), (404, b"[]")])
def test_somebody_elses_server_is_told_in_one_line(answer: tuple[int, bytes]) -> None:
    with impostor(answer) as url, pytest.raises(demo.DemoError, match=r"which is not how this service answers$"):
        demo.run(url)
