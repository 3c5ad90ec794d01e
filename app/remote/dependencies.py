"""Who holds a claim: its token is checked before a byte of the body is read."""

from contextvars import ContextVar
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Security

from app.auth.dependencies import BEARER
from app.errors import InvalidJobToken, InvalidToken, Unauthorized
from app.processing.routes import JobId
from app.remote.tokens import Claim
from app.telemetry import context
from app.web.dependencies import bearer_token
from app.web.route import Route

_current: ContextVar[Claim] = ContextVar("claim")


class _ClaimRoute(Route):
    """A route about one job, for the worker that has claimed it. Its requests count for the client's address."""

    async def admit(self, request: Request) -> None:
        """Raises RateLimited, Unauthorized, InvalidJobToken."""
        await super().admit(request)
        sent = request.headers.getlist("authorization")
        token = bearer_token(sent[0]) if sent else None
        if token is None:
            raise Unauthorized("Send the token of the claim as Authorization: Bearer.")
        try:
            claim: Claim = request.app.state.services.remote.claiming.tokens.verify(token)
        except InvalidToken:
            raise InvalidJobToken from None
        if len(sent) > 1:
            raise InvalidJobToken
        context.actor.set(context.remote(claim.worker))
        _current.set(claim)


def _current_claim(job_id: JobId) -> Claim:
    claim = _current.get()
    if claim.job_id != job_id:
        raise InvalidJobToken
    return claim


CurrentClaim = Annotated[Claim, Depends(_current_claim)]


def claim_router(*, body_limit: int = Route.max_body, tag: str) -> APIRouter:
    """A router for the holders of claims, which takes JSON of up to `body_limit` bytes."""

    class LimitedRoute(_ClaimRoute):
        max_body = body_limit

    return APIRouter(
        prefix="/remote/jobs/{job_id}", route_class=LimitedRoute, dependencies=[Security(BEARER)], tags=[tag]
    )
