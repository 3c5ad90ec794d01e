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
"""Who acts: a `user`, a `key`, an `operator`, a `worker`, one that is `remote`, the OPERATOR or the INBOX. None while
that is not known."""

account: ContextVar[str | None] = ContextVar("account", default=None)
"""The id of the account whose request this is, whichever of its keys was sent. None without one."""

client: ContextVar[str | None] = ContextVar("client", default=None)
"""The client's address, of a proxy that FORWARDED_ALLOW_IPS names by what it says. None outside of a request."""

user_agent: ContextVar[str | None] = ContextVar("user_agent", default=None)
"""The request's User-Agent, at most 200 characters. None without one."""

credential: ContextVar[UUID | None] = ContextVar("credential", default=None)
"""The id of what the client has proved itself with: of a session, or of a key. None without one."""

prefix: ContextVar[str] = ContextVar("prefix", default="")
"""The path that a proxy takes off, which belongs before the paths that clients are told."""

OPERATOR = "operator"
"""The actor of the command line."""

INBOX = "inbox"
"""The actor of what becomes of the files in the inbox."""

ANONYMOUS = "anonymous"
"""The actor of a failed login."""


def user(user_id: UUID) -> str:
    """The actor of a user's requests."""
    return f"user:{user_id}"


def key(key_id: UUID) -> str:
    """The actor of requests with an API key."""
    return f"key:{key_id}"


def operator(user_id: UUID) -> str:
    """The actor of a user's requests as an operator."""
    return f"operator:{user_id}"


def worker() -> str:
    """The actor of what this process does by itself."""
    return f"worker:{socket.gethostname()}:{os.getpid()}"


def remote(name: str) -> str:
    """The actor of what a worker elsewhere does, by the name that it has given itself."""
    return f"remote:{name}"


def owner() -> str | None:
    """For whom what is scarce is used: the account, else who acts, else the client's address. None for what nobody
    asked for."""
    return account.get() or actor.get() or client.get()


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
