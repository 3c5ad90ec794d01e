"""What is in the database between two steps: what must hold of the rows alone, and that they are what a model says."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import Row, select

from app.documents.lifecycle import SOURCES, Status
from app.documents.models import documents, previous_files
from app.jobs.models import LIVE, jobs
from app.processing.models import previous_results, results
from tests.support.invariants import CHANGES, Ledger
from tests.support.model import Model

ABOUT = ("status", "version", "job_id", "file_number", "deleted_at", "expires_at", "hold")
FACTS = ("state", "fence", "tries", "dead", "locked_until", "run_at")


class Rows(NamedTuple):
    """By their ids; results by document and processor. Those that documents had before also by their file's number."""

    documents: dict[UUID, Row[Any]]
    jobs: dict[UUID, Row[Any]]
    results: dict[tuple[UUID, str], Row[Any]]
    files: dict[tuple[UUID, int], Row[Any]]
    previous: dict[tuple[UUID, int, str], Row[Any]]

    @classmethod
    def of(cls, ledger: Ledger) -> Self:
        return cls(
            {row.id: row for row in ledger.rows(select(documents))},
            {row.id: row for row in ledger.rows(select(jobs))},
            {(row.document_id, row.processor): row for row in ledger.rows(select(results))},
            {(row.document_id, row.number): row for row in ledger.rows(select(previous_files))},
            {(row.document_id, row.file_number, row.processor): row for row in ledger.rows(select(previous_results))},
        )

    def follow_legally(self, before: Self, events: Sequence[Row[Any]]) -> None:
        """Assert what the lifecycle promises of these rows, after those and with these events between them."""
        for document_id, row in self.documents.items():
            live = [job for job in self.jobs.values() if job.document_id == row.id and job.state in LIVE]
            assert len(live) == (row.status == "PROCESSING")
            makers = {result.job_id for result in self.results.values() if result.document_id == document_id}
            assert (row.job_id in makers) == (row.status == "COMPLETED")
            old = before.documents.get(document_id, row)
            changed = old.status != row.status
            assert not changed or old.status in SOURCES[Status(row.status)]
            others = sum((event.document_id, event.event in CHANGES) == (row.id, True) for event in events)
            replaced = row.file_number != old.file_number
            assert row.version == old.version + (changed or replaced) + others
            assert row.status != "PROCESSING" or row.deleted_at is None
            changes = [event.data for event in events if is_change(event, row.id)]
            assert changes == [{"old": old.status, "new": row.status}] * changed
        for job_id, row in self.jobs.items():
            old = before.jobs.get(job_id, row)
            assert row.fence - old.fence in {0, 1}
            assert old.state in LIVE or old.state == row.state
        assert all(row.status != "PROCESSING" for id_, row in before.documents.items() if id_ not in self.documents)

    def hold(self, model: Model) -> None:
        """Assert that these are the rows of the model."""
        documents = {id_: [getattr(row, name) for name in ABOUT] for id_, row in self.documents.items()}
        assert documents == {each.id: [getattr(each, name) for name in ABOUT] for each in model.kept}
        jobs = {id_: [getattr(row, name) for name in FACTS] for id_, row in self.jobs.items()}
        kept = [job for job in model.jobs if not job.document.deleted]
        assert jobs == {job.id: [getattr(job, name) for name in FACTS] for job in kept}
        results = {of: row.job_id for of, row in self.results.items()}
        published = [(each.id, *pair) for each in model.kept for pair in each.published.items()]
        assert results == {(id_, name): attempt.job.id for id_, name, attempt in published}
        self._hold_previous(model)

    def _hold_previous(self, model: Model) -> None:
        """Assert that the model has the files that documents had before, and their results."""
        before = [(each.id, number, file) for each in model.kept for number, file in each.previous.items()]
        files = {of: (row.file_id, row.keep) for of, row in self.files.items()}
        assert files == {(id_, number): (file.id, file.keep) for id_, number, file in before}
        made = {of: row.job_id for of, row in self.previous.items()}
        pairs = [(id_, number, *pair) for id_, number, file in before for pair in file.published.items()]
        assert made == {(id_, number, name): attempt.job.id for id_, number, name, attempt in pairs}


def is_change(event: Row[Any], document_id: UUID) -> bool:
    return (event.event, event.document_id) == ("document.status_changed", document_id)


def told(event: Row[Any]) -> tuple[Any, ...]:
    """An event in the model's terms."""
    facts = {(key, value) for key, value in event.data.items() if key in {"old", "new", "fence"}}
    return event.event, event.document_id, event.job_id, frozenset(facts)
