"""That what a principal has proved itself with still holds, in the very transaction of what it asks for."""

from sqlalchemy import Connection

from app.auth import sessions
from app.auth.keys import repository as keys
from app.auth.principal import Principal
from app.database.base import T, Unit
from app.errors import InvalidToken


def required(principal: Principal, unit: Unit[T]) -> Unit[T]:
    """A unit that raises InvalidToken, or ApiKeyExpired, unless the principal's session is alive, or its key is good: a
    body may arrive long after its request was let in."""

    def work(conn: Connection) -> T:
        if principal.via == "key":
            keys.authenticated(conn, principal.secret_hash)
        elif sessions.authenticated(conn, principal.owner_id, principal.credential_id) is None:
            raise InvalidToken
        return unit(conn)

    return work
