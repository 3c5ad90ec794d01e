"""Cross-origin calls from browsers (Fetch standard, "HTTP-CORS protocol")."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

_ALLOWED = (
    *("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"),
    *("X-API-Key", "X-Break-Glass", "X-Request-ID"),
    *("If-Match", "If-None-Match", "If-Range", "Range"),
)
_EXPOSED = (
    *("Accept-Ranges", "Content-Disposition", "Content-Range", "ETag", "Location", "Retry-After"),
    *("Idempotent-Replayed", "RateLimit", "RateLimit-Policy", "WWW-Authenticate", "X-Request-ID"),
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_REMEMBERED = 600  # seconds for which a browser need not ask again


def install(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these origins call the API and read its answers, errors included. No cookies are involved."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_ALLOWED,
        expose_headers=_EXPOSED,
        max_age=_REMEMBERED,
    )
