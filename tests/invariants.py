"""What must be true of a data folder once all work is done, whatever happened before."""

import hashlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any
from uuid import UUID

FINAL = {"job.succeeded": "SUCCEEDED", "job.failed": "FAILED", "job.cancelled": "CANCELLED"}


class Ledger:
    """The database and the files of a server, read past it."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        connection = sqlite3.connect(self._data_dir / "app.db", timeout=10)
        connection.row_factory = sqlite3.Row
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

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
        live = self.rows("SELECT * FROM jobs WHERE state IN ('QUEUED', 'RUNNING')")
        if live:
            return f"live jobs: {[dict(row) for row in live]}"
        documents = {UUID(row["id"]) for row in self.rows("SELECT id FROM documents")}
        if orphans := set(self.files()) - documents:
            return f"orphaned files: {orphans}"
        return f"staged: {staged}" if (staged := list((self._data_dir / "files/staging").iterdir())) else ""

    def check(self) -> None:
        """Raise AssertionError for anything lost, doubled or half done."""
        documents = self.rows("SELECT * FROM documents")
        files = self.files()
        assert set(files) == {UUID(row["id"]) for row in documents}
        for row in documents:
            self._check_document(row, files[UUID(row["id"])].read_bytes())
        for row in self.rows("SELECT * FROM jobs"):
            self._check_job(row)

    def _check_document(self, row: sqlite3.Row, content: bytes) -> None:
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert row["status"] in {"UPLOADED", "COMPLETED", "FAILED"}
        results = self.rows("SELECT job_id FROM results WHERE document_id = ?", row["id"])
        current = [result["job_id"] for result in results if result["job_id"] == row["job_id"]]
        assert len(current) == (1 if row["status"] == "COMPLETED" else 0)
        changes = self._events("document_id", row["id"], "document.status_changed")
        steps = [(change["old"], change["new"]) for change in changes]
        states = ["UPLOADED", *(new for _, new in steps)]
        assert [old for old, _ in steps] == states[:-1], "each change begins where the last one ended"
        assert states[-1] == row["status"]
        assert row["version"] == 1 + len(steps) + len(self._events("document_id", row["id"], "document.edited"))

    def _check_job(self, row: sqlite3.Row) -> None:
        finals = [event for event in FINAL for _ in self._events("job_id", row["id"], event)]
        assert [FINAL[event] for event in finals] == [row["state"]], dict(row)
        fences = [start["fence"] for start in self._events("job_id", row["id"], "job.started")]
        assert fences == list(range(1, row["fence"] + 1)), "every claim raises the fence by one"
        assert row["tries"] <= row["max_tries"]
        if row["state"] == "SUCCEEDED":
            self._check_publisher(row["id"])

    def _check_publisher(self, job_id: str) -> None:
        """The result is of the last claim, by the worker that made it and still held it."""
        query = "SELECT event, actor, data FROM events WHERE job_id = ? AND event LIKE 'job.%' ORDER BY seq"
        claim, end = [row for row in self.rows(query, job_id) if row["event"] != "job.fenced"][-2:]
        assert (claim["event"], end["event"]) == ("job.started", "job.succeeded")
        assert claim["actor"] == end["actor"]
        assert json.loads(claim["data"])["fence"] == json.loads(end["data"])["fence"]

    def _events(self, column: str, subject: str, event: str) -> list[dict[str, Any]]:
        query = f"SELECT data FROM events WHERE {column} = ? AND event = ? ORDER BY seq"  # noqa: S608 - our own names
        return [json.loads(row["data"]) for row in self.rows(query, subject, event)]
