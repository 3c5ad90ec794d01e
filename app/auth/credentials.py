"""That what a principal has proved itself with still holds, in the very transaction of what it asks for."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from uuid import UUID

from sqlalchemy import Connection

from app.auth import sessions
from app.auth.keys import repository as keys
from app.auth.principal import SCOPES_OF, Principal, Role, Scope
from app.database.base import T, Unit
from app.errors import InsufficientScope, InvalidToken, Unauthorized


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


def good(conn: Connection, principals: Collection[Principal]) -> set[Principal]:
    """Those of the principals that `required` would let do what they asked for. One statement finds all sessions."""
    alive = sessions.alive(conn, {session[1] for each in principals if (session := _session(each))})
    return {each for each in principals if _is_good(conn, each, alive)}


def may(conn: Connection, owner_id: UUID, credential_id: UUID | None, scope: Scope) -> bool:
    """Whether the account may still do this with a credential that it has shown before: an API key, or a session."""
    allowed = keys.scopes(conn, owner_id, credential_id) if credential_id else None
    if allowed is None:
        role = sessions.authenticated(conn, owner_id, credential_id)
        allowed = SCOPES_OF[role] if role else frozenset()
    return scope in allowed


def _is_good(conn: Connection, principal: Principal, alive: Mapping[tuple[UUID, UUID], Role]) -> bool:
    if session := _session(principal):
        return session in alive and (not principal.needed or principal.needed in SCOPES_OF[alive[session]])
    try:
        required(principal, lambda _: None)(conn)
    except (Unauthorized, InsufficientScope):
        return False
    return True


def _session(principal: Principal) -> tuple[UUID, UUID] | None:
    """The user and the session, unless it is a key, or an access token of the release before."""
    known = principal.via != "key" and principal.credential_id
    return (principal.owner_id, known) if known else None


def _scopes(conn: Connection, principal: Principal) -> frozenset[Scope]:
    """All that the principal may do now."""
    if principal.via == "key":
        return keys.authenticated(conn, principal.secret_hash).scopes
    role = sessions.authenticated(conn, principal.owner_id, principal.credential_id)
    if role is None:
        raise InvalidToken
    return SCOPES_OF[role]
