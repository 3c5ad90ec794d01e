"""Where requests to hosts that users name may go, as settings say it."""

from ipaddress import IPv4Network, IPv6Network, ip_network

Networks = tuple[IPv4Network | IPv6Network, ...]

LOOPBACK: Networks = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


def networks(text: str) -> Networks:
    """The networks in a list with commas. Raises ValueError."""
    try:
        return tuple(ip_network(each.strip()) for each in text.split(","))
    except ValueError:
        raise ValueError("each must be a network such as 10.0.0.0/8 or fd00::/8, with commas between them") from None
