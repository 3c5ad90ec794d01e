"""SQLite is told how to find a page: by a filter that fits few documents, else in the order that is asked for."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from sqlalchemy import Connection, create_engine, event, insert

from app.auth.models import users
from app.database import metadata, now
from app.documents import listing
from app.documents.models import document_tags, documents
from app.documents.schemas import Filters
from app.web.pagination import Keyset

OWNER, STRANGER = UUID(int=1), UUID(int=2)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FILTERS: list[dict[str, Any]] = [
    {},
    {"status": "FAILED"},
    {"folder": "f1"},
    {"tag": "t1"},
    {"sha256": f"{4:064}"},
    {"created_after": "2026-01-01T00:00:10Z", "created_before": "2026-01-01T00:00:20Z"},
    {"status": "UPLOADED", "folder": "f0", "tag": "t0", "created_after": "2026-01-01T00:00:05Z"},
]
SORTS = ("created_at", "-created_at", "filename", "-size")


@pytest.fixture(scope="module")
def conn() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as conn:
        metadata.create_all(conn)
        for owner in (OWNER, STRANGER):
            person = {"id": owner, "email": str(owner), "password_hash": "", "active": True, "created_at": now()}
            conn.execute(insert(users).values(person))
        for number in range(60):
            add(conn, number)
        yield conn
    engine.dispose()


def add(conn: Connection, number: int) -> None:
    at, tag, id_ = BEGIN + timedelta(seconds=number), f"t{number % 4}", UUID(int=1000 + number)
    conn.execute(
        insert(documents).values(
            id=id_,
            owner_id=STRANGER if number % 7 == 0 else OWNER,
            filename=f"{number * 31 % 60:02}.pdf",
            content_type="application/pdf",
            size=number * 17 % 20,
            sha256=f"{number % 10:064}",
            status="FAILED" if number % 9 == 0 else "UPLOADED",
            version=1,
            folder=f"f{number % 3}",
            tags=[tag],
            created_at=at,
            updated_at=at,
        )
    )
    conn.execute(insert(document_tags).values(document_id=id_, tag=tag))


def walked(conn: Connection, filters: Filters) -> list[UUID]:
    """All ids, three a page."""
    ids: list[UUID] = []
    after = None
    while page := listing.page(conn, OWNER, filters, after, 3):
        ids += [each.id for each in page]
        after = Keyset(getattr(page[-1], filters.sort_column), page[-1].id)
    return ids


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("given", FILTERS, ids=str)
def test_either_way_finds_the_same(conn: Connection, given: dict[str, Any], sort: str) -> None:
    filters = Filters(sort=sort, **given)
    found = []
    for few in (-1, 1000):
        with patch.object(listing, "FEW", few):
            found.append(walked(conn, filters))
    assert found[0] == found[1]
    assert found[0]
    assert found[0] == [each.id for each in listing.page(conn, OWNER, filters, None, 100)]


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({"status": "FAILED"}, "ix_documents_owner_id_status_created_at_id"),
        ({"folder": "f1"}, "ix_documents_owner_id_folder_created_at_id"),
        ({"sha256": "0" * 64}, "ix_documents_owner_id_sha256_created_at_id"),
        ({"tag": "t1"}, "sqlite_autoindex_documents_1"),
        ({"created_before": "2026-01-01T00:00:03Z"}, "ix_documents_owner_id_created_at_id"),
        # Two that fit few, and one that is searched for.
        ({"folder": "f1", "tag": "t1"}, "ix_documents_owner_id_folder_created_at_id"),
    ],
    ids=str,
)
@pytest.mark.parametrize("after", [None, Keyset("30.pdf", UUID(int=1030))])
def test_by_what_it_is_found(conn: Connection, given: dict[str, Any], index: str, after: Keyset | None) -> None:
    filters = Filters(sort="filename", **given)
    assert index in plan(conn, lambda: listing.page(conn, OWNER, filters, after, 50))
    with patch.object(listing, "FEW", -1):
        by_order = plan(conn, lambda: listing.page(conn, OWNER, filters, after, 50))
    assert "ix_documents_owner_id_filename_id" in by_order
    assert "TEMP B-TREE" not in by_order


def plan(conn: Connection, ask: Callable[[], object]) -> str:
    """That of the last statement."""
    executed: list[tuple[str, Any]] = []

    def record(*execution: Any) -> None:
        executed.append((execution[2], execution[3]))

    event.listen(conn, "before_cursor_execute", record)
    ask()
    event.remove(conn, "before_cursor_execute", record)
    sql, parameters = executed[-1]
    return str(conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).all())
