"""The Idempotency-Key mechanism (draft-ietf-httpapi-idempotency-key-header), for any route.

A key belongs to a user. Its record is written in the transaction of the work that it protects, so it exists exactly
when the work was done. Only successful responses are stored: a refused request may be corrected and sent again.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any
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
    Row,
    String,
    Table,
    Uuid,
    bindparam,
    delete,
    select,
)

from app.database import (
    Database,
    Prepared,
    UTCDateTime,
    delete_batch,
    insert_on_conflict,
    insert_or_replace,
    metadata,
    now,
)
from app.errors import IdempotencyKeyReused, MalformedIdempotencyKey, RequestInProgress
from app.web.describe import header

records = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    # Until the work is done, the record only reserves the key for `holder` until `expires_at`.
    Column("holder", Uuid),
    Column("fingerprint", String(64)),
    Column("status", Integer),
    Column("location", String(255)),
    Column("body", LargeBinary),
    Column("expires_at", UTCDateTime, nullable=False),
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
    replayed: bool = False

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The HTTP response. `headers` are those that are true now and not part of what was stored."""
        replayed = {"Idempotent-Replayed": "true"} if self.replayed else {}
        sent = {"Location": self.location, **replayed, **(headers or {})}
        return Response(self.body, self.status, sent, "application/json")


@dataclass(frozen=True, slots=True)
class KeyScope:
    """An Idempotency-Key of one user. `ttl` is how long its response is kept, in seconds."""

    user_id: UUID
    key: str
    ttl: float


def fingerprint(method: str, path: str, body: Any) -> str:
    """SHA-256, in hex, of method, path and the canonical form of a JSON-like body."""
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\0".join((method.encode(), path.encode(), canonical))).hexdigest()


def reserve(conn: Connection, scope: KeyScope, holder: UUID, seconds: float) -> None:
    """Reserve the key for `holder`, so that the same long request does not start twice.

    The reservation only spares work: `lookup` and `store` decide, in the transaction of the work itself. A finished
    record is left as it is. Raises RequestInProgress while another holder has the key.
    """
    insert = insert_on_conflict(records).values(
        user_id=scope.user_id, key=scope.key, holder=holder, expires_at=now(seconds)
    )
    insert = insert.on_conflict_do_update(
        index_elements=["user_id", "key"],
        set_={name: insert.excluded[name] for name in ("holder", "expires_at")}
        | dict.fromkeys(("fingerprint", "status", "location", "body")),
        where=records.c.expires_at <= now(),
    )
    if conn.execute(insert).rowcount == 0:
        unfinished = conn.scalar(select(records.c.status.is_(None)).where(*_is(scope)))
        if unfinished:
            raise RequestInProgress


def release(conn: Connection, scope: KeyScope, holder: UUID) -> None:
    """Release a reservation whose work was not done."""
    conn.execute(delete(records).where(*_is(scope), records.c.holder == holder, records.c.status.is_(None)))


_LOOKUP = Prepared(
    select(records).where(
        records.c.user_id == bindparam("user"), records.c.key == bindparam("sent"), records.c.expires_at > now()
    )
)


def lookup(conn: Connection, scope: KeyScope, fingerprint: str, *, reserved: bool = False) -> StoredResponse | None:
    """The stored response to this request, or None when the request is new.

    `reserved`: the caller has already done the long work under a reservation, and the first to commit wins.
    Raises IdempotencyKeyReused for another request under the same key, RequestInProgress while another holds the key.
    """
    row = _LOOKUP.one(conn, {"user": scope.user_id, "sent": scope.key})
    if row is None or (row["status"] is None and reserved):
        return None
    if row["status"] is None:
        raise RequestInProgress
    if row["fingerprint"] != fingerprint:
        raise IdempotencyKeyReused
    return StoredResponse(row["status"], row["body"], row["location"], replayed=True)


_STORE = insert_or_replace(records, expires_at=now(bindparam("ttl", type_=Float)))


def store(conn: Connection, scope: KeyScope, fingerprint: str, response: StoredResponse) -> None:
    """Store the response, in the transaction of its work."""
    values = {
        "user_id": scope.user_id,
        "key": scope.key,
        "fingerprint": fingerprint,
        "status": response.status,
        "location": response.location,
        "body": response.body,
        "ttl": scope.ttl,
    }
    _STORE.count(conn, values)


async def forget_expired(db: Database) -> None:
    """Delete what has expired, however much it is."""
    since = None
    while gone := await db.write(partial(_forget_some, since=since)):
        since = max(row.expires_at for row in gone)


def _forget_some(conn: Connection, since: datetime | None) -> list[Row[Any]]:
    """Records that expired at `since` or later. Earlier ones are gone, but an index that other transactions still need
    as it was would be read through from its beginning for each batch."""
    due = [records.c.expires_at <= now()] + ([records.c.expires_at >= since] if since else [])
    return delete_batch(conn, records, *due, oldest=records.c.expires_at)


def _is(scope: KeyScope) -> tuple[Any, Any]:
    return records.c.user_id == scope.user_id, records.c.key == scope.key


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
