"""The database behind a data folder: SQLite's file in it or, with TEST_DATABASE_URL, one of its own on that server."""

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, NullPool, bindparam, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from app.database import UTCDateTime, now

# postgresql+asyncpg://user:password@host:port/name of somebody who may create databases.
SERVER = os.environ.get("TEST_DATABASE_URL", "")
POSTGRESQL = bool(SERVER)
PG_DUMP, PSQL = (shutil.which(name) or name for name in ("pg_dump", "psql"))

_made: list[str] = []


def settings(data_dir: Path) -> dict[str, str]:
    """What a server on the data folder has to know of its database."""
    return {"DATABASE_URL": url(data_dir), "DATABASE_POOL_SIZE": "4"} if POSTGRESQL else {}


def url(data_dir: Path) -> str:
    """For the service."""
    return _address(data_dir).render_as_string(hide_password=False)


def engine(data_dir: Path) -> Engine:
    """For a look past the service."""
    return past(_address(data_dir))


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


def create(options: str = "") -> URL:
    """An empty database on the PostgreSQL server."""
    name = f"test_{time.time():.0f}_{uuid4().hex}"
    _administer(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
    _made.append(name)
    return make_url(SERVER).set(database=name)


def drop_all() -> None:
    """Drop what this process has made, whoever is still connected."""
    while _made:
        drop(_made.pop())


def drop_left() -> None:
    """Drop what runs that were killed have left: databases of more than an hour ago that nobody is connected to."""
    if not POSTGRESQL:
        return
    left = text(
        "SELECT datname FROM pg_database WHERE datname ~ '^test_[0-9]+_'"
        " AND split_part(datname, '_', 2)::bigint < :before AND datname NOT IN"
        " (SELECT datname FROM pg_stat_activity WHERE datname IS NOT NULL)"
    )
    with past(make_url(SERVER)).connect() as conn:
        names = conn.scalars(left, {"before": int(time.time()) - 3600}).all()
    for name in names:
        with suppress(DBAPIError):  # another run was faster
            drop(name)


def drop(name: str | None) -> None:
    _administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def clock(read: Callable[[], datetime]) -> Iterator[None]:
    """Have the statements of this process take the time from here, not from the database's clock."""

    def compiled(template: str) -> Callable[..., str]:
        def compile_(element: now, compiler: Any, **kw: Any) -> str:
            time = bindparam(None, callable_=read, type_=UTCDateTime(), unique=True)
            return template.format(compiler.process(time, **kw), compiler.process(element.clauses, **kw))

        return compile_

    specs: dict[str, Any] = vars(now)["_compiler_dispatcher"].specs
    templates = {
        "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', {}, printf('%.3f seconds', {}))",
        "postgresql": "({} + make_interval(secs => {}))",
    }
    with patch.dict(specs, {name: compiled(template) for name, template in templates.items()}):
        yield


@cache
def _address(data_dir: Path) -> URL:
    if not POSTGRESQL:
        return make_url(f"sqlite+aiosqlite:///{data_dir / 'app.db'}")
    return create()


def _administer(statement: str) -> None:
    with past(make_url(SERVER)).connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql(statement)


def past(address: URL) -> Engine:
    driver = {"postgresql+asyncpg": "postgresql+psycopg", "sqlite+aiosqlite": "sqlite"}[address.drivername]
    return create_engine(address.set(drivername=driver), poolclass=NullPool)
