"""A data folder with many documents: rows put straight into the database."""

import uuid
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sqlalchemy import create_engine, insert
from uuid_utils.compat import uuid7

from app.documents.models import documents
from tests.benchmarks import load
from tests.benchmarks.servers import Server, running

DOCUMENTS = 100_000
PAGE = 50
LATE = 1000


class Seed(NamedTuple):
    folder: "TemporaryDirectory[str]"
    first_page: str
    late_page: str


@cache
def many_documents() -> Seed:
    """All of one account. The pages are paths to ask for."""
    folder = TemporaryDirectory(prefix="benchmark-")
    with running("product", Path(folder.name)) as server:
        owner = server.ask(load.get("/auth/me", server.login()))["id"]
    _insert(Path(folder.name) / "app.db", uuid.UUID(owner))
    with running("product", Path(folder.name)) as server:
        return Seed(folder, _page(), _page(_last_cursor(server)))


def _insert(file: Path, owner: uuid.UUID):
    began = datetime.now(UTC) - timedelta(seconds=DOCUMENTS)
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as conn:
        conn.execute(insert(documents), [_document(owner, began + timedelta(seconds=n)) for n in range(DOCUMENTS)])
    engine.dispose()


def _document(owner: uuid.UUID, at: datetime):
    name = uuid.uuid4().hex
    facts = {"filename": f"{name}.pdf", "content_type": "application/pdf", "size": 20_000, "sha256": name * 2}
    state = {"status": "UPLOADED", "version": 1, "tags": [], "created_at": at, "updated_at": at}
    return {"id": uuid7(), "owner_id": owner, **facts, **state}


def _last_cursor(server: Server) -> str:
    """Where the page before the late one ends, got as a client gets there."""
    token, cursor = server.login(), ""
    for _ in range(LATE - 1):
        cursor = server.ask(load.get(_page(cursor), token))["next_cursor"]
    return cursor


def _page(cursor: str = "") -> str:
    return f"/documents?limit={PAGE}" + (f"&cursor={cursor}" if cursor else "")
