"""The Idempotency-Key mechanism (draft-ietf-httpapi-idempotency-key-header), for any route.

A key belongs to a user. Its record is written in the transaction of the work that it protects, so it exists exactly
when the work was done. Only successful responses are stored: a refused request may be corrected and sent again.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import orjson
from fastapi import Depends, Header, Request, Response
from pydantic.json_schema import SkipJsonSchema
from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Uuid,
    bindparam,
    delete,
    func,
    or_,
    select,
)

from app.database import (
    Database,
    Prepared,
    Retry,
    UTCDateTime,
    delete_batch,
    delete_expired,
    insert_or_replace,
    metadata,
    now,
)
from app.errors import IdempotencyKeyReused, MalformedIdempotencyKey, RequestInProgress
from app.telemetry import context
from app.web.describe import header

records = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    # Processes of the revision before write a row without a status, which only reserves the key.
    Column("fingerprint", String(64)),
    Column("status", Integer),
    Column("location", String(255)),
    Column("body", LargeBinary),
    Column("expires_at", UTCDateTime, nullable=False),
    # What the response is about: its record goes with it.
    Column("document_id", Uuid, ForeignKey("documents.id", ondelete="CASCADE"), index=True),
    Index(None, "expires_at"),
)

HEADERS = {"Idempotent-Replayed": header("`true` when this is the stored response to an earlier request.", "true")}

_BARE = re.compile(r"[\x21\x23-\x7e][\x20-\x7e]{0,254}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is stored with its key, so that a replay is the same to the byte."""

    status: int
    body: bytes
    location: str
    document_id: UUID | None = None
    replayed: bool = False

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The HTTP response. `headers` are those that are true now and not part of what was stored."""
        replayed = {"Idempotent-Replayed": "true"} if self.replayed else {}
        sent = {"Location": context.prefix.get() + self.location, **replayed, **(headers or {})}
        return Response(self.body, self.status, sent, "application/json")


Work: TypeAlias = Callable[[Connection], StoredResponse]
"""What a request has done, in a transaction."""


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request that its user sent with an Idempotency-Key. Its response is kept for `ttl` seconds.

    `fingerprint`: SHA-256, in hex, of what makes it the same request.
    """

    user_id: UUID
    key: str
    fingerprint: str
    ttl: float


def keyed(user_id: UUID, key: str | None, ttl: float, method: str, path: str, body: Any) -> KeyedRequest | None:
    """The request, if it has a key. Method, path and the canonical form of a JSON-like body are its fingerprint."""
    if key is None:
        return None
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    fingerprint = hashlib.sha256(b"\0".join((method.encode(), path.encode(), canonical))).hexdigest()
    return KeyedRequest(user_id, key, fingerprint, ttl)


def part_of(key: str | None, number: int) -> str | None:
    """The key of a part of the request, counted from 0, if each is a transaction of its own. No client can send one but
    the first, which is the key itself."""
    return f"{hashlib.sha256(key.encode()).hexdigest()}\x1f{number}" if key and number else key


_LOOKUP = Prepared(
    select(records).where(
        records.c.user_id == bindparam("user"),
        records.c.key == bindparam("sent"),
        records.c.expires_at > now(),
        records.c.status.is_not(None),
    )
)
# Not one that another unit has stored since the lookup.
_STORE = insert_or_replace(
    records,
    only_if=or_(records.c.expires_at <= now(), records.c.status.is_(None)),
    expires_at=now(bindparam("ttl", type_=Float)),
)


def once(conn: Connection, request: KeyedRequest | None, work: Work) -> StoredResponse:
    """Do the work in this transaction and store its response; or return the response stored for the same request.

    Of requests that arrive at the same time, the first to commit does its work, and the others replay its response.
    Without a `request` there was no key, and the work is always done. Raises IdempotencyKeyReused for another request
    under the same key.
    """
    if request is None:
        return work(conn)
    row = _LOOKUP.one(conn, {"user": request.user_id, "sent": request.key})
    if row is None:
        response = work(conn)
        sent = {each.name: getattr(request, each.name) for each in fields(request)}
        done = {name: getattr(response, name) for name in ("status", "location", "body", "document_id")}
        if not _STORE[conn.dialect.name].count(conn, sent | done):
            raise Retry
        return response
    if row["fingerprint"] != request.fingerprint:
        raise IdempotencyKeyReused
    return StoredResponse(row["status"], row["body"], row["location"], replayed=True)


class InProgress:
    """The keys whose requests this process is receiving. Spares it from receiving the same file twice at once."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._keys: set[tuple[UUID, str | None]] = set()

    @asynccontextmanager
    async def hold(self, user_id: UUID, key: str | None) -> AsyncIterator[None]:
        """Hold the key, if there is one, for as long as the block lasts.

        Raises RequestInProgress if it is held, unless its request is done: that may be replayed any number of times.
        """
        held = (user_id, key)
        if key is None or (held in self._keys and await self.is_done(user_id, key)):
            yield
            return
        if held in self._keys:
            raise RequestInProgress
        self._keys.add(held)
        try:
            yield
        finally:
            self._keys.remove(held)

    async def is_done(self, user_id: UUID, key: str) -> bool:
        """Whether a request with this key is done, and may be replayed."""
        return await self._db.read(partial(_LOOKUP.one, values={"user": user_id, "sent": key})) is not None


def forget_user(conn: Connection, user_id: UUID) -> bool:
    """Delete a batch of what is stored for a user. Whether there may be more."""
    user = records.c.user_id
    return bool(delete_batch(conn, records, user == user_id, oldest=None, returning=(user,)))


async def forget_expired(db: Database) -> None:
    """Delete what has expired, however much it is."""
    await delete_expired(db, records.c.expires_at)


def forget_documents(conn: Connection, document_ids: Collection[UUID]) -> None:
    """Delete the records of responses about documents that are not to be seen any more."""
    conn.execute(delete(records).where(records.c.document_id.in_(document_ids)))


async def forget_beyond_limit(db: Database, limit: int) -> None:
    """Delete the oldest records of users who have more than `limit`: one for each request can be 20 kB.

    A request that is sent again is sent soon: whoever makes so many has long had the answers to the first.
    """
    counted = select(records.c.user_id).group_by(records.c.user_id).having(func.count() > limit)
    for user_id in await db.read(lambda conn: conn.scalars(counted).all()):
        while await db.write(partial(_forget_oldest, user_id=user_id, limit=limit)):
            pass


def _forget_oldest(conn: Connection, user_id: UUID, limit: int) -> bool:
    """Whether there may be more."""
    expiry, own = records.c.expires_at, records.c.user_id == user_id
    newest = select(expiry).where(own).order_by(expiry.desc())
    last_kept = conn.scalar(newest.offset(limit).limit(1))
    if last_kept is None:
        return False
    return bool(delete_batch(conn, records, own, expiry <= last_kept, oldest=expiry))


def _key(
    request: Request,
    _documented: Annotated[
        str | SkipJsonSchema[None],
        Header(
            alias="Idempotency-Key",
            description="1–255 printable ASCII characters, bare or as a quoted string. A repeated request with the "
            "same key gets the first response again for as long as the key is kept.",
            json_schema_extra={"pattern": f"^({_BARE.pattern}|{_QUOTED.pattern})$"},
        ),
    ] = None,
) -> str | None:
    """Parse the header: bare, or an sf-string (RFC 8941 §3.3.3). Raises MalformedIdempotencyKey."""
    sent = request.headers.getlist("idempotency-key")
    if not sent:
        return None
    if len(sent) > 1:
        raise MalformedIdempotencyKey
    value = sent[0]
    if quoted := _QUOTED.fullmatch(value):
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if not _BARE.fullmatch(value):
        raise MalformedIdempotencyKey
    return value


IdempotencyKey = Annotated[str | None, Depends(_key)]
