"""Which addresses cannot be listened on side by side (EADDRINUSE, bind(2))."""

import ipaddress
import os

from pounce.net.address import Address

_EVERY_IPV4, _EVERY_IPV6 = "0.0.0.0", "::"  # noqa: S104 - compared with, not bound to
_EVERYWHERE = frozenset((_EVERY_IPV4, _EVERY_IPV6))


def have_to_share(one: Address, other: Address) -> bool:
    """Whether *one* and *other* are the same path, or the same port of an address.

    A free port (0) is another one each time. What a name stands for is not looked up, but for
    localhost (RFC 6761 section 6.3).
    """
    if one == other:
        return True
    if one.kind == other.kind == "unix":
        return not one.is_abstract and os.path.realpath(one.path) == os.path.realpath(other.path)
    if one.kind != "tcp" or other.kind != "tcp" or one.port != other.port or one.port == 0:
        return False
    ours, theirs = _hosts(one.host), _hosts(other.host)
    if _EVERYWHERE in (ours, theirs):
        return True
    return any(_meet(each, another) for each in ours for another in theirs)


def _hosts(host: str) -> frozenset[str]:
    # systemd opens [::] for IPv4 as well (BindIPv6Only=, systemd.socket(5)).
    if host in ("", _EVERY_IPV6):
        return _EVERYWHERE
    if host.lower().rstrip(".") == "localhost":
        return frozenset(("127.0.0.1", "::1"))
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return frozenset((host.lower(),))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return frozenset((str(mapped or address),))


def _meet(one: str, other: str) -> bool:
    return one == other or (_EVERY_IPV4 in (one, other) and _family(one) == _family(other))


def _family(host: str) -> int:
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0
