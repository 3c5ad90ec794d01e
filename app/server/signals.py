"""What SIGTERM and SIGINT do while a process starts. `lifespan.py` says what they do afterwards.

The kernel drops a signal that the first process of a container has no handler for.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGTERM, signal.SIGINT)


def exit_at_once(*, serving: bool) -> None:
    """From now on, end at a signal: there is nothing yet that a crash could harm.

    A server or worker was told to stop, and has: the exit code is 0. Any other command has not done what it was to do;
    its exit code is a shell's for SIGTERM, and SIGINT interrupts it as usual.
    """
    for number in STOPPING if serving else (signal.SIGTERM,):
        signal.signal(number, lambda number, _: os._exit(0 if serving else 128 + number))
    # The image's entrypoint holds back what arrives before there are handlers.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


@contextmanager
def exiting_at_once() -> Iterator[None]:
    """End a server or worker at a signal that arrives meanwhile, then put the handlers back that there are now."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    replaced = {number: signal.getsignal(number) for number in STOPPING}
    exit_at_once(serving=True)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
