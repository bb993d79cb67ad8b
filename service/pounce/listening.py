"""Which sockets a service serves: those it was given, matched to its configuration, and its own."""

import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from pounce.config import DEFAULT_LISTEN, Listen
from pounce.errors import ListenError
from pounce.net.listeners import InheritedSocket, close_listener, open_datagrams, open_listeners

_EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to

logger = logging.getLogger("pounce.server")


@dataclass(frozen=True, slots=True)
class Listeners:
    """The service's sockets: what it serves, what it only holds, what it opened itself.

    *entries* are the `Listen` entries that sockets were matched to, by descriptor.
    """

    stream: list[socket.socket]
    datagram: list[socket.socket]
    own: list[socket.socket]
    entries: dict[int, Listen] = field(default_factory=dict)

    def close(self) -> None:
        """Close what pounce opened; an inherited one stays open with whoever passed it."""
        for sock in self.own:
            close_listener(sock)


def collect_listeners(
    entries: Sequence[Listen], inherited: list[InheritedSocket], h3_workers: int = 1
) -> Listeners:
    """Match *inherited* sockets to *entries*, by name or address; open what is missing.

    Of UDP sockets for HTTP/3 there is to be one for each of *h3_workers*.
    An inherited socket that no entry wants is served all the same, with a warning if there
    are entries at all. With neither, the service listens on 127.0.0.1:8000. Raises
    ListenError.
    """
    stream = [each for each in inherited if each.sock.type == socket.SOCK_STREAM]
    datagram = [each for each in inherited if each.sock.type == socket.SOCK_DGRAM]
    if not (entries or inherited):
        entries = [DEFAULT_LISTEN]
    found = Listeners([each.sock for each in stream], [each.sock for each in datagram], [])
    try:
        for entry in entries:
            matching = [each.sock for each in stream if _matches(entry, each)]
            for sock in matching or _open(entry, found):
                # Of two entries that want the same socket, the first has it.
                found.entries.setdefault(sock.fileno(), entry)
            if entry.http3:
                _collect_datagram(entry, datagram, found, h3_workers)
    except ListenError:
        found.close()
        raise
    if entries:
        _warn_of_unwanted(found)
    if not found.stream:
        raise ListenError(
            "only UDP sockets were passed, and no [[listen]] entry says what they are for",
            hint="add one with http3 = true, or ListenStream= to the socket unit",
        )
    for sock in found.stream:
        sock.setblocking(False)
    return found


def _open(entry: Listen, found: Listeners) -> list[socket.socket]:
    opened = open_listeners(entry.address)
    found.stream.extend(opened)
    # What was passed as a descriptor belongs to whoever passed it.
    if entry.address.kind != "fd":
        found.own.extend(opened)
    return opened


def _collect_datagram(
    entry: Listen, inherited: list[InheritedSocket], found: Listeners, count: int
) -> None:
    sockets = [each.sock for each in inherited if _matches(entry, each)]
    if not sockets:
        sockets = open_datagrams(entry.address, count)
        found.datagram.extend(sockets)
        found.own.extend(sockets)
    for sock in sockets:
        found.entries.setdefault(sock.fileno(), entry)


def _warn_of_unwanted(found: Listeners) -> None:
    for sock in found.stream:
        if sock.fileno() not in found.entries:
            logger.warning("%s was inherited but is in no [[listen]] entry", describe(sock))


def _matches(entry: Listen, inherited: InheritedSocket) -> bool:
    if entry.name:
        return entry.name == inherited.name
    if entry.address.kind == "fd":
        return entry.address.fd == inherited.sock.fileno()
    name = inherited.sock.getsockname()
    if inherited.sock.family == socket.AF_UNIX:
        return entry.address.kind == "unix" and entry.address.path == name
    if entry.address.kind != "tcp" or entry.address.port != name[1]:
        return False
    if name[0] in _EVERY_INTERFACE and entry.address.host in ("", *_EVERY_INTERFACE):
        return _covers(inherited.sock, entry.address.host)
    try:
        found = socket.getaddrinfo(entry.address.host, entry.address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # opening it says what is wrong
    return name[0] in {info[4][0] for info in found}


def _covers(sock: socket.socket, host: str) -> bool:
    """Whether a socket on every interface has the family that *host* asks for."""
    if not host:
        return True
    if sock.family == socket.AF_INET:
        return host != "::"
    # A dual-stack socket, systemd's default, takes IPv4 as well (ipv6(7)).
    return host == "::" or not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def describe(sock: socket.socket, *, secure: bool = False) -> str:
    """The socket's address as people write it; *secure* is with TLS."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    web = "https://" if secure else "http://"
    scheme = web if sock.type == socket.SOCK_STREAM else "udp "
    return f"{scheme}{host}:{name[1]}"
