"""What `python -m app serve` and `worker` take, and how they refuse: in one line that names what to change."""

import socket
from pathlib import Path

import pytest

from app import VERSION
from tests.support.server import free_port
from tests.support.waiting import until
from tests.support.zygote import Forked, run


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--port", "99999"), "configuration: PORT: Input should be less than or equal to 65535"),
        (("--workers", "0"), "configuration: WORKERS: Input should be greater than or equal to 1"),
        (("--host", "nowhere.invalid"), "configuration: HOST, PORT: nowhere.invalid:8000: Name or service not known"),
        (("--log-level", "loud"), "configuration: LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    done = run("serve", *arguments, DATA_DIR=str(tmp_path / "var"))
    assert (done.returncode, done.stderr.splitlines()) == (1, [line])
    assert not list(tmp_path.iterdir()), "nothing was made"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", DATA_DIR=str(tmp_path / "var"), PORT=str(port))
    assert done.stderr == f"configuration: HOST, PORT: 127.0.0.1:{port}: Address already in use\n"


def test_options_come_before_the_environment_and_the_log_says_where_to_go(tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out"
    arguments = ("serve", "--port", str(port), "--data-dir", str(tmp_path / "mine"))
    server = Forked(arguments, {"PORT": "1", "DATA_DIR": str(tmp_path / "other")}, out)
    try:
        until(lambda: out.exists() and f"docs=http://127.0.0.1:{port}/docs" in out.read_text())
    finally:
        server.kill()
        server.wait()
    assert (tmp_path / "mine" / "app.db").exists()
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_written_is_named_by_the_setting_that_was_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for settings, refusal in (
        ({"DATA_DIR": "/proc/data"}, "DATA_DIR: /proc/data: No such file or directory"),
        ({"DATA_DIR": str(tmp_path / "file")}, f"DATA_DIR: {tmp_path}/file: File exists"),
        ({"DATABASE_URL": "sqlite:////proc/data/app.db"}, "DATABASE_URL: /proc/data: No such file or directory"),
        ({"STORAGE_URL": "file:///proc/files"}, "STORAGE_URL: /proc/files: No such file or directory"),
    ):
        done = run("users", "list", **({"DATA_DIR": str(tmp_path / "var")} | settings))
        assert (done.returncode, done.stderr) == (1, f"configuration: {refusal}\n")


def test_a_database_that_is_another_users_is_named(tmp_path: Path) -> None:
    (tmp_path / "app.db").mkdir()  # root may write to everybody's files
    done = run("users", "list", DATA_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"configuration: DATA_DIR: {tmp_path}/app.db: Is a directory\n")


def test_a_password_is_not_asked_for_where_there_is_no_terminal(tmp_path: Path) -> None:
    done = run("users", "create", "ada@example.com", DATA_DIR=str(tmp_path), stdin="correct horse battery staple\n" * 2)
    assert done.returncode == 1
    assert done.stderr == "configuration: there is no terminal to ask for the password: use --password-stdin\n"


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"{VERSION}\n")
