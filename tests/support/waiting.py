"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    condition: Callable[[], T], timeout: float = 20, failure: Callable[[], str] = lambda: "it never happened"
) -> T:
    """What the condition gives once it is true. The longer it takes, the less often it is asked."""
    deadline, pause = time.monotonic() + timeout, 0.01
    while not (value := condition()):
        assert time.monotonic() < deadline, failure()
        time.sleep(pause)
        pause = min(0.1, 1.5 * pause)
    return value
