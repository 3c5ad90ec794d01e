"""Servers forked from a process that has imported what they need, which is most of the time it takes to start one.

Nothing else is shared: a fork reads its own environment, writes its own log, and runs `python -m app`. Passwords
are hashed at less cost.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import app
from app.auth import passwords

LATER = {"app.main", "app.__main__"}  # which read the environment when imported


class Forked:
    """What a test needs of subprocess.Popen, for a process that is the zygote's child."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._turn = Lock()
        self.pid: int = _zygote().ask({"arguments": arguments, "environment": environment, "log": str(log)})
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with self._turn:  # a process can be waited for once
            if self.returncode is None:
                self.returncode = _zygote().ask({"pid": self.pid})
            return self.returncode

    def wait(self, timeout: float = 60) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("python -m app serve", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Zygote:
    """The test's end of the pipes. A question is a line of JSON, and so is its answer."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._turn = Lock()
        atexit.register(self._process.communicate)

    def ask(self, question: dict[str, Any]) -> Any:
        with self._turn:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@cache
def _zygote() -> _Zygote:
    return _Zygote()


def main() -> None:
    """Answer questions until the test's process is gone."""
    warnings.simplefilter("error", ResourceWarning)
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if module.name not in LATER and not module.name.startswith("app.migrations."):
            importlib.import_module(module.name)
    passwords.ARGON2 = passwords.ARGON2.using(memory_cost=64)  # every test brings its own users
    gc.freeze()
    for line in sys.stdin:
        question = json.loads(line)
        answer = _exit_code(question["pid"]) if "pid" in question else os.fork()
        if answer == 0 and "log" in question:
            _become_server(**question)
            return
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _exit_code(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _become_server(arguments: list[str], environment: dict[str, str], log: str) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["app", *arguments]
    runpy.run_module("app", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
