"""Which addresses requests may be sent to: public ones, and those of networks that the operator allows."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Outside of it there are, among others, addresses that contain one of IPv4: ::127.0.0.1, ::ffff:127.0.0.1, 64:ff9b::.
_GLOBAL_UNICAST = IPv6Network("2000::/3")

# What Python's `is_global`, some releases of it, takes for public (IANA's registries of special-purpose addresses).
_SPECIAL = tuple(
    map(
        ip_network,
        (
            "168.63.129.16/32",  # Azure's metadata
            "192.0.0.0/24",  # protocol assignments; Oracle's metadata
            "192.88.99.0/24",  # relays of 6to4
            "2001::/23",  # protocol assignments, such as Teredo, which contains an address of IPv4
            "2002::/16",  # 6to4, which contains one too
            "3fff::/20",  # documentation
        ),
    )
)


class Addresses:
    """Public addresses and those of the networks that are `allowed`."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self.allowed = allowed

    def allow(self, address: Address) -> bool:
        """Whether a request may be sent to the address."""
        return any(address in network for network in self.allowed) or _is_public(address)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    special = address.is_multicast or any(address in network for network in _SPECIAL)
    return address.is_global and not special


def of_socket(address: str) -> Address:
    """The address as sockets have it, which may name an interface. Raises ValueError."""
    return ip_address(address.partition("%")[0])
