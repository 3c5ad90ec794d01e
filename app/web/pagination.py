"""Keyset pagination: a page starts after the last item of the page before, so page 1,000 costs as much as page 1."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import orjson
from fastapi import Query, Response
from pydantic import BaseModel, Field

from app.errors import InvalidCursor

T = TypeVar("T")

_MAX_INTEGER = 2**63 - 1  # of a BIGINT column

Limit = Annotated[int, Query(ge=1, le=100, description="Items on a page.")]
Count = Annotated[bool, Query(description="Also count the whole list, which may take long.")]
Cursor = Annotated[str | None, Query(max_length=2048, description="`next_cursor` of the page before.")]


class Page(BaseModel, Generic[T]):
    """One page of a list. Subclassed for each kind of item, so that the schema has a name of its own."""

    items: list[T]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last.")


class CountedPage(Page[T]):
    """One page of a list that can say how long it is."""

    total: int | None = Field(None, description="Items in the whole list; only there with `count=true`.")


class Keyset(NamedTuple):
    """The position of an item in a list: its value in the column sorted by, and its id, which breaks ties."""

    value: Any
    id: UUID


def encode(order: str, value: Any, item_id: UUID) -> str:
    """An opaque cursor that holds the list's order and the keyset of the page's last item."""
    return urlsafe_b64encode(orjson.dumps((order, value, item_id))).rstrip(b"=").decode()


def decode(cursor: str, order: str, kind: type[int | str | datetime]) -> Keyset:
    """The keyset in a cursor. Raises InvalidCursor for anything that `encode` did not make for this order."""
    try:
        made_for, value, item_id = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        value = datetime.fromisoformat(value).astimezone(UTC) if kind is datetime else value
        keyset = Keyset(value, UUID(item_id))
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise InvalidCursor from None
    if made_for != order or type(value) is not kind or not _storable(value):
        raise InvalidCursor
    return keyset


def _storable(value: int | str | datetime) -> bool:
    """Whether a database can store the value."""
    if isinstance(value, int):
        return abs(value) <= _MAX_INTEGER
    return not isinstance(value, str) or "\0" not in value


def page(rows: list[T], limit: int) -> tuple[list[T], T | None]:
    """Split up to `limit + 1` fetched rows into a page and its last row, for the cursor (None on the last page)."""
    items = rows[:limit]
    return items, items[-1] if len(rows) > limit else None


def page_response(page: CountedPage[Any]) -> Response:
    """A page as JSON, with its total if it was counted."""
    return Response(
        page.model_dump_json(exclude={"total"} if page.total is None else None), media_type="application/json"
    )
