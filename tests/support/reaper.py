"""Kills the processes that a test process started and did not live to stop, because it was killed or hung.

A process of its own, whose input ends with the test process. What it kills may be stopped, in a namespace of its own,
or started by a thread that has ended: parent-death signals miss these.
"""

import atexit
import os
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cache


def watch(pid: int) -> None:
    """Have a child process killed when this process is gone. Elsewhere than on Linux, servers stop by themselves."""
    if sys.platform == "linux":
        os.write(_input(), b"%d\n" % pid)


@cache
def _input() -> int:
    command = [sys.executable, "-I", "-S", __file__]
    reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)  # not to be interrupted with us
    atexit.register(reaper.communicate)
    assert reaper.stdin is not None
    return reaper.stdin.fileno()


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    watched = []
    for line in sys.stdin:
        with suppress(ProcessLookupError):
            watched.append(os.pidfd_open(int(line)))  # a number alone may be another process's by then
    for process in watched:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
