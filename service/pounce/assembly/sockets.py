"""Which sockets a service serves: those it was given, matched to its configuration, and its own."""

import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pounce.config.plan import Listener
from pounce.config.service import DEFAULT_LISTEN, Listen, ServerConfig
from pounce.errors import ListenError
from pounce.events.loggers import get_logger
from pounce.net.address import Address
from pounce.net.host import unix_path, unmapped
from pounce.net.listeners import (
    InheritedSocket,
    close_listener,
    open_datagrams,
    open_listeners,
    unusable,
    why_unusable,
)

_EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to

logger = get_logger("pounce.server")


@dataclass(frozen=True, slots=True)
class Listeners:
    """The service's sockets: what it serves, what it only holds, what it opened itself."""

    served: list[Listener] = field(default_factory=list)
    held: list[socket.socket] = field(default_factory=list)
    own: list[socket.socket] = field(default_factory=list)

    @property
    def streams(self) -> list[Listener]:
        """Those from which connections are accepted."""
        return [each for each in self.served if each.is_stream]

    def serve(self, sock: socket.socket, entry: Listen) -> None:
        """Serve *sock* as *entry* says; of two entries that want it, the first has it."""
        if all(each.sock is not sock for each in self.served):
            self.served.append(Listener(sock, entry, closes=sock in self.own))

    def close(self) -> None:
        """Close what pounce opened; an inherited one stays open with whoever passed it."""
        for sock in self.own:
            close_listener(sock)


def create_listeners(config: ServerConfig) -> list[socket.socket]:
    """Open every socket that *config* asks for; `Supervisor.run` serves them.

    These are listening TCP and unix sockets and, for HTTP/3, UDP sockets. The caller closes them.
    Raises ListenError.
    """
    found = collect_listeners(config.listen, [], config.worker_count)
    return [*(each.sock for each in found.served), *found.held]


def match_listeners(
    entries: Sequence[Listen], sockets: Sequence[socket.socket], own: Sequence[socket.socket] = ()
) -> Listeners:
    """Match *sockets*, which somebody else has opened, to *entries* by address; open nothing.

    An entry for a free port (0) gets the sockets of its host that no other entry is for. *own* are
    those that nobody will serve later. The log warns of sockets without an entry, and of HTTP/3
    without a UDP socket. Raises ListenError for a socket that cannot be served.
    """
    for sock in sockets:
        if why := why_unusable(sock):
            raise unusable(sock.fileno(), why)
    found = Listeners(own=list(own))
    for sock in sockets:
        entry = _entry_at(entries, sock)
        if sock.type == socket.SOCK_STREAM:
            if entries and entry is None:
                logger.warning(
                    "%s is in no [[listen]] entry: its options are the defaults", describe(sock)
                )
            sock.setblocking(False)
            found.serve(sock, entry or _without_options(sock))
        elif entry is not None and entry.http3:
            found.serve(sock, entry)
        else:
            found.held.append(sock)
    warn_of_held(found)
    _warn_of_unserved(found)
    return found


def _without_options(sock: socket.socket) -> Listen:
    """An entry for a socket that the configuration has none for."""
    return Listen(Address.parse(f"fd:{sock.fileno()}"))


def _entry_at(entries: Sequence[Listen], sock: socket.socket) -> Listen | None:
    exact = (each for each in entries if is_at(each.address, sock))
    free = (each for each in entries if is_at(_with_port_of(sock, each.address), sock))
    return next(exact, None) or next(free, None)


def _with_port_of(sock: socket.socket, address: Address) -> Address:
    """*address* with the port that the kernel chose for *sock*, if it asks for a free one (0)."""
    if address.kind != "tcp" or address.port or sock.family == socket.AF_UNIX:
        return address
    return replace(address, port=sock.getsockname()[1])


def _warn_of_unserved(found: Listeners) -> None:
    datagram = {each.entry for each in found.served if not each.is_stream}
    for each in found.streams:
        if each.entry.http3 and each.entry not in datagram:
            logger.warning(
                "%s is not served by HTTP/3: there is no UDP socket for it", each.entry.address
            )


def warn_of_held(found: Listeners) -> None:
    """Warn of UDP sockets that nobody serves."""
    for sock in found.held:
        logger.warning("%s is held but not served: no entry wants HTTP/3", describe(sock))


def collect_listeners(
    entries: Sequence[Listen], inherited: list[InheritedSocket], h3_workers: int = 1
) -> Listeners:
    """Match *inherited* sockets to *entries*, by name or address; open what is missing.

    Of UDP sockets for HTTP/3 there is to be one for each of *h3_workers*.
    Without entries, all inherited sockets are served; without sockets either, the service listens
    on 127.0.0.1:8000. Raises ListenError, also for an inherited socket that no entry names.
    """
    if entries:
        refuse_unnamed(entries, inherited)
    stream = [each for each in inherited if each.sock.type == socket.SOCK_STREAM]
    datagram = [each for each in inherited if each.sock.type == socket.SOCK_DGRAM]
    if not (entries or inherited):
        entries = [DEFAULT_LISTEN]
    found = Listeners()
    try:
        for entry in entries:
            matching = [each.sock for each in stream if matches(entry, each)]
            for sock in matching or _open(entry, found):
                found.serve(sock, entry)
            if entry.http3:
                _collect_datagram(entry, datagram, found, h3_workers)
    except ListenError:
        found.close()
        raise
    _keep_the_others(found, stream, datagram)
    if not found.streams:
        raise ListenError(
            "only UDP sockets were passed, and no [[listen]] entry says what they are for",
            hint="add one with http3 = true, or ListenStream= to the socket unit",
        )
    for each in found.streams:
        each.sock.setblocking(False)
    return found


def _keep_the_others(
    found: Listeners, stream: list[InheritedSocket], datagram: list[InheritedSocket]
) -> None:
    """Serve stream sockets that have no entry, where there are no entries; hold UDP sockets."""
    for each in stream:
        found.serve(each.sock, _without_options(each.sock))
    served = [each.sock for each in found.served]
    found.held.extend(each.sock for each in datagram if each.sock not in served)


def _open(entry: Listen, found: Listeners) -> list[socket.socket]:
    opened = open_listeners(entry.address)
    # What was passed as a descriptor belongs to whoever passed it.
    if entry.address.kind != "fd":
        found.own.extend(opened)
    return opened


def _collect_datagram(
    entry: Listen, inherited: list[InheritedSocket], found: Listeners, count: int
) -> None:
    sockets = [each.sock for each in inherited if matches(entry, each)]
    if not sockets:
        sockets = open_datagrams(entry.address, count)
        found.own.extend(sockets)
    for sock in sockets:
        found.serve(sock, entry)


def refuse_unnamed(entries: Sequence[Listen], inherited: Sequence[InheritedSocket]) -> None:
    """Raise ListenError for sockets that no entry names.

    They may be those of the configuration as it was: an address that had a certificate until
    somebody moved it would now be served without one.
    """
    if unnamed := without_name(entries, inherited):
        passed = ", ".join(dict.fromkeys(map(bound_to, unnamed)))
        named = ", ".join(str(entry.address) for entry in entries)
        raise ListenError(
            f"no [[listen]] entry names {passed}, which pounce was given to serve; "
            f"the entries name {named}",
            hint=f"to move addresses: {how_to_move(inherited, gone=files_of(unnamed))}; if a "
            "drop-in of the socket unit opens this one, add an entry for it",
        )


def without_name(
    entries: Sequence[Listen], inherited: Sequence[InheritedSocket]
) -> list[socket.socket]:
    """The *inherited* sockets that none of *entries* names."""
    return [each.sock for each in inherited if not any(matches(one, each) for one in entries)]


def files_of(sockets: Sequence[socket.socket]) -> list[str]:
    """The files of those *sockets* that have one."""
    names = [sock.getsockname() for sock in sockets if sock.family == socket.AF_UNIX]
    return [name for name in names if isinstance(name, str)]


def goes_on(how: str) -> str:
    """Say that changed addresses need the commands *how*."""
    return f"the service goes on at its old addresses; to move to the new ones: {how}"


def how_to_move(
    inherited: Sequence[InheritedSocket], instance: str = "", gone: Sequence[str] = ()
) -> str:
    """The commands that have systemd open the addresses that the configuration names now.

    *instance* is the one of pounce@.service that this is, if any. *gone* are the files of unix
    sockets that nothing listens at afterwards: a daemon-reload has systemd close such a socket, and
    forget RemoveOnStop= for it.
    """
    # Where a socket unit has no FileDescriptorName=, its own name is that of its sockets.
    names = {each.name.removesuffix(".socket") for each in inherited if ".socket" in each.name}
    if instance:
        names.add(f"pounce@{instance}")
    units = [f"{name}.{kind}" for name in sorted(names) for kind in ("socket", "service")]
    restarted = " ".join(units) or "(the socket unit and the service)"
    removed = f" && rm --force {shlex.join(gone)}" if gone else ""
    return f"systemctl daemon-reload && systemctl restart {restarted}{removed}"


def matches(entry: Listen, inherited: InheritedSocket) -> bool:
    """Whether *entry* is for the *inherited* socket, by name or address."""
    if entry.name:
        return entry.name == inherited.name
    return is_at(entry.address, inherited.sock)


def is_at(address: Address, sock: socket.socket) -> bool:
    """Whether *sock* is what *address* means."""
    if address.kind == "fd":
        return address.fd == sock.fileno()
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return address.kind == "unix" and _is_path(address.path, unix_path(name))
    if address.kind != "tcp" or address.port != name[1]:
        return False
    if not address.host:
        return unmapped(name[0]) in _EVERY_INTERFACE
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # opening it says what is wrong
    return _host(name) in {_host(info[4]) for info in found}


def _is_path(path: str, bound: str) -> bool:
    """Whether *path* leads to the unix socket that is *bound* there."""
    # systemd leaves out what a path has twice, and /var/run is a link to /run.
    if path.startswith("@"):  # an abstract socket: not a path
        return path == bound
    return os.path.realpath(path) == os.path.realpath(bound)


def _host(name: tuple[Any, ...]) -> tuple[str, int]:
    """The address in a socket's *name* and, of an IPv6 address of one link, the link (ipv6(7))."""
    host, _, *more = name
    return unmapped(host), more[1] if more else 0


def describe(sock: socket.socket, *, secure: bool = False) -> str:
    """The socket's address as people write it; *secure* is with TLS."""
    if sock.family == socket.AF_UNIX:
        return bound_to(sock)
    web = "https://" if secure else "http://"
    scheme = web if sock.type == socket.SOCK_STREAM else "udp "
    return scheme + bound_to(sock)


def bound_to(sock: socket.socket) -> str:
    """The socket's address as a configuration names it."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{unix_path(name)}"
    host = f"[{name[0]}]" if sock.family == socket.AF_INET6 else name[0]
    return f"{host}:{name[1]}"
