"""What the check finds, and how it reads: in bounded pages, and everything that looks wrong once more."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Connection, Row, Select, literal, tuple_

from app.database import Database

PAGE = 1000  # rows that are read at once
MOMENT = 0.5  # seconds between two looks, in which a change that was under way is committed

Rows = Sequence[Row[Any]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be. `file` is the key of a stored file, `owner_id` the account's id."""

    code: str
    detail: str
    document_id: UUID | None = None
    owner_id: UUID | None = None
    file: str | None = None

    def __str__(self) -> str:
        about = [f"document {self.document_id}"] if self.document_id else []
        about += [f"account {self.owner_id}"] if self.owner_id and not about else []
        about += [self.file] if self.file else []
        return ": ".join([self.code, *([", ".join(about)] if about else []), self.detail])

    def as_json(self) -> dict[str, Any]:
        """What a program reads: `code`, `document_id` and `detail` always, the others where they are known."""
        more = {"owner_id": self.owner_id and str(self.owner_id), "file": self.file}
        of = {"code": self.code, "document_id": self.document_id and str(self.document_id), "detail": self.detail}
        return of | {name: value for name, value in more.items() if value}


Judge = Callable[[Rows], list[Finding]]


async def walk(
    db: Database, query: Select[Any], key: Sequence[Column[Any]], size: int = PAGE
) -> AsyncIterator[tuple[Select[Any], Rows]]:
    """Yield all rows of the query in the order of the key, which it must select: in pages, each with its query."""
    page = first = query.order_by(*key).limit(size)
    while rows := await db.read(partial(rows_of, query=page)):
        yield page, rows
        last = [literal(getattr(rows[-1], each.name), each.type) for each in key]
        page = first.where(tuple_(*key) > tuple_(*last))


async def examined(
    db: Database, query: Select[Any], key: Sequence[Column[Any]], judge: Judge
) -> AsyncIterator[Finding]:
    """Yield what `judge` finds in the rows of the query, and finds again a moment later."""
    async for page, rows in walk(db, query, key):
        for finding in await confirmed(db, page, judge, judge(rows)):
            yield finding


async def confirmed(db: Database, page: Select[Any], judge: Judge, found: list[Finding]) -> list[Finding]:
    """Those of the findings that `judge` finds again in the same page."""
    if not found:
        return found
    await asyncio.sleep(MOMENT)
    again = set(judge(await db.read(partial(rows_of, query=page))))
    return [finding for finding in found if finding in again]


def rows_of(conn: Connection, query: Select[Any]) -> Rows:
    """The rows of a query."""
    return conn.execute(query).all()
