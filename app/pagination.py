"""Keyset pagination: a page begins where the last one ended, so page 1,000 costs what page 1 does."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Query
from pydantic import BaseModel, Field

from app.errors import InvalidCursor

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=100, description="Items on a page.")]
Cursor = Annotated[str | None, Query(max_length=2048, description="`next_cursor` of the page before.")]


class Page(BaseModel, Generic[T]):
    """One page of a list. Subclassed for each kind of item, so that the schema has a name of its own."""

    items: list[T]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last.")


def encode(*keys: Any) -> str:
    """An opaque cursor over the sort keys of a page's last item."""
    return urlsafe_b64encode(orjson.dumps(keys)).rstrip(b"=").decode()


def decode(cursor: str, *kinds: type) -> list[Any]:
    """The keys of a cursor, one of each kind. Raises InvalidCursor for anything `encode` did not make."""
    try:
        keys = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        raise InvalidCursor from None
    if not isinstance(keys, list) or [type(key) for key in keys] != list(kinds):
        raise InvalidCursor
    return keys


def page(rows: list[T], limit: int) -> tuple[list[T], T | None]:
    """Split `limit + 1` fetched rows into a page and the row that its cursor is made of (None on the last page)."""
    items = rows[:limit]
    return items, items[-1] if len(rows) > limit else None
