"""Who makes a request, and what it may do: each router names the scope that it needs."""

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from uuid import UUID

from app.errors import InsufficientScope


class Scope(StrEnum):
    """What a principal may do. Each router needs one of these, but for those that anybody may call."""

    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    DOCUMENTS_READ = "documents:read"
    DOCUMENTS_WRITE = "documents:write"
    DOCUMENTS_DELETE = "documents:delete"
    DOCUMENTS_PROCESS = "documents:process"
    WEBHOOKS_MANAGE = "webhooks:manage"
    WORKER = "worker"
    AUDIT_READ = "audit:read"
    OPERATOR = "operator"


class Role(StrEnum):
    """What an account is for."""

    USER = "user"
    """Somebody who works with documents of their own."""

    OPERATOR = "operator"
    """Somebody who runs the service, too."""


_OF_OPERATORS = frozenset({Scope.WORKER, Scope.AUDIT_READ, Scope.OPERATOR})
SCOPES_OF = {Role.USER: frozenset(Scope) - _OF_OPERATORS, Role.OPERATOR: frozenset(Scope)}
"""All that an account of a role may do."""

KEY_SCOPES = [scope for scope in Scope if scope not in {Scope.ACCOUNT_READ, Scope.ACCOUNT_WRITE}]
"""All that an API key may do. So a key makes, shows and changes no keys: that is a matter of the account."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request: it sees and changes what belongs to `owner_id`, and its events name the `actor`.

    `via` says how it has proved that, and `credential_id` with which credential: with `jwt` and `cookie`, the id of the
    session, or None for an access token of the release before; with `key`, the id of the API key, of which
    `secret_hash` is the hash of the secret that was sent; with `inbox`, none: a setting names the account. `needed` is
    the scope that the request needs.
    """

    owner_id: UUID
    actor: str
    scopes: frozenset[Scope]
    via: Literal["jwt", "cookie", "key", "inbox"]
    credential_id: UUID | None = None
    secret_hash: bytes = b""
    needed: Scope | None = None

    def require(self, scope: Scope) -> None:
        """Raise InsufficientScope without this scope, with a challenge (RFC 6750 §3.1)."""
        if scope not in self.scopes:
            challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
            reason = f"This needs the scope {scope}{self._why_not(scope)}."
            raise InsufficientScope(reason, headers={"WWW-Authenticate": challenge})

    def _why_not(self, scope: Scope) -> str:
        if scope in _OF_OPERATORS and self.via != "key":
            return ", which only operators have"
        return "" if scope in KEY_SCOPES else ", which no API key has: log in"


current: ContextVar[Principal] = ContextVar("principal")
"""The principal of the current request, once it is authenticated."""
