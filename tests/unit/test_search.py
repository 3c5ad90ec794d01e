"""A search that uses the index finds the same as one that reads all documents, whatever was changed meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from app.auth.models import users
from app.database import Database, now
from app.documents import listing, search
from app.documents.models import document_texts, documents, unindexed_documents
from app.documents.schemas import Filters
from tests.support import databases

OWNER, STRANGER = UUID(int=1), UUID(int=2**36)  # whose marks differ
CHEROKEE, LOWERED = "\u13a0\u13a1\u13a2", "\uab70\uab71\uab72"
NAMES = [
    *(
        "École d'été.pdf",
        "ÉTÉ.pdf",
        "straße.pdf",
        "STRASSE.pdf",
        "İstanbul.pdf",
        "istanbul.pdf",
        "ΟΔΟΣ.pdf",
        "οδοσ.pdf",
    ),
    *("100%_done/x.pdf", "100 done.pdf", 'say "hi".pdf', "日本語の書類.pdf", "a\U0001f600b.pdf", f"{CHEROKEE}.pdf"),
    *("taxi.pdf", "TAXİ"),
]
SEARCHES = [
    *("école", "ÉTÉ", "été", "strass", "straß", "stanbul", "istanbul", "İSTANBUL", "i\u0307st", "οδο", "ΟΔΟΣ", "οδος"),
    *(
        "οδοσ",
        "100%",
        "%_d",
        "_do",
        "/x.",
        '"hi"',
        "日本語",
        "本語の",
        "a\U0001f600b",
        CHEROKEE,
        LOWERED,
        "taxi",
        "axi",
    ),
    *(".pdf\ntext", "text", "no such", "é", "ab", "\\", "'", "AND", "pdf OR taxi"),
]


def values(owner_id: UUID, filename: str, description: str | None) -> dict[str, Any]:
    at = datetime.now(UTC)
    state = {"status": "UPLOADED", "version": 1, "size": 1, "content_type": "application/pdf", "tags": []}
    text = {"filename": filename, "description": description}
    return {"id": uuid4(), "owner_id": owner_id, "created_at": at, "updated_at": at, **state, **text}


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    databases.prepare(tmp_path / "var")
    db = databases.database(tmp_path / "var")
    await asyncio.to_thread(db.migrate)

    def fill(conn: Connection) -> None:
        for owner in (OWNER, STRANGER):
            person = {"id": owner, "email": str(owner), "password_hash": "", "active": True, "created_at": now()}
            conn.execute(insert(users).values(person))
            rows = [values(owner, name, description) for name in NAMES for description in (None, f"Text of {name}")]
            conn.execute(insert(documents), rows)

    await db.write(fill)
    yield db
    await db.close()


async def found(db: Database, q: str, few: int) -> list[UUID]:
    with patch.object(listing, "FEW", few):
        page = await db.search(lambda conn: listing.page(conn, OWNER, Filters.model_construct(q=q), None, 1000))
    return [document.id for document in page]


async def test_it_finds_the_same_with_and_without_the_index(db: Database) -> None:
    await search.index_documents(db)
    counts = {q: len(await found(db, q, 1000)) for q in SEARCHES}
    assert counts == {q: len(await found(db, q, -1)) for q in SEARCHES}
    assert all(counts[q] for q in ("ÉTÉ", "istanbul", "100%", "日本語", '"hi"', CHEROKEE, "taxi"))


async def test_what_has_changed_since_is_found(db: Database) -> None:
    await search.index_documents(db)
    ids = await found(db, "taxi", 1000)

    def change(conn: Connection) -> None:
        conn.execute(update(documents).where(documents.c.id == ids[0]).values(filename="bicycle.pdf", description=None))
        conn.execute(delete(documents).where(documents.c.id == ids[1]))
        conn.execute(insert(documents).values(values(OWNER, "bicycle two.pdf", None)))

    await db.write(change)
    for _ in range(2):  # from the queue, then from the index
        assert len(await found(db, "bicycle", 1000)) == 2
        assert set(await found(db, "taxi", 1000)) == set(ids[2:])
        await search.index_documents(db)


async def test_the_index_has_what_there_is_and_nothing_of_what_was(db: Database) -> None:
    await search.index_documents(db)
    await db.write(lambda conn: conn.execute(delete(documents).where(documents.c.filename != "taxi.pdf")))
    with patch.object(search, "BATCH", 7):
        await search.index_documents(db)

    def left(conn: Connection) -> tuple[int, int, int]:
        counts = [conn.scalar(select(func.count()).select_from(each)) for each in (document_texts, unindexed_documents)]
        gone = search.candidates(conn, OWNER, "istanbul")
        assert gone is not None
        return counts[0] or 0, counts[1] or 0, len(conn.execute(gone).all())

    assert await db.read(left) == (4, 0, 0)


async def test_others_documents_are_no_candidates(db: Database) -> None:
    await search.index_documents(db)

    def owners(conn: Connection) -> set[UUID]:
        query = search.candidates(conn, OWNER, "pdf")
        assert query is not None
        return set(conn.scalars(select(documents.c.owner_id).where(documents.c.id.in_(query))))

    assert await db.read(owners) == {OWNER}
