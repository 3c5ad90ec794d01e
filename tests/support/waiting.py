"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    condition: Callable[[], T], timeout: float = 20, failure: Callable[[], str] = lambda: "it never happened"
) -> T:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, failure()
        time.sleep(0.02)
    return value
