"""Sockets opened by systemd before the service started: sd_listen_fds(3)."""

import os
import socket
import stat
from dataclasses import dataclass

from pounce.errors import ListenError
from pounce.net.listeners import InheritedSocket

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
STORED = "pounce-store-"
"""How the names of descriptors begin that pounce itself put into the store."""

_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_FILE_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe or FIFO",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True)
class Inherited:
    """What systemd passed: listeners, and what an earlier run put into the descriptor store."""

    sockets: list[InheritedSocket]
    stored: list[tuple[str, int]]  # name and descriptor


def inherited_descriptors() -> Inherited:
    """What systemd passed to this process, listeners in the order of the socket unit.

    The variables are removed from the environment, so that no child takes the descriptors
    for its own: a second call returns nothing. Every descriptor becomes close-on-exec.
    Raises ListenError for a listener that is not open, is no socket, or cannot be served.
    """
    environment = {name: os.environ.pop(name, "") for name in _VARIABLES}
    inherited = Inherited([], [])
    if environment["LISTEN_PID"] != str(os.getpid()):
        return inherited
    descriptors = _descriptors(environment["LISTEN_FDS"])
    names = _names(environment["LISTEN_FDNAMES"], len(descriptors))
    for descriptor, name in zip(descriptors, names, strict=True):
        if name.startswith(STORED):
            os.set_inheritable(descriptor, False)
            inherited.stored.append((name, descriptor))
        else:
            _check(descriptor)
            inherited.sockets.append(InheritedSocket(socket.socket(fileno=descriptor), name))
    return inherited


def _descriptors(count: str) -> range:
    if not (count.isascii() and count.isdigit()):
        raise ListenError(f"LISTEN_FDS should be a number of descriptors, but is {count!r}")
    return range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))


def _names(names: str, count: int) -> list[str]:
    """One name a descriptor; "unknown" is what systemd writes where the unit names none."""
    given = ["" if name == "unknown" else name for name in names.split(":")] if names else []
    return (given + [""] * count)[:count]


def _check(descriptor: int) -> None:
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    except OSError:
        raise ListenError(f"inherited descriptor {descriptor} is not open") from None
    if kind != stat.S_IFSOCK:
        raise _unusable(descriptor, _FILE_KINDS.get(kind, "no socket"))
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        if problem := _problem(sock):
            raise _unusable(descriptor, problem)


def _problem(sock: socket.socket) -> str:
    """What keeps *sock* from being served; "" if nothing does."""
    if sock.family not in _FAMILIES:
        return f"a socket of address family {_label(sock.family)}"
    if sock.type == socket.SOCK_DGRAM and sock.family != socket.AF_UNIX:
        return ""
    if sock.type != socket.SOCK_STREAM:
        return f"an {_label(sock.family)} socket of type {_label(sock.type)}"
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "a stream socket that does not listen (the socket unit needs Accept=no)"
    return ""


def _label(value: int) -> str:
    """An address family's or socket type's name; its number where Python knows no name."""
    return getattr(value, "name", str(value))


def _unusable(descriptor: int, what: str) -> ListenError:
    return ListenError(
        f"inherited descriptor {descriptor} is {what}",
        hint="a listening TCP or unix stream socket, or a UDP socket, can be served",
    )
