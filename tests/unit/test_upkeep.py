"""Chores: each on its own, one process for all where that is enough, and what is skipped is seen."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import func, insert, select
from uuid_utils.compat import uuid7

from app import events, idempotency, upkeep as upkeep_module, wiring
from app.auth import sessions
from app.auth.models import refresh_tokens, token_families, users
from app.database import Database, batches, now
from app.documents import repository, trash
from app.documents.models import documents
from app.documents.schemas import Metadata
from app.errors import StorageUnavailable
from app.files import repository as files_repository
from app.files.models import File, files, key_of
from app.settings import Settings
from app.telemetry import context
from app.upkeep import Chore, Postponed, Skipped, Upkeep
from app.wiring.chores import chores
from tests.support import databases
from tests.support.databases import database
from tests.support.logs import captured

assert wiring  # imports every module that defines a table

OWNER = uuid7()


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    db = database(tmp_path / "var")
    await asyncio.to_thread(db.migrate)
    await db.write(
        lambda conn: conn.execute(
            insert(users).values(id=OWNER, email="a", password_hash="", active=True, created_at=now())
        )
    )
    yield db
    await db.close()


@asynccontextmanager
async def running(db: Database, *chores: Chore) -> AsyncIterator[Upkeep]:
    upkeep = Upkeep(db, chores)
    task = asyncio.create_task(upkeep.run())
    try:
        yield upkeep
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


def failing(errors: list[Exception]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        if errors:
            raise errors.pop()

    return run


async def test_a_chore_that_fails_stops_no_other_and_is_seen_until_it_has_run(db: Database) -> None:
    ran: list[None] = []

    async def run() -> None:
        ran.append(None)

    def count() -> float:
        return REGISTRY.get_sample_value("document_api_upkeep_skipped_total", {"chore": "bad"}) or 0

    before, errors = count(), [StorageUnavailable(), Skipped("too many"), ValueError("a bug")]
    seen: set[str | None] = set()
    with captured(upkeep_module) as logs:
        async with running(db, Chore("bad", 0.03, failing(errors)), Chore("good", 0.01, run)) as upkeep:
            await until(lambda: seen.add(upkeep.alarm()) or (not errors and upkeep.alarm() is None and len(ran) > 3))
    assert seen == {None, "bad: failed, see the log", "bad: too many", "bad: storage-unavailable"}
    assert count() - before == 3
    told = [
        (line["log_level"], line["chore"], line.get("reason")) for line in logs if line["event"].startswith("upkeep")
    ]
    assert told == [
        ("error", "bad", None),
        ("warning", "bad", "too many"),
        ("warning", "bad", "storage-unavailable"),
    ]


async def test_what_is_postponed_raises_no_alarm_and_is_logged_once(db: Database) -> None:
    errors: list[Exception] = [Postponed("later")] * 3
    with captured(upkeep_module) as logs:
        async with running(db, Chore("kept", 0.01, failing(errors))) as upkeep:
            await until(lambda: not errors or upkeep.alarm())
            assert upkeep.alarm() is None
    told = [(line["event"], line["log_level"], line["reason"]) for line in logs]
    assert told == [("upkeep.postponed", "info", "later")]
    once = Upkeep(db, [Chore("kept", 1, failing([Postponed("later")]))])
    with pytest.raises(Skipped, match="kept: later"):
        await once.once()


async def test_chores_run_once_all_of_them_and_the_skipped_are_raised(db: Database) -> None:
    ran: list[None] = []

    async def run() -> None:
        ran.append(None)

    upkeep = Upkeep(db, [Chore("bad", 9, failing([Skipped("why")])), Chore("good", 9, run, shared=True)])
    with pytest.raises(Skipped, match=r"^bad: why$"):
        await upkeep.once()
    assert len(ran) == 1


async def test_a_shared_chore_is_done_by_one_process_at_a_time_however_long_it_takes(db: Database) -> None:
    at_work, begun = 0, 0
    done = asyncio.Event()

    async def run() -> None:
        nonlocal at_work, begun
        at_work, begun = at_work + 1, begun + 1
        assert at_work == 1
        await done.wait()
        at_work -= 1

    chores = [Chore("list", 0.3, run, shared=True) for _ in range(3)]
    async with running(db, chores[0]), running(db, chores[1]), running(db, chores[2]):
        await until(lambda: begun)
        await asyncio.sleep(1)  # several times as long as it would be another's turn
        assert begun == 1
        done.set()
        await until(lambda: begun > 1)


async def test_a_storage_is_listed_by_one_process_for_all(db: Database) -> None:
    listed = []

    async def sweep() -> None:
        listed.append(None)

    settings = Settings(_env_file=None, orphan_grace_seconds=0.5)
    found = chores(db, Mock(), Mock(), Mock(sweep=sweep), Mock(), Mock(), uses=Mock(), inbox=None, settings=settings)
    (chore,) = (chore for chore in found if chore.name == "orphan-files")
    async with running(db, chore), running(db, chore), running(db, chore):
        await asyncio.sleep(1.7)
    assert 1 <= len(listed) <= 4, "not three times each half second"


def new_file(sha256: str | None = None) -> File:
    file_id = uuid7()
    return File(file_id, key_of(file_id), "application/pdf", 1, sha256)


def discard(conn: Any) -> None:
    rows = {"content_type": "x", "size": 1, "created_at": now()}
    for age in (files_repository.KEPT_SECONDS + 10, 10):
        ready = insert(files).values(**rows, discarded_at=now(-age))
        conn.execute(ready, [{"id": uuid7(), "key": f"{age} {n}"} for n in range(120)])


async def count(db: Database, table: Any) -> int:
    counted = select(func.count()).select_from(table)
    return await db.read(lambda conn: int(conn.execute(counted).scalar_one()))


async def test_what_has_expired_goes_in_bounded_batches_and_nothing_else(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches.delete_batch, "__kwdefaults__", {"returning": (), "limit": 50})
    monkeypatch.setattr(trash, "BATCH", 50)
    sizes: list[int] = []

    def noted(rows: Iterable[Any]) -> list[Any]:
        found = list(rows)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(batches, "list", noted, raising=False)
    ages = {"expired": -10.0, "live": 60.0}
    families = {name: uuid7() for name in ages}
    keys = [
        {"user_id": OWNER, "key": f"{name} {n}", "expires_at": now(age)}
        for name, age in ages.items()
        for n in range(120)
    ]
    await db.write(lambda conn: [conn.execute(insert(idempotency.records).values(key)) for key in keys])

    def log_in(conn: Any) -> None:
        for name, age in ages.items():
            conn.execute(insert(token_families).values(id=families[name], user_id=OWNER, expires_at=now(age)))
            tokens = [
                {"id": uuid7(), "family_id": families[name], "token_hash": f"{name}{n}".encode()} for n in range(120)
            ]
            conn.execute(insert(refresh_tokens).values(expires_at=now(age)), tokens)

    def announce(conn: Any) -> None:
        for age in [-10.0, 60.0] * 120:
            repository.announce(conn, OWNER, "a", Metadata(), new_file(), sha256=None, expires_in=age)
        for _ in range(120):
            repository.add(conn, OWNER, "a", Metadata(), new_file("0" * 64))

    await db.write(log_in)
    with context.acting("worker:w"):
        await db.write(announce)
    await db.write(discard)
    await files_repository.forget_discarded(db, 60.0)
    assert await count(db, files) == 480
    await idempotency.forget_expired(db)
    await sessions.forget_expired(db, kept=0)
    expired = set()
    with context.acting("worker:w"):
        while some := await db.write(partial(trash.expire_uploads, grace=0)):
            expired.update(some)
    assert max(sizes) == 50
    assert (await count(db, idempotency.records), await count(db, token_families)) == (120, 1)
    assert (await count(db, refresh_tokens), await count(db, documents)) == (120, 240)
    told = select(events.events.c.document_id).where(events.events.c.event == "document.upload_expired")
    assert {key_of(each) for each in await db.read(lambda conn: conn.scalars(told).all())} == expired
    assert len(expired) == 120


async def test_an_expired_token_goes_and_with_the_last_one_its_session(db: Database) -> None:
    """Not before the access token that came with it has expired, too."""
    spent, used = uuid7(), uuid7()

    def log_in(conn: Any) -> None:
        conn.execute(insert(token_families).values(user_id=OWNER, expires_at=now(999)), [{"id": spent}, {"id": used}])
        for family, age in ((spent, -20.0), (spent, -30.0), (used, -20.0), (used, 60.0)):
            row = {"id": uuid7(), "family_id": family, "token_hash": uuid7().bytes * 2, "expires_at": now(age)}
            conn.execute(insert(refresh_tokens).values(row))

    await db.write(log_in)
    await sessions.forget_expired(db, kept=25)
    assert (await count(db, token_families), await count(db, refresh_tokens)) == (2, 3)
    await sessions.forget_expired(db, kept=10)
    assert await db.read(lambda conn: conn.scalars(select(token_families.c.id)).all()) == [used]
    assert await count(db, refresh_tokens) == 1


async def test_of_very_many_keys_the_oldest_go(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.delete_batch, "__kwdefaults__", {"returning": (), "limit": 7})
    keys = [{"user_id": OWNER, "key": f"{n}", "expires_at": now(60.0 + n)} for n in range(60)]
    await db.write(lambda conn: [conn.execute(insert(idempotency.records).values(key)) for key in keys])
    await idempotency.forget_beyond_limit(db, 60)
    assert await count(db, idempotency.records) == 60
    await idempotency.forget_beyond_limit(db, 20)
    kept = await db.read(lambda conn: conn.scalars(select(idempotency.records.c.key)).all())
    assert {int(key) for key in kept} == set(range(40, 60))


@pytest.mark.postgresql
async def test_a_batch_is_bounded_though_the_statistics_are_of_an_empty_table(db: Database, tmp_path: Path) -> None:
    rows = (
        "INSERT INTO idempotency_keys (user_id, key, expires_at) SELECT id, n, now() - '1 day'::interval"
        " FROM users, generate_series(1, 20000) n"
    )
    with databases.engine(tmp_path / "var").begin() as conn:
        conn.exec_driver_sql("ANALYZE")
        conn.exec_driver_sql(rows)
    due = idempotency.records.c.expires_at <= now()
    delete = partial(batches.delete_batch, oldest=idempotency.records.c.expires_at, limit=100)
    assert len(await db.write(lambda conn: delete(conn, idempotency.records, due))) == 100
    assert await count(db, idempotency.records) == 19_900
