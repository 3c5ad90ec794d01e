"""The MACs of events and of their seals: without the key, nobody can make one for what they have changed."""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Connection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SIGNED = itemgetter("id", "event", "actor", "request_id", "user_id", "document_id", "job_id", "ip", "credential_id")


def keys_of(conn: Connection) -> Sequence[bytes]:
    """The keys of the current unit's database: the first signs, and all verify."""
    keys: Sequence[bytes] = conn.get_execution_options().get("audit_keys", ())
    return keys


def key_id(key: bytes) -> str:
    """What a seal calls its key: eight hex digits that do not reveal it."""
    return hashlib.sha256(key).hexdigest()[:8]


def sign(key: bytes, message: bytes) -> bytes:
    """The MAC of a message: HMAC-SHA256."""
    mac = _begun(key).copy()
    mac.update(message)
    return mac.digest()


@lru_cache(16)
def _begun(key: bytes) -> hmac.HMAC:
    """To be copied: half of the work is done once for all messages."""
    return hmac.new(key, digestmod="sha256")


def mac_of(key: bytes, row: Mapping[str, Any]) -> bytes:
    """The MAC of an event, by its columns. `seq` is none of them, which only the database knows."""
    return sign(key, encoded([microseconds(row["at"]), *_SIGNED(row), _canonical(row["data"])]))


def encoded(values: Sequence[Any]) -> bytes:
    """JSON that is the same whichever database the values come from."""
    try:
        return orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # what orjson refuses, but a JSON column can hold: lone surrogates, and integers of over 64 bits
        return json.dumps(values, sort_keys=True, default=str).encode()


def microseconds(moment: datetime) -> int:
    """A moment as an integer, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def _canonical(value: Any) -> Any:
    """A value of JSON with its numbers in one form: a whole number may come back as 1 or as 1.0."""
    kind = type(value)
    if kind is float:
        return int(value) if value.is_integer() else value
    if kind is dict:
        return {name: _canonical(each) for name, each in value.items()}
    return [_canonical(each) for each in value] if kind is list else value
