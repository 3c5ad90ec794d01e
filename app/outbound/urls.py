"""URLs that requests may be sent to, as far as the text of a URL tells."""

import re
from ipaddress import IPv4Address, IPv6Address

from app.errors import UrlNotAllowed
from app.outbound.addresses import Addresses

MAX_URL = 2048
_PORTS = {80, 443}  # and those above 1023: the others are of services that a request must not be smuggled to

# Stricter than RFC 3986, so that there is one way to read it: a host has no percent-encoding and no other letters.
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*)\.?)"
    r"(:(?P<port>\d{1,5}))?([/?][!-~]*)?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*", re.IGNORECASE)  # as the last part of a name: an address (WHATWG URL §3.5)
_PRIVATE_NAMES = ("localhost", "local", "internal")


def check(url: str, addresses: Addresses, *, https_only: bool) -> None:
    """Raise UrlNotAllowed, which says why, unless a request may be sent to the URL."""
    if len(url) > MAX_URL:
        raise UrlNotAllowed(f"The URL is longer than {MAX_URL} characters.")
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ({"https"} if https_only else {"http", "https"}):
        raise UrlNotAllowed(
            "The URL must begin with https://." if https_only else "The URL must begin with http(s)://."
        )
    if "#" in url:
        raise UrlNotAllowed("The URL must have no fragment (#).")
    if "@" in re.split(r"[/?]", rest)[0]:
        raise UrlNotAllowed("The URL must hold no user name and no password.")
    if not (parts := _URL.fullmatch(url)):
        raise UrlNotAllowed("The URL is malformed. Its host is a name in ASCII (xn--… for others) or an address.")
    port = int(parts["port"] or _PORTS_OF[parts["scheme"].lower()])
    if port not in _PORTS and not 1023 < port < 65536:
        raise UrlNotAllowed("The port must be 80, 443 or above 1023.")
    _check_host(parts["name"], parts["ipv6"], addresses)


_PORTS_OF = {"http": 80, "https": 443}


def _check_host(name: str | None, ipv6: str | None, addresses: Addresses) -> None:
    try:
        if ipv6:
            refused = not addresses.allow(IPv6Address(ipv6))
        elif name and _NUMBER.fullmatch(name.rpartition(".")[2]):
            refused = not addresses.allow(IPv4Address(name))
        else:
            refused = _is_private(str(name).lower()) and not addresses.allowed
    except ValueError:
        raise UrlNotAllowed("The host is not a valid address: one of IPv4 has four decimal numbers.") from None
    if refused:
        raise UrlNotAllowed("The host is not on the public Internet.")


def _is_private(name: str) -> bool:
    return "." not in name or name.rpartition(".")[2] in _PRIVATE_NAMES
