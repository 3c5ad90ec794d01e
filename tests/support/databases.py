"""The database behind a data folder: SQLite's file in it or, with TEST_DATABASE_URL, one of its own on that server."""

import atexit
import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from sqlalchemy import URL, Connection, Engine, NullPool, bindparam, create_engine, func, make_url, select, text

from app.database import Database, UTCDateTime, base, now
from app.database.postgresql import PostgresqlDatabase
from app.database.sqlite import SqliteDatabase
from tests.support.zygote import run

# postgresql+asyncpg://user:password@host:port/name of somebody who may create databases.
SERVER = os.environ.get("TEST_DATABASE_URL", "")
POSTGRESQL = bool(SERVER)
POOL_SIZE = "4"  # connections of a server to PostgreSQL
PG_DUMP, PSQL = (shutil.which(name) or name for name in ("pg_dump", "psql"))

_RUN = secrets.randbits(63)
_numbers = count(1)
_made: list[str] = []
_addresses: dict[Path, URL] = {}


def settings(data_dir: Path) -> dict[str, str]:
    """What a server on the data folder has to know of its database."""
    return {"DATABASE_URL": url(data_dir), "DATABASE_POOL_SIZE": POOL_SIZE} if POSTGRESQL else {}


def url(data_dir: Path) -> str:
    """For the service."""
    return _address(data_dir).render_as_string(hide_password=False)


def engine(data_dir: Path) -> Engine:
    """For a look past the service."""
    return past(_address(data_dir))


def database(data_dir: Path, *, of_this_run: bool = True, pool_size: int = 2) -> Database:
    """The service's own adapter, in this process; SQLite's unless the database `of_this_run` is wanted."""
    if of_this_run and POSTGRESQL:
        return PostgresqlDatabase(url(data_dir), pool_size=pool_size, statement_timeout=5)
    return SqliteDatabase(data_dir / "app.db")


def lock(conn: Connection) -> None:
    """Let nobody else write (what changes is told in `events`), until `conn` is rolled back."""
    conn.exec_driver_sql("LOCK TABLE events IN EXCLUSIVE MODE" if POSTGRESQL else "BEGIN IMMEDIATE")


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Somebody else writes to the database, and takes their time."""
    with engine(data_dir).connect() as conn:
        lock(conn)
        yield


def copy(old: Path, new: Path) -> None:
    """Have the new data folder's database hold what the old one's does now, whoever is using that."""
    if POSTGRESQL:
        source, target = (_address(folder).set(drivername="postgresql") for folder in (old, new))
        arguments = [each.render_as_string(hide_password=False) for each in (source, target)]
        dumped = subprocess.run([PG_DUMP, arguments[0]], check=True, capture_output=True)
        restore = [PSQL, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", arguments[1]]
        subprocess.run(restore, input=dumped.stdout, check=True, capture_output=True)
        return
    new.mkdir()
    with closing(sqlite3.connect(old / "app.db")) as conn:
        conn.execute("VACUUM INTO ?", (str(new / "app.db"),))


def prepare(data_dir: Path) -> None:
    """Have a database migrated before a server asks for it, if nobody has yet: a copy is quicker."""
    if POSTGRESQL and data_dir not in _addresses:
        _addresses[data_dir] = create(template=_migrated())
    elif not POSTGRESQL and not (file := data_dir / "app.db").exists():
        data_dir.mkdir(0o700, parents=True, exist_ok=True)
        file.touch(0o600)
        file.write_bytes(_migrated_file())


@cache
def _migrated_file() -> bytes:
    """SQLite's file, of a database that nobody uses."""
    with TemporaryDirectory() as folder:
        done = run("migrate", DATA_DIR=folder)
        assert done.returncode == 0, done.stderr
        return Path(folder, "app.db").read_bytes()


@cache
def _migrated() -> str:
    """A database to be copied: nobody may be connected to it."""
    address = create()
    with TemporaryDirectory() as folder:
        done = run("migrate", DATABASE_URL=address.render_as_string(hide_password=False), DATA_DIR=folder)
    assert done.returncode == 0, done.stderr
    return str(address.database)


def create(options: str = "", template: str = "template0") -> URL:
    """An empty database on the PostgreSQL server, or a copy of another."""
    _alive()
    name = f"tests_{_RUN}_{next(_numbers)}"
    _administer(f"CREATE DATABASE {name} TEMPLATE {template} {options}")
    _made.append(name)
    return make_url(SERVER).set(database=name)


@cache
def _alive() -> None:
    """Hold the lock that says so of the process whose number is in the names of its databases."""
    conn = past(make_url(SERVER)).connect().execution_options(isolation_level="AUTOCOMMIT")
    conn.execute(select(func.pg_advisory_lock(_RUN)))
    atexit.register(conn.close)


def drop_all() -> None:
    """Drop what this process has made, whoever is still connected."""
    while _made:
        drop(_made.pop())


def drop_left() -> None:
    """Drop what processes have left that are gone."""
    if not POSTGRESQL:
        return
    names = text("SELECT datname FROM pg_database WHERE datname ~ '^tests_[0-9]+_'")
    with past(make_url(SERVER)).connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for name in conn.scalars(names).all():
            if conn.scalar(select(func.pg_try_advisory_lock(int(name.split("_")[1])))):
                drop(name)


def drop(name: str | None) -> None:
    _administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def clock(read: Callable[[], datetime]) -> Iterator[None]:
    """Have the statements of this process take the time from here, not from the database's clock."""

    def compiled(element: now, compiler: Any, **kw: Any) -> str:
        time = bindparam(None, callable_=read, type_=UTCDateTime(), unique=True)
        return templates[compiler.dialect.name].format(
            compiler.process(time, **kw), compiler.process(element.clauses, **kw)
        )

    templates = {
        "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', {}, printf('%.3f seconds', {}))",
        "postgresql": "({} + make_interval(secs => {}))",
    }
    known = patch.object(base, "_seconds", lambda _: read().timestamp())
    with patch.object(now, "_compiler_dispatch", compiled), known:
        yield


def _address(data_dir: Path) -> URL:
    if data_dir not in _addresses:
        file = f"sqlite+aiosqlite:///{data_dir / 'app.db'}"
        _addresses[data_dir] = create() if POSTGRESQL else make_url(file)
    return _addresses[data_dir]


def _administer(statement: str) -> None:
    with past(make_url(SERVER)).connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql(statement)


def past(address: URL) -> Engine:
    driver = {"postgresql+asyncpg": "postgresql+psycopg", "sqlite+aiosqlite": "sqlite"}[address.drivername]
    return create_engine(address.set(drivername=driver), poolclass=NullPool)
