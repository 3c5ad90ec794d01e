"""What a handler may ask for besides its parameters: a service, an id from the path that shows in the logs, a token."""

from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Depends, Path, Request


def service(name: str) -> Any:
    """For `Annotated`: the service that `app.state.services` has under this name."""

    def get(request: Request) -> Any:
        return getattr(request.app.state.services, name)

    return Depends(get)


def bearer_token(authorization: str) -> str | None:
    """The token in an Authorization header, or None if its scheme is another (RFC 9110 §11.6.2, RFC 6750 §2.1)."""
    scheme, _, token = authorization.partition(" ")
    return token.lstrip(" ") if scheme.lower() == "bearer" else None


def bound(name: str) -> Any:
    """For `Annotated`: the UUID that the path has under this name, bound to the log context under the same name."""

    def bind(value: Annotated[UUID, Path(alias=name)]) -> UUID:
        structlog.contextvars.bind_contextvars(**{name: str(value)})
        return value

    return Depends(bind)
