"""What the calls of operators share: their router, their services, and the reason for reading what is not theirs."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import AfterValidator, StringConstraints, TypeAdapter, ValidationError

from app.auth.dependencies import authenticated_router
from app.auth.principal import Scope
from app.jobs.pauses import MAX_REASON
from app.operators.documents import AllDocuments
from app.operators.jobs import AllJobs
from app.operators.processors import PausedProcessors
from app.operators.status import ServiceStatus
from app.operators.workload import Workload
from app.web.dependencies import service
from app.web.fields import LINE
from app.web.problems import invalid

HEADER = "X-Break-Glass"


def _printable(reason: str) -> str:
    """The reason, which the owner must be able to read. Raises ValueError for characters that do not show."""
    if not reason.isprintable():
        raise ValueError("characters that do not show")
    return reason


_REASON = TypeAdapter(
    Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON, pattern=LINE),
        AfterValidator(_printable),
    ]
)


@dataclass(frozen=True, slots=True)
class Operators:
    """What operators do with what belongs to all accounts."""

    documents: AllDocuments
    jobs: AllJobs
    processors: PausedProcessors
    workload: Workload


Operating = Annotated[Operators, service("operators")]
StatusOf = Annotated[Callable[[], Awaitable[ServiceStatus]], service("status")]


def admin_router() -> APIRouter:
    """A router of calls for operators."""
    return authenticated_router(Scope.OPERATOR, prefix="/admin", tags=["operators"])


def break_glass(request: Request) -> str | None:
    """The reason in the header, None without one. Raises ValidationFailed for one that is no line of text."""
    sent = ", ".join(request.headers.getlist(HEADER))
    if HEADER not in request.headers:
        return None
    with suppress(UnicodeDecodeError):  # clients send UTF-8, or the ISO 8859-1 of old
        sent = sent.encode("latin-1").decode()
    return stated_reason(sent, "header", HEADER)


def stated_reason(sent: str, *where: str) -> str:
    """The reason that was sent at this place of the request. Raises ValidationFailed unless it is a line of text."""
    try:
        return _REASON.validate_python(sent)
    except ValidationError as error:
        raise invalid(error, *where) from None
