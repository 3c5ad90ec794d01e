"""Secrets that must be read again, such as those that sign webhooks: encrypted with Fernet (AES-CBC and HMAC).

What is only compared, such as a password or a token, is stored as a hash instead.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy import Column, Connection, Row, or_, select, update

from app.database import Database
from app.errors import ConfigurationError, EncryptionKeyMissing
from app.settings.generated import generated

_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_BATCH = 500  # rows; to encrypt those again takes 0.1 s


class Encryption:
    """Encrypts with the first of the keys, and decrypts with all."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not all(_KEY.fullmatch(key) for key in keys):  # Fernet ignores what follows a key, such as another one
            raise ConfigurationError("ENCRYPTION_KEYS: each key must be 32 bytes as base64url, 44 characters")
        self._keys = [Fernet(key) for key in keys]

    def encrypt(self, secret: bytes) -> bytes:
        """What to store of a secret. Raises EncryptionKeyMissing when there is no key at all."""
        if not self._keys:
            raise EncryptionKeyMissing
        return self._keys[0].encrypt(secret)

    def decrypt(self, stored: bytes) -> bytes:
        """The secret. Raises EncryptionKeyMissing unless one of the keys has encrypted it."""
        return self._decrypt(stored, self._keys)

    def rotate(self, stored: bytes) -> bytes:
        """The secret encrypted with the first key: `stored` itself if it is already. Raises EncryptionKeyMissing."""
        try:
            self._decrypt(stored, self._keys[:1])
        except EncryptionKeyMissing:
            return self.encrypt(self.decrypt(stored))
        return stored

    def _decrypt(self, stored: bytes, keys: Sequence[Fernet]) -> bytes:
        try:
            return MultiFernet(keys).decrypt(stored)
        except (InvalidToken, ValueError):  # without a key, it is a ValueError
            raise EncryptionKeyMissing from None


def development_keys(data_dir: Path) -> list[str]:
    """The keys of a development server."""
    return [generated(data_dir / "encryption-keys", lambda: Fernet.generate_key().decode())]


class Encrypted(NamedTuple):
    """The columns of a table that hold encrypted secrets or NULL, and the column that its rows are told apart by."""

    key: Column[Any]
    secrets: tuple[Column[Any], ...]


class Rotated(NamedTuple):
    """How many secrets were encrypted again, and how many could not be: no key decrypts them."""

    changed: int
    unreadable: int


async def rotate(db: Database, encryption: Encryption, tables: Sequence[Encrypted]) -> Rotated:
    """Encrypt again what is stored under other keys than the first. May be repeated, also after an interruption."""
    changed = unreadable = 0
    for table in tables:
        last = None
        while rows := await db.read(partial(_stored, table=table, after=last)):
            changes = list(_changes(encryption, table, rows))
            unreadable += sum(new is None for _, _, _, new in changes)
            changed += await db.write(partial(_replace, table=table, changes=changes))
            last = rows[-1][0]
    return Rotated(changed, unreadable)


_Change = tuple[Any, Column[Any], bytes, bytes | None]


def _stored(conn: Connection, table: Encrypted, after: Any) -> Sequence[Row[Any]]:
    held = or_(*(column.is_not(None) for column in table.secrets))
    rows = select(table.key, *table.secrets).where(held).order_by(table.key).limit(_BATCH)
    return conn.execute(rows if after is None else rows.where(table.key > after)).all()


def _changes(encryption: Encryption, table: Encrypted, rows: Sequence[Row[Any]]) -> Iterator[_Change]:
    """The secrets that are not under the first key: their row, column, and what is stored and shall be."""
    for row in rows:
        for column, stored in zip(table.secrets, tuple(row)[1:], strict=True):
            try:
                new = encryption.rotate(stored) if stored else stored
            except EncryptionKeyMissing:
                new = None
            if new != stored:
                yield row[0], column, stored, new


def _replace(conn: Connection, table: Encrypted, changes: Sequence[_Change]) -> int:
    """Replace what is still stored as it was read: a secret that was changed meanwhile is left alone."""
    replaced = 0
    for key, column, old, new in changes:
        if new is not None:
            statement = update(column.table).where(table.key == key, column == old).values({column: new})
            replaced += conn.execute(statement).rowcount
    return replaced
