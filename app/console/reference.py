"""The API's reference, where calls are tried as whoever is signed in."""

from fastapi import Request, Response
from pydantic import BaseModel

from app.auth.dependencies import CurrentPrincipal, Service
from app.auth.principal import Scope
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.telemetry import context
from app.web import docs, policy
from app.web.body import json_response

router = pages_for(Scope.ACCOUNT_READ)

_POLICY = f"{policy.of_page('', **docs.SOURCES)}; form-action 'self'"


class Token(BaseModel):
    """An access token."""

    access_token: str


@router.get("/reference")
async def reference(request: Request) -> Response:
    """All calls. Its script needs more than other pages allow: pictures in the style of Swagger UI."""
    files = f"{context.prefix.get()}{docs.ASSETS}"
    described = f"{context.prefix.get()}{request.app.openapi_url}"
    response = pages.page(request, "reference.html", files=files, described=described)
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@router.post("/reference/token")
async def token(principal: CurrentPrincipal, service: Service) -> Response:
    """A token for the page, which keeps it to itself. It is of the session, and ends with it."""
    return json_response(Token(access_token=service.access_token(principal)))
