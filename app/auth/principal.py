"""Who makes a request, and what it may do: each router names the scope that it needs."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from uuid import UUID


class Scope(StrEnum):
    """What a principal may do. Each router needs one of these, but for those that anybody may call."""

    ACCOUNT_READ = "account:read"
    DOCUMENTS_READ = "documents:read"
    DOCUMENTS_WRITE = "documents:write"
    DOCUMENTS_DELETE = "documents:delete"
    DOCUMENTS_PROCESS = "documents:process"


ALL_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request: it sees and changes what belongs to `owner_id`, and its events name the `actor`.

    `via` says how it has proved that, and `credential_id` with which credential, if it has an id.
    """

    owner_id: UUID
    actor: str
    scopes: frozenset[Scope]
    via: Literal["jwt"]
    credential_id: UUID | None = None


current: ContextVar[Principal] = ContextVar("principal")
"""The principal of the current request, once it is authenticated."""
