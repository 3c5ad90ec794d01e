"""What must be true of a data folder once all work is done, whatever happened before."""

import hashlib
import json
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, or_, select

from app.documents.models import documents, previous_files
from app.events import events, signing
from app.files import models
from app.jobs.models import LIVE, jobs
from app.processing.models import previous_result_files, previous_results, result_files, results
from app.processing.stages.models import stage_results
from app.quotas import usage
from app.webhooks.models import deliveries, endpoints, messages
from tests.support import databases
from tests.support.receiver import Receiver

# What raises the version of a document, besides its status.
CHANGES = (
    *("document.edited", "document.upload_rejected"),
    *("document.deleted", "document.restored", "document.held", "document.released"),
)
REPLACING = {("COMPLETED", "UPLOADED"), ("FAILED", "UPLOADED")}  # changes of the status that only a new file brings
FINAL = {"job.succeeded": "SUCCEEDED", "job.failed": "FAILED", "job.cancelled": "CANCELLED"}


class Ledger:
    """The database and the files of a server, read past it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._engine = databases.engine(data_dir)

    def rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._engine.connect() as conn:
            return list(conn.execute(query))

    def files(self) -> dict[UUID, Path]:
        """The committed files by their id."""
        return {UUID(path.name): path for path in (self._data_dir / "files").glob("documents/*/*")}

    def settle(self, timeout: float = 30) -> None:
        """Wait until no job is live, and no file is orphaned or half received."""
        deadline = time.monotonic() + timeout
        while self._unsettled():
            assert time.monotonic() < deadline, self._unsettled()
            time.sleep(0.05)

    def _unsettled(self) -> str:
        if live := self.rows(select(jobs).where(jobs.c.state.in_(LIVE))):
            return f"live jobs: {live}"
        now = datetime.now(UTC)
        kept = select(models.files.c.id).where(
            or_(models.files.c.discarded_at.is_(None), models.files.c.discarded_at > now)
        )
        if orphans := set(self.files()) - {row.id for row in self.rows(kept)}:
            return f"orphaned files: {orphans}"
        return f"staged: {staged}" if (staged := list((self._data_dir / "files/staging").iterdir())) else ""

    def check(self) -> None:
        """Raise AssertionError for anything lost, doubled or half done."""
        rows, files, stories = self.rows(select(documents)), self.files(), self._stories()
        published, attached = self.rows(select(results)), self.rows(select(result_files))
        current = {(row.document_id, row.job_id) for row in published}
        kept = {row.id: row for row in self.rows(select(models.files).where(models.files.c.discarded_at.is_(None)))}
        reserved = {row.key for row in self.rows(select(models.files).where(models.files.c.discarded_at.is_not(None)))}
        assert {row.key for row in kept.values()} | reserved >= {f"documents/{name}" for name in files}
        staged = self.rows(select(stage_results))
        before = self.rows(select(previous_files))
        moved = [*self.rows(select(previous_results)), *self.rows(select(previous_result_files))]
        of_results = [row.file_id for row in [*published, *attached, *staged, *moved] if row.file_id]
        assert sorted([*(row.file_id for row in [*rows, *before]), *of_results]) == sorted(kept), (
            "each file belongs to one"
        )
        for row in rows:
            assert ((row.id, row.job_id) in current) == (row.status == "COMPLETED")
            _check_story(row, stories["document_id"][row.id])
        for row in [*(row for row in rows if row.status != "INITIATED"), *before]:
            file = kept[row.file_id]
            content = hashlib.sha256(files[UUID(file.key.rpartition("/")[2])].read_bytes()).hexdigest()
            assert content == file.sha256 == row.sha256
            assert (file.size, file.content_type) == (row.size, row.content_type)
        for row in self.rows(select(jobs)):
            _check_job(row, stories["job_id"][row.id])
        self.check_usage()

    def check_trail(self) -> None:
        """Raise AssertionError unless each event is signed as it is."""
        key = (self._data_dir / "audit-key").read_bytes()
        for event in self.rows(select(events)):
            assert signing.mac_of(key, event._asdict()) == event.mac, event

    def check_usage(self) -> None:
        """Raise AssertionError unless what is counted of each account is what it has."""
        expected: dict[UUID, list[int]] = defaultdict(lambda: [0, 0, 0])
        for row in self.rows(select(documents)):
            announced, rejected = (row.status == "INITIATED" and bool(row.error) == each for each in (False, True))
            for position, more in enumerate((0 if rejected else row.size, 1, int(announced))):
                expected[row.owner_id][position] += more
        for table in (result_files, previous_files, previous_result_files):
            for row in self.rows(select(table)):
                expected[row.owner_id][0] += row.size
        for table in (results, previous_results):
            of_large = select(documents.c.owner_id, models.files.c.size).join(
                table, table.c.document_id == documents.c.id
            )
            for owner_id, size in self.rows(of_large.join(models.files, models.files.c.id == table.c.file_id)):
                expected[owner_id][0] += size
        counted = {row.user_id: [row.bytes, row.documents, row.announced] for row in self.rows(select(usage))}
        assert {user_id: each for user_id, each in counted.items() if any(each)} == expected

    def check_deliveries(self, receiver: Receiver) -> int:
        """Raise AssertionError unless each event was delivered to each endpoint that wants it, and the receiver has it,
        verified. Returns how many it got more than once."""
        wanting = defaultdict(list)
        for row in self.rows(select(endpoints)):
            wanting[row.owner_id].append(row.id)
        told = [row for row in self.rows(select(events)) if _is_told(row)]
        expected = Counter((row.id, endpoint) for row in told for endpoint in wanting[row.user_id])
        made = self.rows(select(deliveries))
        assert {row.state for row in made} == {"DELIVERED"}
        assert Counter((row.event_id, row.endpoint_id) for row in made) == expected
        assert receiver.ids.keys() == {str(event) for event, _ in expected}
        assert all(each.verified for each in receiver.received)
        bodies = {str(row.event_id): json.loads(row.body) for row in self.rows(select(messages))}
        assert all(each.body == bodies[each.id] for each in receiver.received)
        return sum(count > 1 for count in receiver.ids.values())

    def _stories(self) -> dict[str, dict[UUID, list[Row[Any]]]]:
        """The events of each document and of each job, oldest first."""
        stories: dict[str, dict[UUID, list[Row[Any]]]] = defaultdict(lambda: defaultdict(list))
        for event in self.rows(select(events).order_by(events.c.seq)):
            stories["document_id"][event.document_id].append(event)
            stories["job_id"][event.job_id].append(event)
        return stories


def _is_told(row: Row[Any]) -> bool:
    if row.event == "document.status_changed":
        return row.data["new"] in {"COMPLETED", "FAILED"}
    of_trash = {"document.deleted", "document.restored", "document.purged"}
    return row.event in {"document.uploaded", "job.queued"} | of_trash or bool(row.data.get("dead"))


def _check_story(row: Row[Any], story: list[Row[Any]]) -> None:
    assert row.status != "PROCESSING"
    names = [event.event for event in story]
    assert names.count("document.uploaded") == (row.status != "INITIATED")
    steps = [(event.data["old"], event.data["new"]) for event in story if event.event == "document.status_changed"]
    states = ["INITIATED" if "document.initiated" in names else "UPLOADED", *(new for _, new in steps)]
    assert [old for old, _ in steps] == states[:-1], "each change begins where the last one ended"
    assert states[-1] == row.status
    replaced = names.count("document.file_replaced")
    assert row.file_number == 1 + replaced
    without_step = replaced - sum(step in REPLACING for step in steps)
    assert row.version == 1 + len(steps) + sum(map(names.count, CHANGES)) + without_step


def _check_job(row: Row[Any], story: list[Row[Any]]) -> None:
    assert [FINAL[event.event] for event in story if event.event in FINAL] == [row.state], row
    fences = [event.data["fence"] for event in story if event.event == "job.started"]
    assert fences == list(range(1, row.fence + 1)), "every claim raises the fence by one"
    assert row.tries <= row.max_tries
    if row.state == "SUCCEEDED":
        within = ("job.fenced", "job.stage_finished")
        own = [event for event in story if event.event.startswith("job.") and event.event not in within]
        claim, end = own[-2:]
        assert (claim.event, end.event) == ("job.started", "job.succeeded")
        assert claim.data["fence"] == end.data["fence"]
        assert claim.actor == end.actor, "it is of the worker that made the last claim, which it still held"
