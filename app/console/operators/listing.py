"""What the pages of lists share: the queries of the first page and of the next one."""

from typing import Any
from urllib.parse import urlencode

from fastapi import Request


def around(request: Request, next_cursor: str | None) -> dict[str, Any]:
    """The queries with this list's filters: of its first page, of the next one if there is any."""
    given = {name: value for name, value in request.query_params.items() if name != "cursor"}
    return {
        "first": urlencode(given),
        "more": urlencode(given | {"cursor": next_cursor}) if next_cursor else None,
        "cursor": "cursor" in request.query_params,
    }
