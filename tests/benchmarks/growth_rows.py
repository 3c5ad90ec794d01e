"""A database full of one user's documents, written past the service: a million in about a minute.

All belong to one user, which is the worst case: a list has to find its page among all of them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine

from app import wiring
from app.database import metadata
from app.documents import search
from tests.support.factories import DOCX_TYPE, PDF_TYPE

assert wiring  # imports every module that defines a table

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
STATUSES = ("COMPLETED",) * 7 + ("UPLOADED",) * 2 + ("FAILED",)
CHUNK = 50_000  # documents whose rows go into one transaction

Rows = dict[str, list[tuple[Any, ...]]]

COLUMNS = {
    "documents": "id owner_id filename content_type size sha256 status version description folder tags job_id error"
    " created_at updated_at",
    "document_tags": "tag document_id",
    "jobs": "id kind queue key args document_id owner_id state fence settled_fence tries max_tries run_at queued_at"
    " progress error dead created_at started_at finished_at",
    "document_results": "document_id processor job_id processor_version params input_sha256 data created_at",
    "events": "id event at actor user_id document_id job_id data",
}


def fill(engine: Engine, owner: str, numbers: range) -> None:
    """Add the documents of these numbers. `owner` is the id of a user, in hex."""
    with _without_indexes(engine):
        for start in range(0, len(numbers), CHUNK):
            rows: Rows = {table: [] for table in COLUMNS}
            for number in numbers[start : start + CHUNK]:
                _add(rows, owner, number)
            for table, values in rows.items():
                _insert(engine, table, values)
    indexed = search.BATCH
    while indexed == search.BATCH:
        with engine.begin() as conn:
            indexed = search.index_batch(conn)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.exec_driver_sql("VACUUM ANALYZE")


@contextmanager
def _without_indexes(engine: Engine) -> Iterator[None]:
    """To make an index of all rows takes half the time of adding to it row by row."""
    indexes = [index for table in COLUMNS for index in metadata.tables[table].indexes]
    with engine.begin() as conn:
        for index in indexes:
            index.drop(conn)
    yield
    with engine.begin() as conn:
        for index in indexes:
            index.create(conn)


def _add(rows: Rows, owner: str, number: int) -> None:
    """One document with its tag, its job and result if it was processed, and its events."""
    at = str(created_at(number).replace(tzinfo=None))
    digest = hashlib.sha256(number.to_bytes(8)).hexdigest()
    status = STATUSES[number % len(STATUSES)]
    document, job = document_id(number), _id(number, 1) if status != "UPLOADED" else None
    error = '{"code": "password-protected", "detail": "The file is protected with a password."}'
    error = error if status == "FAILED" else None
    tag, folder = f"tag-{number % 97}", f"folder-{number % 997}"
    kind, size = (PDF_TYPE, DOCX_TYPE)[number % 5 == 0], int(digest[:6], 16)
    name = f"{digest[:6]} report {number}.pdf"
    of_user = f"user:{owner}"
    version = 3 if job else 1
    shown = (f'["{tag}"]', job, error, at, at)
    rows["documents"].append(
        (document, owner, name, kind, size, digest, status, version, f"Invoice {number}", folder, *shown)
    )
    rows["document_tags"].append((tag, document))
    rows["events"].append((_id(number, 2), "document.uploaded", at, of_user, owner, document, None, "{}"))
    if job:
        state = {"COMPLETED": "SUCCEEDED"}.get(status, status)
        ended = (1.0, error, False, at, at, at)
        file = {"key": f"documents/{UUID(document)}", "content_type": kind, "size": size, "sha256": digest}
        args = json.dumps({"processor": "simulated", "version": "1", "params": {}, "file": file})
        waited = ("process", "process/simulated@1", f"document:{UUID(document)}", args)
        rows["jobs"].append((job, *waited, document, owner, state, 1, 1, 1, 5, at, at, *ended))
        event = f"job.{state.lower()}"
        rows["events"].append((_id(number, 3), event, at, "worker:w", owner, document, job, '{"fence": 1}'))
    if status == "COMPLETED":
        rows["document_results"].append((document, "simulated", job, "1", "{}", digest, "{}", at))


def document_id(number: int) -> str:
    """In hex."""
    return _id(number, 0)


def created_at(number: int) -> datetime:
    return BEGIN + timedelta(seconds=number)


def _id(number: int, kind: int) -> str:
    """A UUIDv7, in hex, as of the number's moment."""
    milliseconds = int(BEGIN.timestamp() * 1000) + number * 1000
    return f"{milliseconds:012x}7{kind:03x}8{number:015x}"


def _insert(engine: Engine, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    columns = COLUMNS[table].split()
    connection = engine.raw_connection()
    cursor: Any = connection.cursor()
    if engine.dialect.name == "postgresql":
        with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    else:
        cursor.execute("PRAGMA synchronous=OFF")
        cursor.execute("PRAGMA cache_size=-1000000")
        marks = ", ".join("?" * len(columns))
        cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608
    connection.commit()
    connection.close()
