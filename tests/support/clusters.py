"""PostgreSQL servers of a test's own: a primary and its standby, which change places."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import reaper
from tests.support.server import free_port

_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_connections = 40
shared_buffers = 16MB
wal_keep_size = 64MB
"""


class Cluster:
    """A server with a folder and a port of its own. Anybody may connect as `postgres`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def create(self) -> None:
        _run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", f"--pgdata={self.folder}")
        with (self.folder / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)

    def start(self) -> None:
        self._ctl("start", f"--options=-p {self.port}", f"--log={self.folder}.log")
        reaper.watch(int((self.folder / "postmaster.pid").read_text().split()[0]))

    def stop(self) -> None:
        self._ctl("stop", "--mode=fast")

    def promote(self) -> None:
        self._ctl("promote")

    def copy(self, folder: Path) -> "Cluster":
        """A standby."""
        _run("pg_basebackup", f"--pgdata={folder}", "--checkpoint=fast", "--no-sync", f"--dbname={self.conninfo}")
        standby = Cluster(folder)
        standby.follow(self)
        return standby

    def follow(self, primary: "Cluster") -> None:
        """Be a standby from the next start on."""
        with (self.folder / "postgresql.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{primary.conninfo}'\n")
        (self.folder / "standby.signal").touch()
        os.chown(self.folder / "standby.signal", *_owner(self.folder))

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres"

    def _ctl(self, command: str, *options: str) -> None:
        _run("pg_ctl", command, f"--pgdata={self.folder}", "--wait", *options)


@contextmanager
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary, and a standby that follows it."""
    if not (_programs() / "pg_ctl").exists():
        pytest.skip("NOT RUN: there are no programs of a PostgreSQL server on this machine")
    folder = Path(tempfile.mkdtemp(prefix="clusters-"))  # pytest's own folders are not for other users
    clusters: list[Cluster] = []
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        clusters.append(Cluster(folder / "first"))
        clusters[0].create()
        clusters[0].start()
        clusters.append(clusters[0].copy(folder / "second"))
        clusters[1].start()
        yield clusters[0], clusters[1]
    finally:
        for cluster in clusters:
            with suppress(subprocess.CalledProcessError):
                cluster.stop()
        shutil.rmtree(folder)


def _programs() -> Path:
    """Where a server's programs are: Debian has them outside of PATH, one folder for each version."""
    found = shutil.which("pg_ctl")
    return Path(found).resolve().parent if found else max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path())


def _owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def _run(program: str, *arguments: str) -> None:
    # Root may not run a server.
    user = "postgres" if os.geteuid() == 0 and "postgres" in {each.pw_name for each in pwd.getpwall()} else None
    subprocess.run(
        [_programs() / program, *arguments], check=True, user=user, cwd="/", stdout=subprocess.DEVNULL, timeout=60
    )
