"""What proxies in front say about the client: X-Forwarded-For, -Proto and -Host.

Anybody can send these fields, so they count only when the peer is a trusted proxy, and only
as far as trusted proxies wrote them: each appends on the right what it saw itself.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from pounce.net.host import is_authority

Headers: TypeAlias = list[tuple[bytes, bytes]]
Client: TypeAlias = tuple[str, int]
_IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED_FIELDS = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"))
"""Names of the fields that :meth:`TrustedProxies.resolve` reads."""

_SCHEMES = {b"http": "http", b"https": "https"}


class Origin(NamedTuple):
    """A request's client, scheme and header fields, as the application shall see them."""

    client: Client | None
    scheme: str
    headers: Headers


class TrustedProxies:
    """Who is believed: *allow* has addresses, networks, ``unix`` (any local peer), or ``*``."""

    def __init__(self, allow: Iterable[str]) -> None:
        entries = set(allow)
        self._everyone = "*" in entries
        self._unix = "unix" in entries
        self._networks: tuple[_IPNetwork, ...] = tuple(
            ipaddress.ip_network(entry, strict=False) for entry in entries - {"*", "unix"}
        )

    def trusts_peer(self, client: Client | None) -> bool:
        """Whether the peer of a connection is believed; None is the peer of a unix socket."""
        if client is None:
            return self._everyone or self._unix
        address = _address(client[0])
        return self._everyone or (address is not None and self._trusts(address))

    def resolve(self, origin: Origin) -> Origin:
        """Replace what a trusted peer reports; call it for no other peer's requests."""
        fields = _forwarded_fields(origin.headers)
        if not fields:
            return origin
        hops = _members(fields.get(b"x-forwarded-for", []))
        client, index = self._client(hops, origin.client)
        scheme = _SCHEMES.get(_at(_members(fields.get(b"x-forwarded-proto", [])), index).lower())
        host = _at(_members(fields.get(b"x-forwarded-host", [])), index)
        headers = origin.headers
        if host and is_authority(host):
            headers = [(b"host", host), *(field for field in headers if field[0] != b"host")]
        return Origin(client, scheme or origin.scheme, headers)

    def _client(self, hops: list[bytes], peer: Client | None) -> tuple[Client | None, int]:
        """The client past the trusted *hops*, and its place counted from the right.

        Where a hop is no address, the one to its right is as far as anything is known.
        """
        client, index = peer, 0
        for index, hop in enumerate(reversed(hops)):
            found = parse_hop(hop)
            if found is None:
                return client, max(0, index - 1)
            client = found
            if not self._everyone and not self._trusts(ipaddress.ip_address(found[0])):
                break
        return client, index

    def _trusts(self, address: _IPAddress) -> bool:
        return any(address in network for network in self._networks)


def _forwarded_fields(headers: Headers) -> dict[bytes, list[bytes]]:
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in FORWARDED_FIELDS:
            fields.setdefault(name, []).append(value)
    return fields


def _members(values: list[bytes]) -> list[bytes]:
    return [member.strip(b" \t") for member in b",".join(values).split(b",")] if values else []


def _at(members: list[bytes], index: int) -> bytes:
    """The member at *index* from the right; the leftmost where fewer proxies wrote the field."""
    return members[-1 - min(index, len(members) - 1)] if members else b""


def parse_hop(hop: bytes) -> Client | None:
    """Read ``address``, ``address:port`` or ``[address]:port``; None if it is none of them.

    The port is 0 where none was given.
    """
    text = hop.decode("latin-1")
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        if port and not port.startswith(":"):
            return None
        port = port[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    address = _address(host)
    if address is None or (port and not (port.isascii() and port.isdigit() and len(port) <= 5)):
        return None
    return str(address), int(port or 0)


@lru_cache(maxsize=1024)
def _address(text: str) -> _IPAddress | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A dual-stack listener sees IPv4 peers as ::ffff:192.0.2.1 (ipv6(7)).
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
