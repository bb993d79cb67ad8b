"""The addresses a service can listen on, as people write them.

What a socket unit cannot open is refused here where nobody needs it (systemd.socket(5)).
"""

import ipaddress
import os
import posixpath
import re
from dataclasses import dataclass
from typing import Literal, Self

ALLOWED = "host:port, [ipv6]:port, :port, unix:/path, unix:@name or fd:NUMBER"

# As in DNS: labels of up to 63 characters. IDNA encodes those that are not ASCII.
_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?")

# What getaddrinfo(3) takes for an IPv4 address, in more forms than anybody else.
_NUMBERS = re.compile(r"(.*\.)?(\d+|0[xX][0-9a-fA-F]*)\.?", re.ASCII)

# The interface of a link-local address, by name or number; names have at most 15 bytes
# (netdevice(7)).
_ZONE = re.compile(r"[^\s/:%]{1,15}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a TCP host and port, a unix socket's path, or an open descriptor.

    The path "@name" stands for the name of an abstract socket, as in ss(8) and systemd.socket(5).
    """

    kind: Literal["tcp", "unix", "fd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read *text*; raises ValueError, whose message says what is allowed."""
        if text.startswith("unix:"):
            return cls._unix(text.removeprefix("unix:"))
        if text.startswith(("/", "@")):
            return cls._unix(text)
        if text.startswith("fd:"):
            return cls(kind="fd", fd=_number(text.removeprefix("fd:"), text, "descriptor", 2**31))
        return cls._tcp(text)

    @classmethod
    def _unix(cls, path: str) -> Self:
        if not path.startswith(("/", "@")):
            raise ValueError(
                f"unix socket path {path!r} is not absolute; use unix:/path, or unix:@name for "
                "an abstract socket"
            )
        path = path if path.startswith("@") else _plain(path)
        if path in ("/", "@") or "\0" in path:
            raise ValueError(f"{path!r} cannot be the name of a unix socket")
        # sun_path holds 108 bytes: a path with its terminating NUL, or a NUL and an abstract
        # socket's name (unix(7)), of which systemd wants one less.
        if len(os.fsencode(path)) > 107:
            raise ValueError(
                f"unix socket path {path!r} is too long; use one of at most 107 bytes, or of an "
                "abstract socket 106 after the @"
            )
        return cls(kind="unix", path=path)

    @property
    def is_abstract(self) -> bool:
        """Whether this is a unix socket without a file."""
        return self.path.startswith("@")

    @property
    def sun_path(self) -> str | bytes:
        """What bind(2) and connect(2) take for a unix socket."""
        return b"\0" + os.fsencode(self.path[1:]) if self.is_abstract else self.path

    @classmethod
    def _tcp(cls, text: str) -> Self:
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        # Brackets are for IPv6 addresses, and only for them (RFC 3986 section 3.2.2).
        if not colon or (":" in host) != bracketed:
            raise ValueError(f"{text!r} is not an address; use {ALLOWED}")
        host = host[1:-1] if bracketed else host
        if host and not (_is_ipv6(host) if bracketed else _is_name_or_ipv4(host)):
            raise ValueError(
                f"{host!r} in {text!r} is neither an IP address nor a host name; use {ALLOWED}"
            )
        return cls(kind="tcp", host=host, port=_number(port, text, "port", 65536))

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd:{self.fd}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _plain(path: str) -> str:
    """*path* without what is in it twice, as systemd leaves it out."""
    if ".." in path.split("/"):
        raise ValueError(
            f"unix socket path {path!r} goes back by '..'; use unix:{posixpath.normpath(path)}"
        )
    return "/" + posixpath.normpath(path).lstrip("/")


def _is_ipv6(host: str) -> bool:
    text, percent, zone = host.partition("%")
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return False
    # Of other addresses the kernel ignores it, and would tell another name of the socket.
    return not percent or (address.is_link_local and bool(_ZONE.fullmatch(zone)))


def _is_name_or_ipv4(host: str) -> bool:
    if not _NUMBERS.fullmatch(host):
        return bool(_NAME.fullmatch(host))
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _number(digits: str, text: str, what: str, limit: int) -> int:
    if not (digits.isascii() and digits.isdigit()) or int(digits) >= limit:
        raise ValueError(f"{digits!r} in {text!r} is not a {what} number; use {ALLOWED}")
    return int(digits)
