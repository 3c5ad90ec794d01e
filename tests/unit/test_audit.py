"""The audit trail: whatever is changed, deleted or inserted past the service is named, and nothing else."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, delete, insert, select, text, update
from uuid_utils.compat import uuid7

from app.audit import verify
from app.audit.anchors import anchoring, of_bucket
from app.audit.verify import Verification
from app.database import Database, base, now
from app.events import append, events, seals
from app.events.catalogue.jobs import JobRetried
from app.events.failure import Failure
from app.events.seals import Seal, audit_seals
from app.settings import Settings, load
from app.settings.storage import Bucket
from app.storage.s3 import S3Storage
from app.telemetry import context
from app.wiring import adapters
from tests.support import databases
from tests.support.logs import captured
from tests.support.seaweed import KEY as KEY_OF_BUCKET, Prefix
from tests.support.zygote import run

CHANGED = "was changed, not written by this service, or signed with a key that is not in AUDIT_KEY"
KEY, NEWER = b"k" * 32, b"n" * 32
OTHERS: dict[str, Any] = {
    "id": uuid4(),
    "event": "job.succeeded",
    "actor": "user:somebody",
    "request_id": None,
    "user_id": uuid4(),
    "document_id": None,
    "job_id": uuid4(),
    "ip": "198.51.100.0/24",
    "credential_id": None,
    "data": {"attempt": 1, "fence": 1, "delay": 3.0, "error": {"code": "É", "detail": "changed"}},
    "mac": b"m" * 32,
}


class Trail(NamedTuple):
    """A database, and a way past the service into it."""

    db: Database
    engine: Engine
    sealed: list[Seal]

    async def happen(self, count: int = 1) -> None:
        await self.db.write(lambda conn: [happen(conn) for _ in range(count)] and None)

    async def seal(self) -> None:
        await seals.seal(self.db, self._keep)

    async def _keep(self, seal: Seal) -> None:
        self.sealed.append(seal)

    async def found(self, anchored: list[Seal] = []) -> list[str]:  # noqa: B006 - read only
        """What is wrong."""
        verification = Verification(self.db.audit_keys)
        await verification.run(self.db)
        await verification.compare(self.db, _anchors(anchored))
        return [str(finding) for finding in verification.findings]

    def past(self, *statements: Any) -> None:
        with self.engine.begin() as conn:
            for statement in statements:
                conn.execute(statement)

    def rows(self) -> list[Any]:
        with self.engine.connect() as conn:
            return list(conn.execute(select(events).order_by(events.c.seq)))


async def _anchors(anchored: list[Seal]) -> AsyncIterator[dict[str, Any]]:
    for seal in anchored:
        yield seal.anchor


def happen(conn: Connection) -> None:
    """With all that an event can have: a whole number as a fraction, and text that is no valid Unicode."""
    context.client.set("203.0.113.9")
    context.credential.set(uuid4())
    error = Failure(code="c", detail="É \U0001f600 \ud800")
    with context.acting("worker:x", request="r"):
        ids = {"user_id": uuid4(), "document_id": uuid4(), "job_id": uuid4()}
        append(conn, JobRetried(attempt=1, fence=2, delay=3.0, error=error), **ids)


@pytest.fixture
async def trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trail]:
    databases.prepare(tmp_path / "var")
    db, engine = databases.database(tmp_path / "var"), databases.engine(tmp_path / "var")
    await asyncio.to_thread(db.migrate)
    db.audit_keys.append(KEY)
    monkeypatch.setattr(seals, "LAG", -60.0)
    yield Trail(db, engine, [])
    await db.close()
    engine.dispose()


async def test_a_change_of_any_column_is_named(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "BATCH", 2)
    await trail.happen(5)
    await trail.seal()
    assert await trail.found() == []
    row = trail.rows()[2]
    others = OTHERS | {"at": row.at + timedelta(microseconds=1)}
    assert {*others, "seq"} == {*events.c.keys()}
    its = events.c.seq == row.seq
    for name, value in others.items():
        trail.past(update(events).where(its).values({name: value}))
        wrong = await trail.found()
        assert wrong[0].startswith(f"event {row.seq} ("), (name, wrong)
        trail.past(update(events).where(its).values({name: getattr(row, name)}))
    trail.past(update(events).where(its).values(mac=None))
    assert "is not signed" in (await trail.found())[0]


def gone(index: int) -> Callable[[list[Any]], list[Any]]:
    return lambda rows: [delete(events).where(events.c.seq == rows[index].seq)]


def forged(rows: list[Any]) -> list[Any]:
    row = rows[-1]._asdict() | {"seq": rows[-1].seq + 100, "id": uuid7(), "mac": b"f" * 32}
    return [insert(events).values(row)]


def copied(rows: list[Any]) -> list[Any]:
    return [insert(events).values(rows[0]._asdict() | {"seq": rows[-1].seq + 100})]


def exchanged(rows: list[Any]) -> list[Any]:
    first, second = ({**row._asdict(), "seq": other.seq} for row, other in (rows[:2], rows[1::-1]))
    own = events.c.seq.in_([rows[0].seq, rows[1].seq])
    return [delete(events).where(own), insert(events).values(first), insert(events).values(second)]


def early(rows: list[Any]) -> list[Any]:
    return [insert(events).values(rows[0]._asdict() | {"seq": -5, "id": uuid7()})]


TAMPERED: dict[str, tuple[Callable[[list[Any]], list[Any]], str]] = {
    "the first gone": (gone(0), r"1 of 3 are missing: no event has the number 1"),
    "one gone": (gone(1), r"1 of 3 are missing: no event has the number 2"),
    "the last of a seal gone": (gone(2), r"1 of 3 are missing: no event has the number 3"),
    "a forged one": (forged, CHANGED),
    "a copy": (copied, r"is a copy of an earlier one"),
    "two exchanged": (exchanged, r"are others than were sealed"),
    "one before all": (early, CHANGED),
    "a seal changed": (lambda _: [update(audit_seals).values(count=9)], r"seal 1: was changed"),
    "a seal gone": (lambda _: [delete(audit_seals).where(audit_seals.c.id == 1)], r"does not follow the one before"),
}


async def test_what_is_gone_or_came_is_named(trail: Trail) -> None:
    for _ in range(2):
        await trail.happen(3)
        await trail.seal()
    await trail.happen()
    rows = trail.rows()
    for how, (tamper, named) in TAMPERED.items():
        assert await trail.found() == []
        trail.past(*tamper(rows))
        wrong = await trail.found()
        assert any(named in finding for finding in wrong), (how, wrong)
        trail.past(*(delete(table) for table in (events, audit_seals)))
        trail.past(insert(events).values([row._asdict() for row in rows]))
        trail.past(insert(audit_seals).values([asdict(seal) for seal in trail.sealed]))


async def test_what_is_cut_off_at_the_end_is_named_by_the_anchors(trail: Trail) -> None:
    for _ in range(2):
        await trail.happen(3)
        await trail.seal()
    assert await trail.found(trail.sealed) == []
    last = trail.sealed[-1]
    trail.past(delete(events).where(events.c.seq >= last.from_seq), delete(audit_seals).where(audit_seals.c.id == 2))
    assert await trail.found() == []
    assert await trail.found(trail.sealed) == [
        f"seal 2 of the anchors: is gone, and with it what happened up to {last.to_seq}"
    ]
    await trail.happen(2)
    await trail.seal()
    (wrong,) = await trail.found(trail.sealed[:2])
    assert wrong == "seal 2 of the anchors: is another one than in the database"


async def test_retention_beside_a_verification_is_no_finding(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seals are read ahead: what they say may be out of date."""
    monkeypatch.setattr(verify, "BATCH", 2)
    monkeypatch.setattr(seals, "MOST", 2)
    await trail.happen(7)
    await trail.seal()
    verification, read, reads = Verification(trail.db.audit_keys), trail.db.read, count(1)

    async def forgotten_midway(work: Any) -> Any:
        if next(reads) == 3:  # after some seals, and some events
            await seals.forget(trail.db, -3600)
        return await read(work)

    monkeypatch.setattr(trail.db, "read", forgotten_midway)
    await verification.run(trail.db)
    assert verification.findings == []
    assert verification.events < 7, "some were gone"
    trail.past(update(audit_seals).values(forgotten=b"x" * 32))
    assert any("are missing" in each for each in await trail.found()), "only retention has the key"


async def test_an_event_that_is_not_signed_is_named_since_any_moment(trail: Trail) -> None:
    await trail.happen()
    await trail.seal()
    trail.past(insert(events).values(OTHERS | {"mac": None, "at": now()}))
    for since in (None, datetime(2026, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)):
        verification = Verification(trail.db.audit_keys)
        await verification.run(trail.db, since)
        assert any("is not signed" in finding.what for finding in verification.findings), since


async def test_what_is_remembered_for_a_verification_has_bounds(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MOST_FINDINGS", 3)
    monkeypatch.setattr(verify, "MOST_KNOWN", 3)
    await trail.happen(9)
    verification = Verification([b"another key"])
    await verification.run(trail.db)
    assert (len(verification.findings), verification.wrong) == (3, 9)
    first, fifth = trail.rows()[0], trail.rows()[4]
    for copied, known in ((fifth, True), (first, False)):
        trail.past(insert(events).values({name: value for name, value in copied._asdict().items() if name != "seq"}))
        verification = Verification(trail.db.audit_keys)
        await verification.run(trail.db)
        assert bool(verification.wrong) is known
        trail.past(delete(events).where(events.c.seq > 9))


@pytest.mark.long
async def test_seals_are_kept_in_the_bucket(
    trail: Trail, prefix: Prefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**KEY_OF_BUCKET, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    bucket = load(storage_url=prefix.url()).storage
    assert isinstance(bucket, Bucket)
    storage = S3Storage(bucket, copies=tmp_path / "copies", longest=60)
    await storage.open()
    try:
        for _ in range(2):
            await trail.happen()
            await seals.seal(trail.db, anchoring(storage))
        verification = Verification(trail.db.audit_keys)
        await verification.run(trail.db)
        assert await verification.compare(trail.db, of_bucket(storage, None)) == 2
        assert verification.findings == []
        trail.past(delete(audit_seals).where(audit_seals.c.id == 2), delete(events).where(events.c.seq == 2))
        await verification.compare(trail.db, of_bucket(storage, datetime.now(UTC)))
        assert [str(each) for each in verification.findings] == [
            "seal 2 of the anchors: is gone, and with it what happened up to 2"
        ]
    finally:
        await storage.close()


async def test_the_command_says_what_is_wrong_and_fails(trail: Trail, tmp_path: Path) -> None:
    def said(*options: str) -> tuple[int, list[str]]:
        environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "var"), "AUDIT_KEY": KEY.decode()}
        done = run("audit", "verify", *options, **environment, **databases.settings(tmp_path / "var"))
        return done.returncode, (done.stdout or done.stderr).splitlines()

    await trail.happen(3)
    await trail.seal()
    log = tmp_path / "service.log"
    lines = [{"event": "http.request"}, {"event": "audit.sealed", **trail.sealed[0].anchor}]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    right = "events: 3, of which 0 unsigned and 0 not sealed yet; seals: 1; wrong: 0"
    assert said("--anchors", str(log)) == (0, ["anchors: 1", right])
    assert said("--anchors", "bucket")[1] == [
        "configuration: STORAGE_URL names no bucket: there are no anchors but in the log"
    ]
    log.write_text("nothing of the audit trail\n")
    assert said("--anchors", str(log)) == (
        1,
        ["anchors: 0", "anchors: there are none, although there are seals", right.replace("wrong: 0", "wrong: 1")],
    )
    row = trail.rows()[1]
    trail.past(update(events).where(events.c.seq == row.seq).values(actor="user:somebody"))
    for since in ("2026-01-01", "2026-01-01T00:00:00Z"):
        code, (first, _) = said("--since", since)
        assert (code, first) == (1, f"event {row.seq} ({row.id}): {CHANGED}")
    trail.past(update(events).values(mac=bytes(32)))
    await trail.happen(30)
    trail.past(update(events).values(mac=bytes(32)))
    assert said()[1][-2:-1] == ["and 14 more, which --all shows"]
    assert len(said("--all")[1]) == 35


def test_without_an_audit_key_the_key_follows_from_the_secrets_of_tokens(tmp_path: Path) -> None:
    def keys(**options: str) -> list[bytes]:
        return adapters.audit_keys(Settings(_env_file=None, data_dir=tmp_path, **options))

    old, new = "o" * 32, "n" * 32
    derived = keys(jwt_secret=f"{new},{old}")
    assert derived == keys(jwt_secret=new) + keys(jwt_secret=old)
    assert not {old.encode(), new.encode()} & {*derived}
    assert keys(jwt_secret=new, audit_key=KEY.decode()) == [KEY]
    generated = keys()
    assert generated == keys() == [(tmp_path / "audit-key").read_bytes()]
    assert keys(jwt_secret=new) == [derived[0], *generated], "what it has signed before is verified"


async def test_a_seal_is_a_log_line_with_all_that_an_anchor_needs(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trail.happen()
    with captured(seals) as lines:
        with monkeypatch.context() as patched:
            patched.setattr(seals, "LAG", 60.0)
            await trail.seal()
            assert lines == [], "others that began before may still commit"
        await trail.seal()
    (line,) = lines
    assert line["event"] == "audit.sealed"
    assert trail.sealed[0].anchor.items() <= line.items()


async def test_old_events_go_by_the_seal_and_the_latest_stays(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    async def kept(ttl: float) -> int:
        await seals.forget(trail.db, ttl)
        assert await trail.found(trail.sealed) == []
        return len(trail.rows())

    with monkeypatch.context() as patched:
        patched.setattr(base, "_seconds", lambda _: base.time.time() - 100)
        await trail.happen(3)
        await trail.seal()
        await trail.happen(2)
    await trail.happen(2)
    assert await kept(50) == 4, "one that is old is not sealed yet"
    await trail.seal()
    assert await kept(50) == 4, "it is sealed with one that is not old"
    await trail.happen()
    await trail.seal()
    assert await kept(-60) == 1, "the latest"
    first = trail.sealed[0]
    trail.past(update(audit_seals).where(audit_seals.c.id == first.id).values(forgotten=b"f" * 32))
    assert await trail.found() == [
        f"events {first.from_seq} to {first.to_seq} (seal 1): 3 of 3 are missing: no event has the number 1, 2, 3"
    ]


async def test_events_of_the_release_before_are_unsigned_until_the_first_seal(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail.db.audit_keys.clear()
    await trail.happen(2)
    trail.db.audit_keys.append(KEY)
    await trail.happen()
    await trail.seal()
    assert trail.sealed == [], "the release before may still be at work"
    monkeypatch.setattr(seals, "QUIET", -60.0)
    await trail.seal()
    assert await trail.found() == []
    row = trail.rows()[0]
    trail.past(update(events).where(events.c.seq == row.seq).values(actor="user:somebody"))
    assert await trail.found() == ["events 1 to 3 (seal 1): are others than were sealed"]
    trail.past(update(events).where(events.c.seq == row.seq).values(actor=row.actor))
    trail.db.audit_keys.clear()
    await trail.happen()
    trail.db.audit_keys.append(KEY)
    (wrong,) = await trail.found()
    assert wrong.endswith("is not signed, and was written after signing began")


async def test_keys_are_replaced_and_a_lost_one_is_named(trail: Trail) -> None:
    await trail.happen()
    await trail.seal()
    trail.db.audit_keys.insert(0, NEWER)
    await trail.happen()
    await trail.seal()
    assert await trail.found() == []
    assert trail.sealed[0].key_id != trail.sealed[1].key_id
    trail.db.audit_keys.remove(KEY)
    assert f"seal 1: its key, {trail.sealed[0].key_id}, is not in AUDIT_KEY: it cannot be verified" in (
        await trail.found()
    )


@pytest.mark.postgresql
async def test_a_transaction_that_commits_late_is_no_false_alarm(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has taken a lower number than those that were committed before it."""
    monkeypatch.setattr(seals, "LAG", 60.0)
    with trail.engine.execution_options(audit_keys=[KEY]).connect() as late:
        happen(late)
        await trail.happen()
        await trail.seal()
        late.commit()
    monkeypatch.setattr(seals, "LAG", -60.0)
    await trail.happen()
    await trail.seal()
    assert await trail.found() == []
    assert sum(seal.count for seal in trail.sealed) == 3


async def test_writers_beside_the_sealer_raise_no_alarm(
    trail: Trail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transactions take some 20 ms here, and the lag is far longer."""
    monkeypatch.setattr(seals, "LAG", 0.5)
    monkeypatch.setattr(seals, "MOST", 50)
    processes = [databases.database(tmp_path / "var") for _ in range(4)]

    def work(conn: Connection) -> None:
        happen(conn)
        if databases.POSTGRESQL:
            conn.execute(text("SELECT pg_sleep(random() * 0.02)"))
        happen(conn)

    async def write(db: Database) -> None:
        for _ in range(2):
            await db.write(work)

    async def seal() -> None:
        while True:
            await trail.seal()
            await asyncio.sleep(0.02)

    for db in processes:
        db.audit_keys.append(KEY)
    sealing = asyncio.create_task(seal())
    await asyncio.gather(*(write(db) for db in processes for _ in range(8)))
    await asyncio.sleep(0.6)
    sealing.cancel()
    await asyncio.wait([sealing])
    monkeypatch.setattr(seals, "LAG", -60.0)
    await trail.seal()
    assert await trail.found(trail.sealed) == []
    assert sum(seal.count for seal in trail.sealed) == len(trail.rows()) == 4 * 8 * 2 * 2
    for db in processes:
        await db.close()
