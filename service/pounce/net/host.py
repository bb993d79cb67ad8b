"""What a host is, on the wire: the ``uri-host [":" port]`` of RFC 9110 section 7.2."""

import os
import re
from ipaddress import AddressValueError, IPv6Address

# RFC 3986 section 3.2.2: an IP literal in brackets, or a registered name (an IPv4 address is one).
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\]"
    rb"|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)"
    rb"(?::[0-9]{0,5})?"
)


def is_authority(value: bytes) -> bool:
    """Whether *value* is a host with an optional port; the empty host is one."""
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        return False
    literal = match[1]
    return literal is None or literal.startswith((b"v", b"V")) or _is_ipv6(literal)


def name_of(authority: bytes) -> str:
    """The host in *authority*, which `is_authority`, without its port."""
    return re.sub(rb":[0-9]*\Z", b"", authority).decode("ascii")


def unmapped(address: str) -> str:
    """The address of a socket as its owner knows it.

    A listener for IPv6 that also takes IPv4 has IPv4 addresses as ``::ffff:192.0.2.1`` (ipv6(7)),
    which applications would take for somebody else.
    """
    return address.removeprefix("::ffff:") if "." in address else address


def unix_path(name: str | bytes) -> str:
    """The path of a unix socket whose getsockname(2) is *name*, as people write it.

    Python has an abstract socket's name as bytes; each NUL in it is shown as ss(8) does.
    """
    return os.fsdecode(name).replace("\0", "@")


def _is_ipv6(literal: bytes) -> bool:
    try:
        IPv6Address(literal.decode("ascii"))
    except AddressValueError:
        return False
    return True
