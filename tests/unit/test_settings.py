"""What cannot be run with is refused at start, in one line that names the variable."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from app.auth.tokens import AccessTokens, development_secret
from app.errors import ConfigurationError
from app.settings import load, misspelt
from tests.support.zygote import run

POSTGRESQL = {"DATABASE_URL": "postgresql+asyncpg://user@host/name"}
REFUSED = [
    ({"ENVIRONMENT": "production"}, "JWT_SECRET"),
    ({"ENVIRONMENT": "staging"}, "ENVIRONMENT"),
    ({"JWT_SECRET": "too short"}, "JWT_SECRET"),
    ({"AUDIT_KEY": "too short"}, "AUDIT_KEY"),
    ({"PORT": "eighty"}, "PORT"),
    ({"LEASE_SECONDS": "0"}, "LEASE_SECONDS"),
    ({"LEASE_SECONDS": "nan"}, "LEASE_SECONDS"),
    ({"JOB_TIMEOUT": "inf"}, "JOB_TIMEOUT"),
    ({"MAX_UPLOAD_BYTES": "-1"}, "MAX_UPLOAD_BYTES"),
    ({"DATABASE_URL": "mysql://somewhere"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql://user:s3cret@host"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql://user:s3cret@host/name?ssl=disable&sslmode=require"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql://user:x@s3cret@host/name"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql+psycopg://user:s3cret@host/name"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql+asyncpg://user:s3cret@host"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql+asyncpg://user:s3cret@host:port/name"}, "DATABASE_URL"),
    ({"DATABASE_URL": "postgresql+asyncpg://user:s3cret@host/name?ssl=bogus"}, "DATABASE_URL"),
    ({"DATABASE_POOL_SIZE": "1"}, "DATABASE_POOL_SIZE"),
    ({"DATABASE_STATEMENT_TIMEOUT": "0.0004"}, "DATABASE_STATEMENT_TIMEOUT"),
    ({"DATABASE_STATEMENT_TIMEOUT": "1e10"}, "DATABASE_STATEMENT_TIMEOUT"),
    ({"STORAGE_URL": "ftp://somewhere"}, "STORAGE_URL"),
    ({"STORAGE_URL": "file:///"}, "STORAGE_URL"),
    ({"STORAGE_URL": "s3://Bucket"}, "STORAGE_URL"),
    ({"STORAGE_URL": "s3://bucket", "AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY"),
    ({"STORAGE_URL": "s3://bucket", "AWS_SECRET_ACCESS_KEY": "a"}, "AWS_ACCESS_KEY_ID"),
    ({"STORAGE_URL": "s3://bucket", "MAX_UPLOAD_BYTES": "52428800001"}, "MAX_UPLOAD_BYTES must be at most 52428800000"),
    ({"DATABASE_URL": "sqlite+aiosqlite:///"}, "DATABASE_URL"),
    ({"DATABASE_URL": "sqlite+aiosqlite:///:memory:"}, "DATABASE_URL"),
    ({"BROKER_URL": "redis://somewhere"}, "BROKER_URL"),
    ({"BROKER_URL": "redis://somewhere"}, "DATABASE_URL"),
    ({"BROKER_URL": "kafka://user:s3cret@somewhere", **POSTGRESQL}, "BROKER_URL"),
    ({"BROKER_URL": "redis://user:s3cret@:6379", **POSTGRESQL}, "BROKER_URL"),
    ({"BROKER_URL": "sqs://jobs", "AWS_ACCESS_KEY_ID": "a", **POSTGRESQL}, "AWS_SECRET_ACCESS_KEY"),
    ({"REGISTRATION": "maybe"}, "REGISTRATION"),
    ({"CONVERSION_URL": "ftp://user:s3cret@host"}, "CONVERSION_URL"),
    ({"CONVERSION_URL": "http://user:s3cret@"}, "CONVERSION_URL"),
    ({"CONVERSION_URL": "http://user:s3cret@host:99999"}, "CONVERSION_URL"),
    ({"CONVERSION_URL": "http://host/?key=s3cret"}, "CONVERSION_URL"),
    ({"CONVERSION_URL": "http://user:s3?ret@host"}, "CONVERSION_URL"),
    ({"CONVERSION_URL": "http://host name"}, "CONVERSION_URL"),
    ({"WEBHOOK_ALLOW_NETS": "10.0.0.1/8"}, "WEBHOOK_ALLOW_NETS"),
    ({"WEBHOOK_PROXY_URL": "socks5://user:s3cret@host"}, "WEBHOOK_PROXY_URL"),
    ({"WEBHOOK_USER_AGENT": "a\r\nb: c"}, "WEBHOOK_USER_AGENT"),
]


@pytest.mark.parametrize(("environment", "variable"), REFUSED)
def test_refused_in_one_line(environment: dict[str, str], variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refusal:
        load()
    assert variable in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("variable", "value", "name", "read"),
    [
        ("LOG_LEVEL", "info", "log_level", "INFO"),
        ("REGISTRATION", "Closed", "registration", "closed"),
        ("LOG_FORMAT", "JSON", "log_format", "json"),
        ("ENVIRONMENT", "DEVELOPMENT", "environment", "development"),
    ],
)
def test_words_are_read_in_any_case(
    variable: str, value: str, name: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(load(), name) == read


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("postgres://user:s3cret@host/name", "postgresql+asyncpg://user:s3cret@host/name"),
        ("postgresql://user@host:5433/name?sslmode=require", "postgresql+asyncpg://user@host:5433/name?ssl=require"),
    ],
)
def test_databases_are_named_as_their_hosts_name_them(url: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert load().database == make_url(meant)


def test_a_file_of_sqlite_needs_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:////srv/x.db")
    assert load().database == Path("/srv/x.db")


def test_names_that_are_misspelt_in_the_env_file_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert misspelt() == []
    (tmp_path / ".env").write_text("JWT_SECERT=x\nPOSTGRES_PASSWORD=x\nhost=x\nDATA_DIRS=x\nPROT=1\n")
    meant = {"JWT_SECERT": "JWT_SECRET", "DATA_DIRS": "DATA_DIR", "PROT": "PORT"}
    assert misspelt() == [(".env", *each) for each in meant.items()]


def test_an_env_file_that_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfeA=1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"^\.env is not UTF-8$"):
        load()


def test_secrets_may_be_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jwt_secret").write_text("f" * 32 + "\n")
    (tmp_path / "database_url").write_text("postgresql+asyncpg://user:password@host/name\n")
    (tmp_path / "unheard_of").write_text("x")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    settings = load()
    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == "f" * 32
    assert settings.database == make_url("postgresql+asyncpg://user:password@host/name")
    monkeypatch.setenv("JWT_SECRET", "e" * 32)
    assert load().jwt_secret != settings.jwt_secret, "the environment comes first"


def test_where_secrets_are_may_be_said_in_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/jwt_secret").write_text("f" * 32)
    (tmp_path / ".env").write_text("SECRETS_DIR=secrets")
    monkeypatch.chdir(tmp_path)
    assert load().jwt_secret is not None


def test_an_empty_secrets_dir_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "port").write_text("1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRETS_DIR", "")
    assert load().port == 8000


@pytest.mark.parametrize("name", ["mistyped", "a file"])
def test_a_secrets_dir_that_is_no_folder_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / name))
    with pytest.raises(ConfigurationError, match=r"^SECRETS_DIR: .*directory$"):
        load()


def a_folder(path: Path) -> None:
    path.mkdir()


def a_loop(path: Path) -> None:
    path.symlink_to(path)


UNUSABLE: list[tuple[Callable[[Path], Any], str]] = [
    (
        lambda path: path.write_text("s3cret"),
        "JWT_SECRET must be at least 32 bytes, and so must each of several, which commas divide",
    ),
    (lambda path: path.write_bytes(b"\xff" * 40), "JWT_SECRET: .*/jwt_secret is not UTF-8"),
    (a_folder, "JWT_SECRET: .*/jwt_secret: Is a directory"),
    (a_loop, "JWT_SECRET: .*/jwt_secret: Too many levels of symbolic links"),
]


@pytest.mark.parametrize(("make", "refusal"), UNUSABLE)
def test_a_secret_that_cannot_be_used_is_refused_like_any_other(
    make: Callable[[Path], Any], refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "jwt_secret")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    with pytest.raises(ConfigurationError, match=f"^{refusal}$"):
        load()


@pytest.mark.parametrize("command", [["-m", "app", "serve"], ["-m", "uvicorn", "app.main:app"]])
def test_a_server_refuses_to_start(command: list[str], tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "ENVIRONMENT": "production", "DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].endswith("JWT_SECRET is required when ENVIRONMENT=production")
    assert not any(tmp_path.iterdir())


def test_a_worker_needs_postgresql(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)}
    done = run("worker", "--concurrency", "2", **environment)
    assert done.returncode == 1
    refusal = "DATABASE_URL: a worker needs PostgreSQL; with SQLite, servers run the jobs"
    assert done.stderr == f"configuration: {refusal}\n"
    assert not any(tmp_path.iterdir())


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "s3cret" * 10)
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://user:s3cret@host/name")
    monkeypatch.setenv("BROKER_URL", "redis://user:s3cret@host")
    monkeypatch.setenv("CONVERSION_URL", "https://user:s3cret@host/path")
    assert "s3cret" not in repr(load().broker_url)
    assert "s3cret" not in repr(load())


def test_development_secret_is_private_and_stays(tmp_path: Path) -> None:
    secret = development_secret(tmp_path)
    assert len(secret.encode()) >= 32
    made_at = tmp_path.stat().st_mtime_ns
    assert development_secret(tmp_path) == secret
    assert tmp_path.stat().st_mtime_ns == made_at, "reading it writes nothing: the disk may be full"
    assert stat.S_IMODE((tmp_path / "jwt-secret").stat().st_mode) == 0o600


def test_a_secret_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jwt-secret").write_text("")
    with pytest.raises(ConfigurationError):
        AccessTokens([development_secret(tmp_path)], issuer="i", audience="a", ttl=1)
