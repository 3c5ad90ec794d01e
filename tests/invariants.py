"""What must be true of a data folder once all work is done, whatever happened before."""

import hashlib
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Row, Select, select

from app.documents.models import documents
from app.events import events
from app.processing.models import LIVE, jobs, results
from tests import databases

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
        """The committed files by the id of their document."""
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
        if orphans := set(self.files()) - {row.id for row in self.rows(select(documents.c.id))}:
            return f"orphaned files: {orphans}"
        return f"staged: {staged}" if (staged := list((self._data_dir / "files/staging").iterdir())) else ""

    def check(self) -> None:
        """Raise AssertionError for anything lost, doubled or half done."""
        rows = self.rows(select(documents))
        files = self.files()
        assert set(files) == {row.id for row in rows}
        for row in rows:
            self._check_document(row, files[row.id].read_bytes())
        for row in self.rows(select(jobs)):
            self._check_job(row)

    def _check_document(self, row: Row[Any], content: bytes) -> None:
        assert hashlib.sha256(content).hexdigest() == row.sha256
        assert row.status in {"UPLOADED", "COMPLETED", "FAILED"}
        current = self.rows(select(results).where(results.c.document_id == row.id, results.c.job_id == row.job_id))
        assert len(current) == (1 if row.status == "COMPLETED" else 0)
        changes = self._events(events.c.document_id, row.id, "document.status_changed")
        steps = [(change["old"], change["new"]) for change in changes]
        states = ["UPLOADED", *(new for _, new in steps)]
        assert [old for old, _ in steps] == states[:-1], "each change begins where the last one ended"
        assert states[-1] == row.status
        assert row.version == 1 + len(steps) + len(self._events(events.c.document_id, row.id, "document.edited"))

    def _check_job(self, row: Row[Any]) -> None:
        finals = [event for event in FINAL for _ in self._events(events.c.job_id, row.id, event)]
        assert [FINAL[event] for event in finals] == [row.state], row
        fences = [start["fence"] for start in self._events(events.c.job_id, row.id, "job.started")]
        assert fences == list(range(1, row.fence + 1)), "every claim raises the fence by one"
        assert row.tries <= row.max_tries
        if row.state == "SUCCEEDED":
            self._check_publisher(row.id)

    def _check_publisher(self, job_id: UUID) -> None:
        """The result is of the worker that made the last claim, which it still held."""
        query = select(events).where(events.c.job_id == job_id, events.c.event.like("job.%")).order_by(events.c.seq)
        story = [(row.event, row.actor) for row in self.rows(query) if row.event != "job.fenced"]
        (claim, holder), (end, publisher) = story[-2:]
        assert (claim, end) == ("job.started", "job.succeeded")
        assert holder == publisher

    def _events(self, column: Column[UUID], subject: UUID, event: str) -> list[dict[str, Any]]:
        query = select(events.c.data).where(column == subject, events.c.event == event).order_by(events.c.seq)
        return [row.data for row in self.rows(query)]
