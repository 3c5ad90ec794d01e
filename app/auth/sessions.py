"""SQL on sessions and their refresh tokens. Functions run inside the caller's transaction.

A session is a token family: a login, and all refresh tokens that descend from it. That of a browser in the console has
a cookie instead of tokens.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from uuid_utils.compat import uuid7

from app.auth import users
from app.auth.models import refresh_tokens, token_families, users as users_table
from app.auth.principal import Role
from app.auth.schemas import Session
from app.auth.tokens import child_refresh_token, new_child_seed, new_refresh_token, refresh_token_hash
from app.database import Database, Prepared, delete_batch, insert_on_conflict, made_at, now
from app.settings import Settings
from app.telemetry import context

_MAX_ADDRESS = 64  # characters
_USED_EVERY = 60.0  # seconds in which the use of a cookie is recorded once
_ALIVE = and_(token_families.c.revoked_at.is_(None), token_families.c.expires_at > now())

_AUTHENTICATED = Prepared(
    select(users_table.c.role)
    .join(token_families, token_families.c.user_id == users_table.c.id)
    .where(
        token_families.c.id == bindparam("session"), users_table.c.id == bindparam("user"), users_table.c.active, _ALIVE
    )
)


class Issued(NamedTuple):
    """A session, and its newest refresh token."""

    user_id: UUID
    session_id: UUID
    refresh_token: str


class SignedIn(NamedTuple):
    """A session of a browser, and what its cookie holds."""

    user_id: UUID
    session_id: UUID
    cookie: str


class Presented(NamedTuple):
    """A session of a browser that is alive. `recent`: its last use was recorded a moment ago."""

    user_id: UUID
    session_id: UUID
    role: Role
    recent: bool


class Ended(NamedTuple):
    """A session that was just ended."""

    id: UUID
    user_id: UUID


def authenticated(conn: Connection, user_id: UUID, session_id: UUID | None) -> Role | None:
    """The role of the session's user. None, unless the session is alive and of this user, who is active.

    A token of the release before names no session, and its user must do.
    """
    if session_id is None:
        row = users.active(conn, user_id)
    else:
        row = _AUTHENTICATED.one(conn, {"session": session_id, "user": user_id})
    return users.role_in(row) if row else None


def alive(conn: Connection, session_ids: Collection[UUID]) -> dict[tuple[UUID, UUID], Role]:
    """Those of the sessions that are alive and of active users, each with its user, and the role of that."""
    if not session_ids:
        return {}
    found = conn.execute(
        select(token_families.c.user_id, token_families.c.id, users_table.c.role)
        .join(users_table, users_table.c.id == token_families.c.user_id)
        .where(token_families.c.id.in_(session_ids), users_table.c.active, _ALIVE)
    )
    return {(row["user_id"], row["id"]): users.role_in(dict(row)) for row in found.mappings()}


def begin(conn: Connection, user_id: UUID, settings: Settings) -> Issued:
    """Insert a session of this user, used now by the context's client."""
    session = Issued(user_id, uuid7(), new_refresh_token())
    _add(conn, session, settings.refresh_family_ttl)
    _add_token(conn, session, None, settings)
    return session


def begin_in_browser(conn: Connection, user_id: UUID, settings: Settings) -> SignedIn:
    """Insert a session of this user that has a cookie, used now by the context's client."""
    session = SignedIn(user_id, uuid7(), new_refresh_token())
    seconds = min(settings.refresh_token_ttl, settings.refresh_family_ttl)
    _add(conn, session, seconds, cookie_hash=refresh_token_hash(session.cookie))
    return session


def of_cookie(conn: Connection, cookie: str, settings: Settings) -> Presented | None:
    """The session of a browser's cookie. None, unless it is alive and of an active user."""
    recent = token_families.c.last_used_at > now(-min(_USED_EVERY, settings.refresh_token_ttl / 10))
    found = conn.execute(
        select(token_families.c.user_id, token_families.c.id, users_table.c.role, recent.label("recent"))
        .join(users_table, users_table.c.id == token_families.c.user_id)
        .where(token_families.c.cookie_hash == refresh_token_hash(cookie), users_table.c.active, _ALIVE)
    ).one_or_none()
    return Presented(found.user_id, found.id, users.role_in(found._asdict()), bool(found.recent)) if found else None


def use_in_browser(conn: Connection, session_id: UUID, settings: Settings) -> None:
    """Record that the context's client uses the session now, which goes on as long as one that is refreshed."""
    last, usual = made_at(session_id) + timedelta(seconds=settings.refresh_family_ttl), now(settings.refresh_token_ttl)
    used = {"expires_at": case((usual < last, usual), else_=last), **_use()}
    conn.execute(update(token_families).where(by_id(session_id), _ALIVE).values(used))


def rotate(conn: Connection, presented: str, settings: Settings) -> Issued | None:
    """Exchange a refresh token for its child by one conditional UPDATE. None: it is not valid.

    Until the child is rotated itself, the parent may be presented again for a moment, because two tabs refresh at once,
    or a response was lost. It then gets the same child: a second one could be a thief's, and nobody would notice.
    """
    child = refresh_tokens.alias("child")
    child_rotated = select(child.c.id).where(child.c.parent_id == refresh_tokens.c.id, child.c.rotated_at.is_not(None))
    in_grace = and_(refresh_tokens.c.rotated_at > now(-settings.refresh_grace_seconds), ~child_rotated.exists())
    family_alive = (
        select(token_families.c.id)
        .join(users_table, users_table.c.id == token_families.c.user_id)
        .where(token_families.c.id == refresh_tokens.c.family_id, users_table.c.active, _ALIVE)
    )
    parent = conn.execute(
        update(refresh_tokens)
        .where(
            refresh_tokens.c.token_hash == refresh_token_hash(presented),
            refresh_tokens.c.expires_at > now(),
            or_(refresh_tokens.c.rotated_at.is_(None), in_grace),
            family_alive.exists(),
        )
        .values(
            rotated_at=func.coalesce(refresh_tokens.c.rotated_at, now()),
            # A token that a process of the release before has rotated gets its seed when it is presented again.
            child_seed=func.coalesce(refresh_tokens.c.child_seed, new_child_seed()),
        )
        .returning(refresh_tokens.c.id, refresh_tokens.c.family_id, refresh_tokens.c.child_seed)
    ).one_or_none()
    if parent is None:
        return None
    # Whoever ends the session at the same time has changed this row too: one of the two transactions is run again.
    used = update(token_families).where(token_families.c.id == parent.family_id).values(**_use())
    user_id = conn.scalars(used.returning(token_families.c.user_id)).one()
    session = Issued(user_id, parent.family_id, child_refresh_token(presented, parent.child_seed))
    _add_token(conn, session, parent.id, settings)
    return session


def of_token(conn: Connection, presented: str, *, rotated: bool = False) -> UUID | None:
    """The session of a refresh token that is known and, if asked for, was `rotated`."""
    query = select(refresh_tokens.c.family_id).where(refresh_tokens.c.token_hash == refresh_token_hash(presented))
    return conn.scalar(query.where(refresh_tokens.c.rotated_at.is_not(None)) if rotated else query)


def end(conn: Connection, *which: ColumnElement[bool]) -> Sequence[Ended]:
    """End the sessions `which` are not ended yet, and return them. They are forgotten at the next upkeep."""
    ended = (
        update(token_families)
        .where(*which, token_families.c.revoked_at.is_(None))
        .values(revoked_at=now(), expires_at=now())
        .returning(token_families.c.id, token_families.c.user_id)
    )
    return [Ended(row.id, row.user_id) for row in conn.execute(ended)]


def by_id(session_id: UUID) -> ColumnElement[bool]:
    """For `end`: the one session."""
    return token_families.c.id == session_id


def of_user(user_id: UUID, *, but: UUID | None = None) -> ColumnElement[bool]:
    """For `end`: all sessions of a user, `but` for one if it is given."""
    condition: ColumnElement[bool] = token_families.c.user_id == user_id
    return condition if but is None else and_(condition, token_families.c.id != but)


def page(conn: Connection, user_id: UUID, current: UUID | None, after: UUID | None, limit: int) -> list[Session]:
    """Up to `limit` sessions of a user that are alive, the latest login first, from the one `after` on."""
    query = select(token_families).where(token_families.c.user_id == user_id, _ALIVE)
    if after is not None:
        query = query.where(token_families.c.id < after)
    rows = conn.execute(query.order_by(token_families.c.id.desc()).limit(limit))
    return [
        Session(
            id=row.id,
            created_at=made_at(row.id),
            last_used_at=row.last_used_at,
            user_agent=row.user_agent,
            client=row.address,
            current=row.id == current,
            expires_at=row.expires_at,
        )
        for row in rows
    ]


async def forget_expired(db: Database, kept: float) -> None:
    """Delete sessions that were ended, or are past their absolute expiry, with their tokens, however many they are.

    Also deleted are the tokens that expired `kept` seconds ago, and the sessions that have no other: that long, access
    tokens are good for which they were exchanged.
    """
    expiry = token_families.c.expires_at
    while await db.write(lambda conn: _remove_batch(conn, expiry <= now(), oldest=expiry)):
        pass
    while await db.write(partial(_remove_expired_tokens, kept=kept)):
        pass


def _remove_expired_tokens(conn: Connection, kept: float) -> bool:
    """Whether there may be more."""
    expiry, family_id = refresh_tokens.c.expires_at, refresh_tokens.c.family_id
    gone = delete_batch(conn, refresh_tokens, expiry <= now(-kept), oldest=expiry, returning=(family_id,))
    families = {row.family_id for row in gone}
    empty = ~select(family_id).where(family_id == token_families.c.id).correlate(token_families).exists()
    conn.execute(delete(token_families).where(token_families.c.id.in_(families), empty))
    return bool(gone)


def remove_of_user(conn: Connection, user_id: UUID) -> bool:
    """Delete a batch of a user's sessions and tokens. Whether there may be more."""
    return _remove_batch(conn, token_families.c.user_id == user_id, oldest=None)


def _remove_batch(conn: Connection, which: ColumnElement[bool], oldest: Column[datetime] | None) -> bool:
    """Whether there may be more. A family may have thousands of tokens, so these are not left to the cascade."""
    id_, family_id = token_families.c.id, refresh_tokens.c.family_id
    of_family = family_id == id_
    tokens = delete_batch(conn, refresh_tokens, which, of_family, oldest=oldest, returning=(family_id,))
    empty = ~select(family_id).where(of_family).correlate(token_families).exists()
    return bool(delete_batch(conn, token_families, which, empty, oldest=oldest, returning=(id_,)) or tokens)


def _use() -> dict[str, object]:
    """Columns that say by whom the session is used now."""
    address = context.client.get()
    return {
        "last_used_at": now(),
        "address": address and address[:_MAX_ADDRESS],
        "user_agent": context.user_agent.get(),
    }


def _add(conn: Connection, session: Issued | SignedIn, seconds: float, **values: object) -> None:
    """Insert a session that ends after so many seconds."""
    row = {"id": session.session_id, "user_id": session.user_id, "expires_at": now(seconds), **_use(), **values}
    conn.execute(insert(token_families).values(row))


def _add_token(conn: Connection, session: Issued, parent_id: UUID | None, settings: Settings) -> None:
    """Insert the session's refresh token, unless it is there: it is a child that was handed out before."""
    row = {
        "id": uuid7(),
        "family_id": session.session_id,
        "parent_id": parent_id,
        "token_hash": refresh_token_hash(session.refresh_token),
        "expires_at": now(settings.refresh_token_ttl),
    }
    conn.execute(insert_on_conflict(conn, refresh_tokens).values(row).on_conflict_do_nothing())
