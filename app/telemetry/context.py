"""What the current task works for: the request, and who acts.

The middleware sets the request id, and authentication the actor. What no request asks for enters `acting`. Events,
problems and log lines read both. A task starts with a copy of its creator's context, so what it sets is not seen by
other tasks.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Names the request, or the one that began the job. None outside of both."""

actor: ContextVar[str | None] = ContextVar("actor", default=None)
"""Who acts: a `user`, a `worker` or the OPERATOR. None while that is not known."""

OPERATOR = "operator"
"""The actor of the command line."""


def user(user_id: UUID) -> str:
    """The actor of a user's requests."""
    return f"user:{user_id}"


def worker() -> str:
    """The actor of what this process does by itself."""
    return f"worker:{socket.gethostname()}:{os.getpid()}"


@contextmanager
def acting(as_actor: str | None = None, *, request: str | None = None) -> Iterator[None]:
    """Set the actor and the request id for the block. One that is not given stays as it is."""
    before = actor.get(), request_id.get()
    actor.set(as_actor or before[0])
    request_id.set(request or before[1])
    try:
        yield
    finally:
        actor.set(before[0])
        request_id.set(before[1])
