"""Somebody who only wants to work, while others attack: how long each thing takes them."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.factories import pdf
from tests.support.server import Server
from tests.support.user import PASSWORD

OPERATIONS = ("get", "log in", "upload", "job")


class Victim:
    """A user of the server, who times what they do in seconds."""

    def __init__(self, server: Server) -> None:
        self._user = server.register()
        self._document = self._user.upload()["id"]
        self._file = pdf("x" * 19_000)

    def slowest(self, seconds: float) -> dict[str, float]:
        """The 99th percentile of each operation, of all that were done in this time."""
        took: dict[str, list[float]] = {name: [] for name in OPERATIONS}
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for name, times in took.items():
                times.append(_timed(getattr(self, f"_{name.replace(' ', '_')}")))
        return {name: sorted(times)[len(times) * 99 // 100] for name, times in took.items()}

    def _get(self) -> None:
        assert self._user.http.get(f"/documents/{self._document}").status_code == 200

    def _log_in(self) -> None:
        credentials = {"email": self._user.email, "password": PASSWORD}
        answer = self._user.http.post("/auth/login", json=credentials)
        assert answer.status_code == 200, answer.text

    def _upload(self) -> None:
        self._user.upload(self._file)

    def _job(self) -> None:
        job: dict[str, Any] = self._user.start(self._document, params={"seconds": 0}, force=True)
        assert self._user.finished(job["id"])["state"] == "SUCCEEDED"


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def memory(server: Server) -> int:
    """Bytes of memory that the server and its processes have in use."""
    return sum(_resident(pid) for pid in processes_of(server))


def processes_of(server: Server) -> list[str]:
    """The ids of the server's process, and of those that it has started."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    return [str(server.pid), *(children.read_text().split() if children.exists() else [])]


def _resident(pid: str) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:  # it has just ended
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
