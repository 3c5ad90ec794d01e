"""Who may see what concerns operators only: the metrics, and why a process is not ready."""

from ipaddress import ip_address
from secrets import compare_digest

from fastapi import Request
from pydantic import SecretStr

from app.web.dependencies import bearer_token

# What a proxy adds, whether or not FORWARDED_ALLOW_IPS names it: its address may be this host's, its clients are not.
_FORWARDED = ("forwarded", "via", "x-forwarded-", "x-real-ip")


def is_operator(request: Request) -> bool:
    """Whether a request has the METRICS_TOKEN, or comes from this host and through no proxy."""
    return _has_token(request, request.app.state.services.settings.metrics_token) or _is_local(request)


def _has_token(request: Request, expected: SecretStr | None) -> bool:
    sent = bearer_token(request.headers.get("authorization", ""))
    return bool(expected and sent and compare_digest(sent.encode(), expected.get_secret_value().encode()))


def _is_local(request: Request) -> bool:
    forwarded = any(name.startswith(_FORWARDED) for name in request.headers)
    return request.client is not None and not forwarded and _is_loopback(request.client.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # the client of a Unix socket has none
        return False
