"""Secrets that must be read again: which key encrypts them, and how one key takes the place of another."""

import asyncio
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Column, Connection, Integer, LargeBinary, MetaData, Table, insert, select, update

from app import encryption as module, wiring
from app.encryption import Encrypted, Encryption, Rotated, development_keys, rotate
from app.errors import ConfigurationError, EncryptionKeyMissing
from app.settings import load
from app.wiring.encryption import encryption
from tests.support import databases
from tests.support.zygote import run

OLD, NEW, OTHER = (urlsafe_b64encode(byte * 32).decode() for byte in (b"o", b"n", b"x"))

own = MetaData()
hooks = Table(
    "hooks",
    own,
    Column("id", Integer, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("previous", LargeBinary),
)
HOOKS = Encrypted(hooks.c.id, (hooks.c.secret, hooks.c.previous))


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    stored = Encryption([OLD]).encrypt(b"secret")
    assert b"secret" not in stored
    both = Encryption([NEW, OLD])
    assert both.decrypt(stored) == b"secret"
    rotated = both.rotate(stored)
    assert Encryption([NEW]).decrypt(rotated) == b"secret"
    assert both.rotate(rotated) == rotated, "it is already under the first key"


@pytest.mark.parametrize("keys", [[], [OTHER]])
def test_without_its_key_a_secret_is_unreadable(keys: list[str]) -> None:
    stored = Encryption([OLD]).encrypt(b"secret")
    with pytest.raises(EncryptionKeyMissing):
        Encryption(keys).decrypt(stored)
    with pytest.raises(EncryptionKeyMissing):
        Encryption([]).encrypt(b"secret")


@pytest.mark.parametrize("key", ["", "short", OLD[:-2], f"{OLD}{OLD}", "ü" * 44])
def test_a_malformed_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^ENCRYPTION_KEYS: "):
        Encryption([OLD, key])


def test_a_malformed_key_ends_the_start(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path, encryption_keys=f"{OLD},s3cret")
    with pytest.raises(ConfigurationError) as refused:
        wiring.build(settings)
    assert str(refused.value) == "ENCRYPTION_KEYS: each key must be 32 bytes as base64url, 44 characters"


def test_where_keys_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = encryption(load(data_dir=tmp_path)).encrypt(b"secret")
    assert Encryption(development_keys(tmp_path)).decrypt(stored) == b"secret"
    (tmp_path / "encryption_keys").write_text(f"{NEW}\n{OLD}\n")
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path))
    assert encryption(load()).decrypt(Encryption([OLD]).encrypt(b"secret")) == b"secret"
    monkeypatch.setenv("ENCRYPTION_KEYS", "")
    (tmp_path / "encryption_keys").unlink()
    with pytest.raises(EncryptionKeyMissing):
        encryption(load(environment="production", jwt_secret="s" * 32, audit_key="a" * 32)).encrypt(b"secret")


def test_rotation_replaces_what_older_keys_have_encrypted_and_nothing_else(tmp_path: Path) -> None:
    old, new, other = (Encryption([key]) for key in (OLD, NEW, OTHER))
    rows = [{"id": n, "secret": old.encrypt(b"%d" % n), "previous": None} for n in range(1, 6)]
    rows += [{"id": 6, "secret": new.encrypt(b"6"), "previous": old.encrypt(b"before 6")}]
    rows += [{"id": 7, "secret": other.encrypt(b"7"), "previous": None}]
    replaced = new.encrypt(b"replaced meanwhile")
    replace = module._replace

    def lose_a_race(conn: Connection, table: Any, changes: Any) -> int:
        if changes[0][0] == 1:
            conn.execute(update(hooks).where(hooks.c.id == 2).values(secret=replaced))
        return replace(conn, table, changes)

    async def work() -> tuple[Rotated, Rotated, dict[int, Any]]:
        db = databases.database(tmp_path)
        both = Encryption([NEW, OLD])
        try:
            await db.write(own.create_all)
            await db.write(lambda conn: conn.execute(insert(hooks), rows))
            with patch.object(module, "_BATCH", 2), patch.object(module, "_replace", lose_a_race):
                first = await rotate(db, both, [HOOKS])
            second = await rotate(db, both, [HOOKS])
            left = await db.read(lambda conn: conn.execute(select(hooks)).all())
        finally:
            await db.close()
        return first, second, {row.id: row for row in left}

    first, second, left = asyncio.run(work())
    assert (first, second) == (Rotated(5, 1), Rotated(0, 1))
    assert left[2].secret == replaced
    assert [new.decrypt(left[n].secret) for n in (1, 3, 4, 5, 6)] == [b"1", b"3", b"4", b"5", b"6"]
    assert new.decrypt(left[6].previous) == b"before 6"
    assert left[7].secret == rows[6]["secret"]


def test_rotation_at_the_command_line(tmp_path: Path) -> None:
    done = run("rotate-secrets", DATA_DIR=str(tmp_path), ENCRYPTION_KEYS=f"{NEW},{OLD}")
    assert (done.returncode, done.stdout) == (
        0,
        "All secrets are encrypted with the newest key. Of them, 0 were not before.\n",
    )
