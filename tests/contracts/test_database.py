"""What every adapter of the Database port owes those who use it: one suite, run over all of them.

PostgreSQL takes part where TEST_DATABASE_URL names a server.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Uuid,
    bindparam,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from app import wiring
from app.database import (
    Database,
    Retry,
    UTCDateTime,
    after_commit,
    binary_text,
    case_insensitive,
    insert_on_conflict,
    insert_or_replace,
    metadata,
    now,
)
from app.database.postgresql import PostgresqlDatabase
from app.database.sqlite import SqliteDatabase
from app.errors import SearchTooBroad
from tests.support import databases

assert wiring  # imports every module that defines a table

own = MetaData()
counters = Table("counters", own, Column("id", Integer, primary_key=True), Column("n", BigInteger, nullable=False))
things = Table(
    "things",
    own,
    Column("id", Uuid, primary_key=True),
    Column("name", binary_text(50)),
    Column("at", UTCDateTime),
    Column("data", JSON(none_as_null=True)),
    Column("share", Float),
    Column("hash", LargeBinary),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def unopened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An adapter on a database of its own that nobody has migrated yet."""
    if request.param == "sqlite":
        yield SqliteDatabase(tmp_path / "app.db")
        return
    if not databases.POSTGRESQL:
        pytest.skip("TEST_DATABASE_URL is not set")
    url = databases.create()
    yield PostgresqlDatabase(url.render_as_string(hide_password=False), pool_size=4, statement_timeout=5)


@pytest.fixture
async def db(unopened: Database) -> AsyncIterator[Database]:
    await asyncio.to_thread(unopened.migrate)
    await unopened.write(own.create_all)
    yield unopened
    await unopened.close()


def count(conn: Connection) -> int:
    return conn.scalar(select(counters.c.n).where(counters.c.id == 1)) or 0


def begin(conn: Connection) -> None:
    conn.execute(insert(counters).values(id=1, n=0))


def step(conn: Connection) -> int:
    """Read, then write what was read and one more: what loses updates where units do not exclude each other."""
    seen = count(conn)
    conn.execute(update(counters).values(n=seen + 1))
    return seen + 1


async def test_what_was_written_is_there_for_the_next(db: Database) -> None:
    await db.write(begin)
    assert await db.write(step) == 1
    assert await db.read(count) == 1


async def test_units_that_are_alone_with_the_same_see_what_those_before_them_have_added(db: Database) -> None:
    """Rows that none of them changes: what a unit at REPEATABLE READ would not be run again for."""

    def add(conn: Connection) -> bool:
        if (conn.scalar(select(func.count()).select_from(things)) or 0) >= 5:
            return False
        conn.execute(insert(things).values(id=uuid4()))
        return True

    account = uuid4()
    added = await asyncio.gather(*(db.write(add, alone_with=account) for _ in range(60)))
    assert added.count(True) == 5


async def test_a_unit_that_fails_leaves_nothing_and_its_error_comes_through(db: Database) -> None:
    await db.write(begin)

    def fail(conn: Connection) -> None:
        step(conn)
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        await db.write(fail)
    assert await db.read(count) == 0
    with pytest.raises(IntegrityError):
        await db.write(begin)
    assert await db.write(step) == 1


def endless(conn: Connection) -> None:
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    conn.execute(text("SELECT pg_sleep(60)" if conn.dialect.name == "postgresql" else counting))


async def test_a_search_that_takes_too_long_is_ended(db: Database) -> None:
    with pytest.raises(SearchTooBroad):
        await db.search(endless)
    assert await db.search(lambda conn: conn.scalar(select(1))) == 1


async def test_reads_do_not_wait_for_searches(db: Database) -> None:
    searches = [asyncio.create_task(db.search(endless)) for _ in range(20)]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(1):
        await asyncio.gather(*(db.read(count) for _ in range(20)))
    for each in searches:
        each.cancel()
    async with asyncio.timeout(2):
        await asyncio.wait(searches)


async def test_no_update_is_lost_among_many_at_once(db: Database) -> None:
    await db.write(begin)
    await asyncio.gather(*(db.write(step) for _ in range(60)))
    assert await db.read(count) == 60


async def test_one_that_fails_among_many_fails_alone(db: Database) -> None:
    await db.write(begin)

    def fail(conn: Connection) -> None:
        step(conn)
        raise LookupError

    done = await asyncio.gather(*(db.write(fail if n % 3 else step) for n in range(30)), return_exceptions=True)
    assert sum(isinstance(each, LookupError) for each in done) == 20
    assert await db.read(count) == 10


async def test_a_unit_that_lost_a_race_is_run_again_whole(db: Database) -> None:
    await db.write(begin)
    runs: list[int] = []

    def race(conn: Connection) -> int:
        runs.append(step(conn))
        if len(runs) < 3:
            raise Retry
        return runs[-1]

    assert await db.write(race) == 1
    assert runs == [1, 1, 1]


async def test_effects_follow_the_commit_and_only_that(db: Database) -> None:
    await db.write(begin)
    told: list[str] = []

    def work(conn: Connection, word: str, error: Exception | None = None) -> None:
        after_commit(conn, lambda: told.append(word))
        step(conn)
        if error and told.count("run") < 1:
            told.append("run")
            raise error

    await db.write(lambda conn: work(conn, "committed"))
    with pytest.raises(LookupError):
        await db.write(lambda conn: work(conn, "rolled back", LookupError()))
    assert told == ["committed", "run"]
    told.clear()
    await db.write(lambda conn: work(conn, "once", Retry()))
    assert told == ["run", "once"]


async def test_an_effect_that_fails_fails_nobody(db: Database) -> None:
    told: list[str] = []

    def work(conn: Connection) -> None:
        begin(conn)
        after_commit(conn, lambda: told.remove("what is not there"))
        after_commit(conn, lambda: told.append("the next"))

    await db.write(work)
    assert told == ["the next"]
    assert await db.read(count) == 0


async def test_a_reader_sees_what_is_committed_and_nothing_else(db: Database) -> None:
    await db.write(begin)
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    readers = []

    def step_slowly(conn: Connection) -> None:
        step(conn)
        readers.append(asyncio.run_coroutine_threadsafe(db.read(count), loop))
        with suppress(TimeoutError):  # this thread may be the loop's own
            seen.append(readers[-1].result(0.2))

    await db.write(step_slowly)
    assert seen in ([0], [])
    assert await db.read(count) == 1
    await asyncio.gather(*map(asyncio.wrap_future, readers))  # a connection in use is not closed with the others


async def test_a_read_sees_what_was_committed_just_before(db: Database) -> None:
    await db.write(begin)
    for n in range(1, 6):
        await db.write(step)
        assert await db.read(count) == n


async def test_a_read_that_fails_does_not_keep_others_from_theirs(db: Database) -> None:
    await db.write(begin)
    with pytest.raises(DBAPIError):
        await db.read(lambda conn: conn.execute(text("SELECT n FROM nothing")))
    with pytest.raises(LookupError):
        await db.read(lambda _: {}["on purpose"])
    assert await db.read(count) == 0


async def test_who_goes_away_leaves_a_whole_unit_or_none(db: Database) -> None:
    await db.write(begin)

    def both(conn: Connection) -> None:
        step(conn)
        step(conn)

    for pause in range(20):
        caller = asyncio.create_task(db.write(both))
        for _ in range(pause):
            await asyncio.sleep(0)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
        assert await db.read(count) % 2 == 0
    before = await db.read(count)
    await db.write(both)  # none of them holds what others need
    assert await db.read(count) >= before + 2


async def test_what_is_urgent_goes_before_what_is_not(db: Database) -> None:
    def put(conn: Connection) -> int:
        conn.execute(insert(things).values(id=uuid4()))
        return conn.scalar(select(func.count()).select_from(things)) or 0

    others = [asyncio.create_task(db.write(put)) for _ in range(400)]
    await asyncio.sleep(0)
    assert await db.write(put, urgent=True) < 200
    await asyncio.gather(*others)
    assert await db.write(put) == 402


async def test_values_come_back_as_they_were(db: Database) -> None:
    at = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
    rows = [
        {
            "id": uuid4(),
            "name": "é\U0001f600",
            "at": at,
            "data": {"a": [1, None, "é"]},
            "share": 0.1,
            "hash": b"\0\xff",
        },
        {"id": uuid4(), "name": None, "at": None, "data": None, "share": None, "hash": None},
    ]
    await db.write(lambda conn: conn.execute(insert(things), rows))
    found = await db.read(lambda conn: conn.execute(select(things)).mappings().all())
    assert sorted(map(dict, found), key=repr) == sorted(rows, key=repr)
    elsewhere = at.astimezone(tz=datetime.now().astimezone().tzinfo)
    assert await db.read(lambda conn: conn.scalar(select(func.count()).where(things.c.at == elsewhere))) == 1
    assert await db.read(lambda conn: conn.scalar(select(func.count()).where(things.c.data.is_(None)))) == 1


async def test_text_is_sorted_by_code_point_and_found_in_case_insensitive(db: Database) -> None:
    names = ["b", "B", "a", "É", "é", "z", "_", "10", "9"]
    await db.write(lambda conn: conn.execute(insert(things), [{"id": uuid4(), "name": name} for name in names]))
    assert await db.read(lambda conn: conn.scalars(select(things.c.name).order_by(things.c.name)).all()) == sorted(
        names
    )
    found = select(things.c.name).where(case_insensitive(things.c.name).icontains("É", autoescape=True))
    assert set(await db.read(lambda conn: conn.scalars(found).all())) == {"É", "é"}
    percent = select(things.c.name).where(case_insensitive(things.c.name).icontains("_", autoescape=True))
    assert await db.read(lambda conn: conn.scalars(percent).all()) == ["_"]


async def test_an_insert_may_give_way(db: Database) -> None:
    def put(conn: Connection, n: int) -> None:
        conn.execute(insert_on_conflict(conn, counters).values(id=1, n=n).on_conflict_do_nothing())

    for n in (1, 2):
        await db.write(lambda conn, n=n: put(conn, n))
    assert await db.read(count) == 1


async def test_an_insert_may_replace_what_is_there(db: Database) -> None:
    replace = insert_or_replace(counters, n=bindparam("number") + 1)
    for number in (1, 2):
        values = {"id": 1, "number": number}
        put = lambda conn, values=values: replace[conn.dialect.name].count(conn, values)  # noqa: E731
        assert await db.write(put) == 1
        assert await db.read(count) == number + 1


async def test_the_clock_is_the_database_s_and_goes_forward(db: Database) -> None:
    before = await db.read(lambda conn: conn.scalar(select(now())))
    later = await db.read(lambda conn: conn.scalar(select(now(90.5))))
    assert abs(before - datetime.now(UTC)) < timedelta(seconds=30)
    assert timedelta(seconds=90.4) < later - before < timedelta(seconds=100)
    await db.write(lambda conn: conn.execute(insert(things).values(id=uuid4(), at=now(-1))))
    for seconds, expected in ((0, 1), (-2, 0)):
        due = select(func.count()).select_from(things).where(things.c.at <= now(seconds))
        assert await db.read(lambda conn, due=due: conn.scalar(due)) == expected


async def test_it_can_be_migrated_again(unopened: Database) -> None:
    for _ in range(2):
        await asyncio.to_thread(unopened.migrate)
    await unopened.check()
    for table in metadata.sorted_tables:
        assert await unopened.read(lambda conn, table=table: conn.execute(select(table)).all()) == []
    await unopened.close()


async def test_what_was_accepted_is_finished_before_it_is_closed(unopened: Database) -> None:
    await asyncio.to_thread(unopened.migrate)
    await unopened.write(own.create_all)
    await unopened.write(begin)
    accepted = [asyncio.create_task(unopened.write(step)) for _ in range(10)]
    await asyncio.sleep(0)
    await unopened.close()
    assert sorted(await asyncio.gather(*accepted)) == list(range(1, 11))
