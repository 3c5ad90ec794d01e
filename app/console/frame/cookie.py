"""The cookie of a browser's session. By its prefix, browsers take it from this host only, and by TLS (RFC 6265bis)."""

from fastapi import Response

NAME = "__Host-session"


def put(response: Response, value: str) -> Response:
    """Have the browser keep the cookie until it is closed."""
    response.set_cookie(NAME, value, path="/", secure=True, httponly=True, samesite="strict")
    return response


def remove(response: Response) -> Response:
    """Have the browser forget the cookie."""
    response.delete_cookie(NAME, path="/", secure=True, httponly=True, samesite="strict")
    return response
