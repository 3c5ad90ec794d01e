"""Lists that go on: the queries of the first page and of the next one."""

from typing import Any
from urllib.parse import urlencode

from fastapi import Request


def links(request: Request, next_cursor: str | None) -> dict[str, Any]:
    """What `parts.pages` takes: the query without the cursor, that of the next page if there is one, and whether this
    is not the first."""
    given = {name: value for name, value in request.query_params.items() if name != "cursor"}
    return {
        "first": urlencode(given),
        "more": urlencode(given | {"cursor": next_cursor}) if next_cursor else None,
        "later": "cursor" in request.query_params,
    }
