"""Snapshots of PostgreSQL, by its own tools: pg_dump reads the same snapshot as the list of the files does.

The tools get the address and the password in their environment, which other accounts of the machine cannot read.
"""

import asyncio
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import asyncpg
from sqlalchemy import URL, Connection, NullPool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.backup import BackupError
from app.backup.snapshots import revision_of
from app.database.base import T
from app.database.sessions import connect_args
from app.errors import ConfigurationError

CHUNK = 1024**2  # bytes
_TOLD = 2000  # characters of what a tool says that are kept


class PostgresqlSource:
    """Adapter of Source over a PostgreSQL server. Needs pg_dump or pg_restore in PATH, no older than the server."""

    kind = "postgresql"

    def __init__(self, url: URL) -> None:
        self._url = url

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["PostgresqlSnapshot"]:
        async with self._connected() as conn:
            await _require("pg_dump", conn)
            name = str(await conn.scalar(text("SELECT pg_export_snapshot()")))
            yield PostgresqlSnapshot(conn, name, environment(self._url))

    async def revision(self) -> str | None:
        return await self.read(revision_of)

    async def read(self, unit: Callable[[Connection], T]) -> T:
        async with self._connected() as conn:
            return await conn.run_sync(unit)

    async def load(self, dump: Path) -> None:
        async with self._connected() as conn:
            await _require("pg_restore", conn)
        options = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges", "--no-password"]
        command = [*options, f"--dbname={self._url.database}", str(dump)]
        async with _running("pg_restore", command, environment(self._url)) as process:
            assert process.stdout
            await process.stdout.read()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in one transaction, which may be idle for as long as a dump takes."""
        engine = _engine(self._url)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            try:
                conn = await stack.enter_async_context(engine.connect())
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
                reason = " ".join(str(getattr(error, "orig", error)).split()) or "no answer"
                raise BackupError(f"DATABASE_URL: {self._url.render_as_string()}: {reason}") from error
            yield conn


class PostgresqlSnapshot:
    """A snapshot that a transaction has exported, for as long as that lasts."""

    def __init__(self, conn: AsyncConnection, name: str, environment: dict[str, str]) -> None:
        self._conn = conn
        self._name = name
        self._environment = environment

    async def read(self, unit: Callable[[Connection], T]) -> T:
        return await self._conn.run_sync(unit)

    async def dump(self) -> AsyncIterator[bytes]:
        command = ["--format=custom", f"--snapshot={self._name}", "--no-password"]
        async with _running("pg_dump", command, self._environment) as process:
            assert process.stdout
            while chunk := await process.stdout.read(CHUNK):
                yield chunk


def environment(url: URL) -> dict[str, str]:
    """The URL in the variables of libpq."""
    named = url.query.get("host", ())
    hosts = [each.partition(":") for each in ((named,) if isinstance(named, str) else named)]
    hosts = hosts or [(url.host or "", "", "")]  # which may have colons of its own
    found = {
        "PGHOST": ",".join(host for host, _, _ in hosts),
        "PGPORT": ",".join(port or str(url.port or 5432) for _, _, port in hosts),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        "PGSSLMODE": url.query.get("ssl"),
        "PGTARGETSESSIONATTRS": "read-write" if len(hosts) > 1 else None,
    }
    return os.environ | {name: str(value) for name, value in found.items() if value}


def _engine(url: URL) -> AsyncEngine:
    address = url.render_as_string(hide_password=False)
    arguments = connect_args(address, statement_timeout=0, lock_timeout=0)
    arguments["server_settings"]["idle_in_transaction_session_timeout"] = "0"
    return create_async_engine(address, poolclass=NullPool, isolation_level="REPEATABLE READ", connect_args=arguments)


async def _require(tool: str, conn: AsyncConnection) -> None:
    """Raises ConfigurationError if the tool is missing, or older than the server."""
    if shutil.which(tool) is None:
        raise ConfigurationError(f"{tool} is not in PATH: install the client programs of PostgreSQL")
    server = int(await conn.scalar(text("SHOW server_version_num")) or 0) // 10000
    async with _running(tool, ["--version"], dict(os.environ)) as process:
        assert process.stdout
        found = re.search(rb"[0-9]+", await process.stdout.read())
    version = int(found[0]) if found else 0
    if version < server:
        raise ConfigurationError(f"{tool} is of version {version} and the server of {server}: install a newer one")


@asynccontextmanager
async def _running(tool: str, options: list[str], environment: dict[str, str]) -> AsyncIterator[Process]:
    """Run a tool whose output is read in the block. Raises BackupError with its last words if it fails."""
    process = await asyncio.create_subprocess_exec(
        tool, *options, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment
    )
    assert process.stderr
    told = asyncio.create_task(_read_all(process.stderr))
    try:
        yield process
        if code := await process.wait():
            words = " ".join((await told).split())
            raise BackupError(f"{tool} failed: {words or f'exit code {code}'}")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await told


async def _read_all(stream: asyncio.StreamReader) -> str:
    """What is written to the stream until it ends, but only the beginning of that is kept."""
    kept = b""
    while chunk := await stream.read(CHUNK):
        kept = (kept + chunk)[:_TOLD]
    return kept.decode("utf-8", "replace")
