"""SQL on API keys and their secrets. Functions run inside the caller's transaction."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Float, Select, and_, bindparam, delete, func, insert, or_, select, update
from uuid_utils.compat import uuid7

from app import errors
from app.auth import users
from app.auth.keys.schemas import ApiKey, NewApiKey
from app.auth.keys.text import key_hash, shown
from app.auth.models import api_key_secrets, api_keys, users as users_table
from app.auth.principal import SCOPES_OF, Principal, Scope
from app.database import Database, Prepared, delete_batch, delete_expired, in_batch, now
from app.events.catalogue.accounts import KeyExpiring, KeyRevoked
from app.telemetry import context

EXPIRES_SOON = 7 * 86400.0  # seconds
KEPT = 30 * 86400.0  # seconds that a key is remembered which has expired or was revoked

_AUTHENTICATED = Prepared(
    select(
        api_keys.c.id,
        api_keys.c.owner_id,
        api_keys.c.scopes,
        (api_keys.c.expires_at <= now()).label("has_expired"),
        users_table.c.role,
    )
    .select_from(api_key_secrets)
    .join(api_keys, api_keys.c.id == api_key_secrets.c.key_id)
    .join(users_table, users_table.c.id == api_keys.c.owner_id)
    .where(
        api_key_secrets.c.hash == bindparam("secret_hash"),
        or_(api_key_secrets.c.expires_at.is_(None), api_key_secrets.c.expires_at > now()),
        api_keys.c.revoked_at.is_(None),
        users_table.c.active,
    )
)
_GOOD = Prepared(
    select(api_keys.c.scopes, users_table.c.role)
    .join(users_table, users_table.c.id == api_keys.c.owner_id)
    .where(
        api_keys.c.id == bindparam("key"),
        api_keys.c.owner_id == bindparam("owner"),
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now()),
        users_table.c.active,
    )
)
_present, _previous = api_key_secrets.alias("present"), api_key_secrets.alias("previous")
_KEYS = (
    select(
        api_keys,
        _present.c.last4,
        _present.c.created_at.label("rotated_at"),
        _previous.c.expires_at.label("previous_valid_until"),
    )
    .join(_present, and_(_present.c.key_id == api_keys.c.id, _present.c.expires_at.is_(None)))
    .outerjoin(_previous, and_(_previous.c.key_id == api_keys.c.id, _previous.c.expires_at > now()))
    .where(api_keys.c.revoked_at.is_(None))
)
_last_used_at = now(bindparam("seconds", type_=Float))
_NOTE_USE = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("key_id"),
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < _last_used_at),
    )
    .values(last_used_at=_last_used_at, last_used_ip=bindparam("address"))
)


def authenticated(conn: Connection, secret_hash: bytes) -> Principal:
    """The principal of the key with this secret: it may do what the key may, as far as its owner may now.

    Raises InvalidToken, ApiKeyExpired.
    """
    row = _AUTHENTICATED.one(conn, {"secret_hash": secret_hash})
    if row is None:
        raise errors.InvalidToken
    if row["has_expired"]:
        raise errors.ApiKeyExpired
    scopes = SCOPES_OF[users.role_in(row)].intersection(row["scopes"])
    return Principal(row["owner_id"], context.key(row["id"]), scopes, "key", row["id"], secret_hash)


def scopes(conn: Connection, owner_id: UUID, key_id: UUID) -> frozenset[Scope] | None:
    """What the owner's key may do now, whatever its secret is. None: it is none, or not good any more."""
    row = _GOOD.one(conn, {"owner": owner_id, "key": key_id})
    return SCOPES_OF[users.role_in(row)].intersection(row["scopes"]) if row else None


def add(conn: Connection, owner_id: UUID, wanted: NewApiKey, expires_in: float | None, secret: str) -> ApiKey:
    """Insert a key with its secret. It expires after `expires_in` seconds, if that is given."""
    key_id, (prefix, _) = uuid7(), shown(secret)
    row = {"id": key_id, "owner_id": owner_id, "name": wanted.name, "scopes": wanted.scopes, "prefix": prefix}
    row |= {"created_at": now(), "expires_at": None if expires_in is None else now(expires_in)}
    conn.execute(insert(api_keys).values(row))
    _add_secret(conn, key_id, secret)
    return get(conn, owner_id, key_id)


def count(conn: Connection, owner_id: UUID) -> int:
    """How many keys the account has, those that have expired included."""
    own = select(func.count()).where(api_keys.c.owner_id == owner_id, api_keys.c.revoked_at.is_(None))
    return conn.scalar(own) or 0


def get(conn: Connection, owner_id: UUID, key_id: UUID) -> ApiKey:
    """The owner's key. Raises NotFound, also for a key that was revoked, or is another owner's."""
    row = conn.execute(_KEYS.where(api_keys.c.owner_id == owner_id, api_keys.c.id == key_id)).one_or_none()
    if row is None:
        raise errors.NotFound
    return ApiKey.model_validate(row)


def page(conn: Connection, owner_id: UUID, after: UUID | None, limit: int) -> list[ApiKey]:
    """Up to `limit` keys of an owner that were not revoked, the newest first, from the one `after` on."""
    query: Select[Any] = _KEYS.where(api_keys.c.owner_id == owner_id)
    if after is not None:
        query = query.where(api_keys.c.id < after)
    return [ApiKey.model_validate(row) for row in conn.execute(query.order_by(api_keys.c.id.desc()).limit(limit))]


def rotate(conn: Connection, key_id: UUID, secret: str, valid_for: float) -> bool:
    """Give the key another secret. The one before is good for `valid_for` more seconds, and those before it are not.

    Whether it was done: not for a key that has expired.
    """
    is_good = (api_keys.c.id == key_id, or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now()))
    prefix, _ = shown(secret)
    if not conn.execute(update(api_keys).where(*is_good).values(prefix=prefix)).rowcount:
        return False
    of_key, expiry = api_key_secrets.c.key_id == key_id, api_key_secrets.c.expires_at
    conn.execute(delete(api_key_secrets).where(of_key, expiry.is_not(None)))
    conn.execute(update(api_key_secrets).where(of_key).values(expires_at=now(valid_for)))
    _add_secret(conn, key_id, secret)
    return True


def revoke(conn: Connection, owner_id: UUID, *, only: UUID | None = None) -> int:
    """Revoke the keys of an owner, with an event for each. Returns how many there were."""
    which = [api_keys.c.owner_id == owner_id, api_keys.c.revoked_at.is_(None)] + (
        [api_keys.c.id == only] if only else []
    )
    revoked = update(api_keys).where(*which).values(revoked_at=now(), expires_at=now()).returning(api_keys.c.id)
    key_ids = conn.scalars(revoked).all()
    for key_id in key_ids:
        users.record(conn, KeyRevoked(key_id=str(key_id)), owner_id)
    return len(key_ids)


def note_uses(conn: Connection, uses: Sequence[Mapping[str, Any]]) -> None:
    """Store when and from where keys were used last, in one round trip, unless another process knows of a later use.

    `uses`: dictionaries of `key_id`, `seconds` from now (negative) and `address`.
    """
    conn.execute(_NOTE_USE, uses)


async def warn_of_expiry(db: Database) -> None:
    """Append an event for each key that expires within EXPIRES_SOON, once in its life."""
    while await db.write(_warn_some):
        pass


def _warn_some(conn: Connection) -> bool:
    """Whether there may be more."""
    expiry = api_keys.c.expires_at
    due = (expiry > now(), expiry <= now(EXPIRES_SOON), api_keys.c.warned_at.is_(None), api_keys.c.revoked_at.is_(None))
    batch = in_batch(conn, api_keys, *due, oldest=expiry)
    warned = update(api_keys).where(batch).values(warned_at=now()).returning(api_keys.c.id, api_keys.c.owner_id, expiry)
    rows = conn.execute(warned).all()
    for row in rows:
        event = KeyExpiring(key_id=str(row.id), expires_at=row.expires_at.isoformat())
        users.record(conn, event, row.owner_id)
    return bool(rows)


async def forget_expired(db: Database) -> None:
    """Delete keys that expired, or were revoked, KEPT seconds ago, with their secrets."""
    await delete_expired(db, api_keys.c.expires_at, kept=KEPT)


def remove_of_user(conn: Connection, user_id: UUID) -> bool:
    """Delete a batch of a user's keys. Whether there may be more."""
    return bool(delete_batch(conn, api_keys, api_keys.c.owner_id == user_id, oldest=None, returning=(api_keys.c.id,)))


def _add_secret(conn: Connection, key_id: UUID, secret: str) -> None:
    _, last4 = shown(secret)
    row = {"hash": key_hash(secret), "key_id": key_id, "last4": last4, "created_at": now()}
    conn.execute(insert(api_key_secrets).values(row))
