"""SQL on accounts. Functions run inside the caller's transaction."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, select, update
from uuid_utils.compat import uuid7

from app import errors, events
from app.auth.models import users
from app.auth.principal import Role
from app.database import Prepared, insert_on_conflict, now
from app.events.catalogue.accounts import UserRegistered
from app.events.catalogue.base import Event
from app.telemetry import context

_ACTIVE = Prepared(select(users).where(users.c.id == bindparam("id"), users.c.active))


def active(conn: Connection, user_id: UUID) -> dict[str, Any] | None:
    """The row of an active user."""
    return _ACTIVE.one(conn, {"id": user_id})


def by_email(conn: Connection, email: str) -> Row[Any] | None:
    """The row of a user, active or not. `email` is canonical."""
    return conn.execute(select(users).where(users.c.email == email)).one_or_none()


def by_id(conn: Connection, user_id: UUID) -> Row[Any] | None:
    """The row of a user, active or not."""
    return conn.execute(select(users).where(users.c.id == user_id)).one_or_none()


def role_in(row: Mapping[str, Any]) -> Role:
    """The role in a row of a user. Those of the release before have none."""
    return Role(row["role"] or Role.USER)


def add(conn: Connection, email: str, password_hash: str) -> Row[Any]:
    """Insert a user, and append its event. Raises EmailTaken."""
    row = conn.execute(
        insert_on_conflict(conn, users)
        .values(id=uuid7(), email=email, password_hash=password_hash, active=True, created_at=now())
        .on_conflict_do_nothing(index_elements=["email"])
        .returning(*users.c)
    ).one_or_none()
    if row is None:
        raise errors.EmailTaken
    record(conn, UserRegistered(), row.id)
    return row


def change(conn: Connection, user_id: UUID, *only_if: ColumnElement[bool], **values: Any) -> bool:
    """Change columns of a user, whether it is there and all conditions hold. Whoever changes it at the same time waits.

    Returns whether it was.
    """
    return conn.execute(update(users).where(users.c.id == user_id, *only_if).values(**values)).rowcount == 1


def remove(conn: Connection, user_id: UUID) -> None:
    """Delete a user, who has no documents any more."""
    conn.execute(delete(users).where(users.c.id == user_id))


def record(conn: Connection, event: Event, user_id: UUID) -> None:
    """Append an event of an account. Its actor is the context's, such as the operator; without one, the user."""
    with context.acting(context.actor.get() or context.user(user_id)):
        events.append(conn, event, user_id=user_id)
