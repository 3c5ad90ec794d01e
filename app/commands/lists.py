"""Lists on the command line: of one account or of all, as many as are wanted, page by page."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from app.commands.fields import M, address
from app.web.pagination import Page
from app.wiring.services import Services

T = TypeVar("T")

PAGE = 100

Owner = Annotated[str | None, typer.Option(metavar="EMAIL", help="Only this account's.")]
Most = Annotated[int, typer.Option(min=1, help="At the most so many.")]


async def of_owner(services: Services, filters: M, email: str | None) -> M:
    """The filters with the `owner_id` of the account, if one is given. Raises NotFound."""
    if email is None:
        return filters
    return filters.model_copy(update={"owner_id": await services.accounts.id_of(address(email))})


async def pages(page: Callable[[int, str | None], Awaitable[Page[T]]], most: int) -> AsyncIterator[T]:
    """Yield up to `most` items of a list. `page` takes a limit and a cursor."""
    left, cursor = most, None
    while left:
        found = await page(min(left, PAGE), cursor)
        for item in found.items:
            yield item
        left, cursor = left - len(found.items), found.next_cursor
        if cursor is None:
            return
