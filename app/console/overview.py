"""The first page: what there is, what runs, what failed, what came in."""

from typing import Any

from fastapi import Request, Response

from app.auth.dependencies import CurrentPrincipal, Service as Accounts
from app.auth.principal import Principal, Scope
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.documents.activity import MOST
from app.documents.dependencies import Service
from app.documents.lifecycle import Status
from app.documents.listing import MANY
from app.documents.schemas import Filters
from app.documents.service import DocumentService

router = pages_for(Scope.DOCUMENTS_READ)

_SHOWN = 8  # documents in each list
_DRAWN = (Status.COMPLETED, Status.FAILED, Status.PROCESSING, Status.UPLOADED)  # in a bar, from below


@router.get("")
@router.get("/")
async def overview(request: Request, principal: CurrentPrincipal, documents: Service, accounts: Accounts) -> Response:
    """What a user sees first."""
    account = await accounts.account(principal.owner_id)
    return pages.page(request, "overview.html", account=account, **await _gathered(documents, principal))


async def _gathered(documents: DocumentService, principal: Principal) -> dict[str, Any]:
    return {
        "counts": await documents.by_status(principal),
        "hours": await documents.by_hour(principal),
        "drawn": _DRAWN,
        "many": MANY,
        "most": MOST,
        "running": await _latest(documents, principal, status=Status.PROCESSING),
        "failed": await _latest(documents, principal, status=Status.FAILED),
        "latest": await _latest(documents, principal),
    }


async def _latest(documents: DocumentService, principal: Principal, **filters: Any) -> Any:
    return (await documents.find(principal, Filters(**filters), _SHOWN, None)).items
