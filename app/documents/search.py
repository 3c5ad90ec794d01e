"""The index in which a search looks for parts of names and descriptions.

It holds runs of three characters: a trigram index of PostgreSQL's pg_trgm, or of SQLite's FTS5. To add a document takes
longer than to insert its row, so uploads do not wait for it: triggers queue each document that was added, changed or
deleted, by whatever process, and a chore indexes what is queued. Documents in the queue are candidates of every search.

What the index finds is only a candidate: whether a document matches, and whose it is, is decided by its row.
"""

from uuid import UUID

from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    collate,
    column,
    delete,
    func,
    literal,
    select,
    table,
    text,
    union_all,
)
from sqlalchemy.sql.selectable import CompoundSelect

from app.database import Database, case_insensitive, insert_on_conflict
from app.documents.models import document_texts, documents, unindexed_documents

INDEX_INTERVAL = 5.0  # seconds
BATCH = 200  # documents that are indexed in one transaction: 10 ms
GRAM = 3  # characters
GRAMS = 32  # at the most, that are looked up for one search

_words = table("document_words", column("rowid"))  # FTS5, on SQLite
_FOLDED = func.lower(case_insensitive(bindparam("text")))

Candidates = CompoundSelect[UUID]


async def index_documents(db: Database) -> None:
    """Index what is queued."""
    while await db.read(_is_queued) and await db.write(index_batch) == BATCH:
        pass


def index_batch(conn: Connection) -> int:
    """Index up to BATCH queued documents. Returns how many were queued."""
    queued = unindexed_documents.c
    oldest = select(queued.number, queued.document_id).order_by(queued.number).limit(BATCH)
    rows = conn.execute(oldest.with_for_update(skip_locked=True)).all()
    ids = {row.document_id for row in rows}
    conn.execute(delete(document_texts).where(document_texts.c.document_id.in_(ids)))
    found = select(documents.c.id, documents.c.owner_id, documents.c.filename, documents.c.description)
    texts = [
        {"document_id": id_, "owner_id": owner_id, "text": _text(conn, owner_id, filename, description)}
        for id_, owner_id, filename, description in conn.execute(found.where(documents.c.id.in_(ids)))
    ]
    if texts:
        insert = insert_on_conflict(conn, document_texts).values(text=_FOLDED)
        # On PostgreSQL another process may have indexed a document meanwhile: this unit is then run again.
        conn.execute(insert.on_conflict_do_nothing(index_elements=["document_id"]), texts)
    conn.execute(delete(unindexed_documents).where(queued.number.in_([row.number for row in rows])))
    return len(rows)


def candidates(conn: Connection, owner_id: UUID | None, q: str) -> Candidates | None:
    """Return a query for the ids of all documents that may match, of this owner if one is given; None if the index
    cannot tell."""
    found = _on_sqlite(conn, owner_id, q) if conn.dialect.name == "sqlite" else _on_postgresql(owner_id, q)
    return None if found is None else union_all(found, select(unindexed_documents.c.document_id))


def _is_queued(conn: Connection) -> bool:
    return conn.scalar(select(unindexed_documents.c.number).limit(1)) is not None


def _text(conn: Connection, owner_id: UUID, filename: str, description: str | None) -> str:
    whole = f"{filename}\n{description or ''}"
    # SQLite's lower() knows only ASCII; readers have Python's. Its index has no column for the owner.
    return _mark(owner_id) + whole.lower() if conn.dialect.name == "sqlite" else whole


def _mark(owner_id: UUID) -> str:
    """Return three characters that stand for an owner, of those that Unicode leaves for private use."""
    return "".join(chr(0xE000 + (owner_id.int >> shift & 0xFFF)) for shift in (0, 12, 24))


def _on_sqlite(conn: Connection, owner_id: UUID | None, q: str) -> Select[tuple[UUID]] | None:
    lowered = q.lower()
    marks = [] if owner_id is None else [_mark(owner_id)]
    grams = [*marks, *dict.fromkeys(lowered[at : at + GRAM] for at in range(len(lowered) - GRAM + 1))]
    if len(grams) == len(marks) or not conn.scalar(text("SELECT 1 FROM sqlite_master WHERE name = 'document_words'")):
        return None
    quoted = ['"' + gram.replace('"', '""') + '"' for gram in grams[:GRAMS]]
    matches = text("document_words MATCH :grams").bindparams(grams=" AND ".join(quoted))
    indexed = _words.join(document_texts, document_texts.c.number == _words.c.rowid)
    return select(document_texts.c.document_id).select_from(indexed).where(matches)


def _on_postgresql(owner_id: UUID | None, q: str) -> Select[tuple[UUID]] | None:
    if len(q) < GRAM:
        return None
    escaped = q.replace("/", "//").replace("%", "/%").replace("_", "/_")
    pattern = collate(func.lower(case_insensitive(literal(f"%{escaped}%"))), "C")
    found = select(document_texts.c.document_id).where(document_texts.c.text.like(pattern, escape="/"))
    return found if owner_id is None else found.where(document_texts.c.owner_id == owner_id)
