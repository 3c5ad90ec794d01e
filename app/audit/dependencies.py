"""How a call tells that an operator has read what is not theirs."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request


def _noted(request: Request) -> Any:
    return partial(request.app.state.services.audit.note, request.scope["route"].operation_id)


Noted = Annotated[Callable[[Mapping[str, Any], UUID | None], Awaitable[None]], Depends(_noted)]
"""`AuditTrail.note` of the operation that is called."""
