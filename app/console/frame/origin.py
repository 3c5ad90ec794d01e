"""That a form was sent by one of the console's own pages: with the cookie, other sites could send theirs.

Browsers say so in `Sec-Fetch-Site` (W3C Fetch Metadata), old ones and those without TLS in `Origin` (RFC 6454).
"""

from urllib.parse import urlsplit, urlunsplit

from fastapi import Request

from app.errors import Forbidden

_SAFE = ("GET", "HEAD", "OPTIONS")


def require_own_page(request: Request) -> None:
    """Raise Forbidden for what may change something and was not sent by a page of this host."""
    if request.method in _SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        host = request.headers.get("host", "").lower()
        own = host != "" and _host(request.headers.get("origin", "")) == host
    else:
        own = site == "same-origin"
    if not own:
        raise Forbidden("The console takes only what its own pages send.")


def require_private(request: Request) -> None:
    """Raise Forbidden for a request that came as no browser would send it over TLS, or to its own machine."""
    if is_exposed(request):
        raise Forbidden("Signing in needs HTTPS: without it, browsers do not keep the session's cookie.")


def page_before(request: Request) -> str | None:
    """The path and query of the page of this host that led here, if the browser says so (RFC 9110 §10.1.3)."""
    referer = request.headers.get("referer", "")
    if _host(referer) != request.headers["host"].lower():
        return None
    return urlunsplit(urlsplit(referer)._replace(scheme="", netloc="", fragment=""))


def is_exposed(request: Request) -> bool:
    """Whether the browser does not trust the connection: it then sends no `Sec-Fetch-Site`, and keeps no cookie."""
    return "sec-fetch-site" not in request.headers and request.headers.get("origin", "http:").startswith("http:")


def _host(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
