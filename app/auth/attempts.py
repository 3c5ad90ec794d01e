"""Failed logins slow down the next ones: exact over all processes, because the database counts them.

For an account, failures from one address cost pauses that double; failures from one address for all accounts have a
cap. Somebody who fails elsewhere keeps nobody out: another address has its own pauses, and sessions go on (OWASP
Authentication Cheat Sheet, "Account Lockout").
"""

import hashlib
import hmac
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Float, Index, Integer, LargeBinary, Table, bindparam, delete, select

from app.database import (
    Database,
    Prepared,
    UTCDateTime,
    delete_expired,
    insert_or_replace,
    metadata,
    now,
    unix_time,
)
from app.errors import LoginThrottled
from app.web.client import client_key

FREE = 5  # failures without a pause
LONGEST_PAUSE = 900.0  # seconds
ADDRESS_FAILURES = 100  # of one address, in …
ADDRESS_WINDOW = 900.0  # … seconds
FORGET = 86400.0  # seconds after the last failure

login_attempts = Table(
    "login_attempts",
    metadata,
    # A keyed hash: neither an email nor an address can be read out of it.
    Column("key", LargeBinary(32), primary_key=True),
    Column("failures", Integer, nullable=False),
    # Until when no further attempt is answered. For an address: when its count begins anew.
    Column("until", UTCDateTime, nullable=False),
    Column("expires_at", UTCDateTime, nullable=False),
    Index(None, "expires_at"),
)

_FIND = Prepared(
    select(
        login_attempts.c.failures,
        (unix_time(login_attempts.c.until) - unix_time(now())).label("wait"),
    ).where(login_attempts.c.key == bindparam("of"), login_attempts.c.expires_at > now())
)
_STORE = insert_or_replace(
    login_attempts, until=now(bindparam("pause", type_=Float)), expires_at=now(bindparam("ttl", type_=Float))
)
_FORGET = Prepared(delete(login_attempts).where(login_attempts.c.key == bindparam("of")))


class Attempt(NamedTuple):
    """An attempt to log in to an account from an address, by the keys that failures are counted under."""

    account: bytes
    address: bytes


class Attempts:
    """Makes the keys. The `secret` keeps who reads the database from trying out addresses."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"login-attempts", hashlib.sha256)

    def to(self, email: str) -> Attempt:
        """The current request's attempt to log in to an account."""
        client = client_key()
        return Attempt(self._hashed(f"account\0{email}\0{client}"), self._hashed(f"address\0{client}"))

    def _hashed(self, named: str) -> bytes:
        return hmac.digest(self._key, named.encode(), hashlib.sha256)


def check(conn: Connection, attempt: Attempt) -> None:
    """Raise LoginThrottled while a pause lasts."""
    account, address = _found(conn, attempt.account), _found(conn, attempt.address)
    wait = max(account.wait, address.wait if address.failures >= ADDRESS_FAILURES else 0.0)
    if wait > 0:
        raise LoginThrottled(headers={"Retry-After": str(int(wait) + 1)})


def failed(conn: Connection, attempt: Attempt) -> None:
    """Count a failure, in a transaction that has called `check`."""
    failures = _found(conn, attempt.account).failures + 1
    pause = min(2.0 ** (failures - FREE), LONGEST_PAUSE) if failures > FREE else 0.0
    _store(conn, attempt.account, failures, pause, FORGET)
    address = _found(conn, attempt.address)
    window = address.wait if address.wait > 0 else ADDRESS_WINDOW
    _store(conn, attempt.address, address.failures + 1 if address.wait > 0 else 1, window, window)


def succeeded(conn: Connection, attempt: Attempt) -> None:
    """Forget the failures for this account from this address, in a transaction that has called `check`."""
    _FORGET.count(conn, {"of": attempt.account})


async def forget_expired(db: Database) -> None:
    """Delete what has expired, however much it is."""
    await delete_expired(db, login_attempts.c.expires_at)


class _Failures(NamedTuple):
    failures: int
    wait: float  # seconds


def _found(conn: Connection, key: bytes) -> _Failures:
    row = _FIND.one(conn, {"of": key})
    return _Failures(row["failures"], row["wait"]) if row else _Failures(0, 0.0)


def _store(conn: Connection, key: bytes, failures: int, pause: float, ttl: float) -> None:
    values: dict[str, Any] = {"key": key, "failures": failures, "pause": pause, "ttl": ttl}
    _STORE[conn.dialect.name].count(conn, values)
