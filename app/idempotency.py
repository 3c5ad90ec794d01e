"""The Idempotency-Key mechanism (draft-ietf-httpapi-idempotency-key-header), for any route.

A key belongs to a user. Its record is written in the transaction of the work that it guards, so a key is remembered
exactly when the work happened. Only successes are remembered: a refused request may be corrected and sent again.
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
    insert_or_replace,
    insert_unless,
    metadata,
    now,
)
from app.errors import IdempotencyKeyReused, MalformedIdempotencyKey, RequestInProgress

records = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(255), primary_key=True),
    # Until the work is done the record only reserves the key, for `holder`, until `expires_at`.
    Column("holder", Uuid),
    Column("fingerprint", String(64)),
    Column("status", Integer),
    Column("location", String(255)),
    Column("body", LargeBinary),
    Column("expires_at", UTCDateTime, nullable=False),
    Index(None, "expires_at"),
)

_BARE = re.compile(r"[\x21\x23-\x7e][\x20-\x7e]{0,254}")
_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered, to the byte, so that a replay is the same."""

    status: int
    body: bytes
    location: str
    replayed: bool = False

    def response(self, headers: Mapping[str, str] | None = None) -> Response:
        """The answer on the wire. `headers` are those that describe now, not the stored answer."""
        replayed = {"Idempotent-Replayed": "true"} if self.replayed else {}
        sent = {"Location": self.location, **replayed, **(headers or {})}
        return Response(self.body, self.status, sent, "application/json")


@dataclass(frozen=True, slots=True)
class Guard:
    """One request under a key: who sent it, and for how long its answer is kept (seconds)."""

    user_id: UUID
    key: str
    ttl: float


def fingerprint(method: str, path: str, body: Any) -> str:
    """SHA-256 over method, path and the canonical form of a JSON-like body."""
    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\0".join((method.encode(), path.encode(), canonical))).hexdigest()


def reserve(conn: Connection, guard: Guard, holder: UUID, seconds: float) -> None:
    """Keep others from starting the same long request while `holder` works on it.

    Only a courtesy with a time limit: `recall` and `remember` decide in the transaction of the work itself.
    Raises RequestInProgress while somebody else holds the key. A finished record is left alone.
    """
    insert = insert_unless(conn, records).values(
        user_id=guard.user_id, key=guard.key, holder=holder, expires_at=now(seconds)
    )
    insert = insert.on_conflict_do_update(
        index_elements=["user_id", "key"],
        set_={name: insert.excluded[name] for name in ("holder", "expires_at")}
        | dict.fromkeys(("fingerprint", "status", "location", "body")),
        where=records.c.expires_at <= now(),
    )
    if conn.execute(insert).rowcount == 0:
        held = conn.scalar(select(records.c.status.is_(None)).where(*_of(guard)))
        if held:
            raise RequestInProgress


def release(conn: Connection, guard: Guard, holder: UUID) -> None:
    """Give up a reservation whose work did not happen."""
    conn.execute(delete(records).where(*_of(guard), records.c.holder == holder, records.c.status.is_(None)))


_RECALL = Prepared(
    select(records).where(
        records.c.user_id == bindparam("user"), records.c.key == bindparam("sent"), records.c.expires_at > now()
    )
)


def recall(conn: Connection, guard: Guard, print_: str, *, reserved: bool = False) -> Answer | None:
    """The remembered answer to this very request, or None when it is new.

    Raises IdempotencyKeyReused when the key stands for another request, RequestInProgress while another holds it.
    With `reserved` the caller has done the long work under a reservation: of those, the first to commit wins.
    """
    row = _RECALL.one(conn, {"user": guard.user_id, "sent": guard.key})
    if row is None or (row["status"] is None and reserved):
        return None
    if row["status"] is None:
        raise RequestInProgress
    if row["fingerprint"] != print_:
        raise IdempotencyKeyReused
    return Answer(row["status"], row["body"], row["location"], replayed=True)


_REMEMBER = insert_or_replace(records, expires_at=now(bindparam("ttl", type_=Float)))


def remember(conn: Connection, guard: Guard, print_: str, answer: Answer) -> None:
    """Record the answer in the transaction of its work."""
    values = {
        "user_id": guard.user_id,
        "key": guard.key,
        "fingerprint": print_,
        "status": answer.status,
        "location": answer.location,
        "body": answer.body,
        "ttl": guard.ttl,
    }
    _REMEMBER[conn.dialect.name].count(conn, values)


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


def _of(guard: Guard) -> tuple[Any, Any]:
    return records.c.user_id == guard.user_id, records.c.key == guard.key


def _key(
    request: Request,
    _documented: Annotated[
        str | SkipJsonSchema[None],
        Header(
            alias="Idempotency-Key",
            description="1–255 printable ASCII characters, bare or as a quoted string. A repeated request with the "
            "same key gets the first answer again, while the key is remembered.",
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
