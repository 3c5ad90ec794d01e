"""Servers forked from a process that has imported what they need, which is most of the time it takes to start one.

Nothing else is shared: a fork reads its own environment, writes its own log, and runs `python -m app`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from tests.support import reaper

ZYGOTE = multiprocessing.get_context("forkserver")
ZYGOTE.set_forkserver_preload(["tests.support.preload"])

# A process's exit code can be read once, and to start one asks for those of all others.
_one_at_a_time = Lock()


class Forked:
    """`python -m app` with arguments; has what tests need of subprocess.Popen.

    `out` takes what it writes, but for its errors if there is an `err`. `stdin` is what it reads. `module` runs the app
    in a world of its making.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        out: Path,
        err: Path | None = None,
        module: str = "app",
        stdin: Path = Path(os.devnull),
    ) -> None:
        told = (module, arguments, environment, stdin, out, err or out)
        self._process = ZYGOTE.Process(target=_run, args=told, daemon=True)
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


def run(
    *arguments: str, timeout: float = 60, stdin: str = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """`python -m app` with arguments, to its end. `stdin` is what it is told."""
    with TemporaryDirectory() as folder:
        out, err, told = Path(folder, "out"), Path(folder, "err"), Path(folder, "in")
        told.write_text(stdin)
        process = Forked(arguments, environment, out, err, stdin=told)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def _run(module: str, arguments: Sequence[str], environment: Mapping[str, str], stdin: Path, *outputs: Path) -> None:
    sys.stdin = stdin.open()
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
