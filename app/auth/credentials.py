"""That what a principal has proved itself with still holds, in the very transaction of what it asks for."""

from dataclasses import replace

from sqlalchemy import Connection

from app.auth import sessions
from app.auth.keys import repository as keys
from app.auth.principal import SCOPES_OF, Principal, Scope
from app.database.base import T, Unit
from app.errors import InvalidToken


def required(principal: Principal | None, unit: Unit[T]) -> Unit[T]:
    """A unit that raises InvalidToken, or ApiKeyExpired, unless the principal's session is alive, or its key is good,
    and InsufficientScope unless it may still do what was asked for: a body may arrive long after its request was let
    in. On the command line, there is no principal."""

    def work(conn: Connection) -> T:
        present = replace(principal, scopes=_scopes(conn, principal)) if principal else None
        if present and present.needed:
            present.require(present.needed)
        return unit(conn)

    return work


def _scopes(conn: Connection, principal: Principal) -> frozenset[Scope]:
    """All that the principal may do now."""
    if principal.via == "key":
        return keys.authenticated(conn, principal.secret_hash).scopes
    role = sessions.authenticated(conn, principal.owner_id, principal.credential_id)
    if role is None:
        raise InvalidToken
    return SCOPES_OF[role]
