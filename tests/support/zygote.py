"""Servers forked from a process that has imported what they need, which is most of the time it takes to start one.

Nothing else is shared: a fork reads its own environment, writes its own log, and runs `python -m app`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock

from tests.support import reaper

ZYGOTE = multiprocessing.get_context("forkserver")
ZYGOTE.set_forkserver_preload(["tests.support.preload"])

# A process's exit code can be read once, and to start one asks for those of all others.
_one_at_a_time = Lock()


class Forked:
    """`python -m app` with arguments; has what tests need of subprocess.Popen."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._process = ZYGOTE.Process(target=_run_app, args=(arguments, environment, log), daemon=True)
        with _one_at_a_time:
            self._process.start()
        self.pid: int = self._process.pid
        reaper.watch(self.pid)
        self.terminate = self._process.terminate
        self.kill = self._process.kill

    def poll(self) -> int | None:
        with _one_at_a_time:
            return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float = 60) -> int:
        wait([self._process.sentinel], timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("python -m app", timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _run_app(arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["app", *arguments]
    runpy.run_module("app", run_name="__main__", alter_sys=True)
