"""Sockets opened by systemd before the service started: sd_listen_fds(3)."""

import os
import socket
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath

from pounce.application.interpreter import has_global_lock
from pounce.errors import ListenError
from pounce.events.loggers import get_logger
from pounce.net.listeners import InheritedSocket, file_kind, unusable, why_unusable

logger = get_logger("pounce.server")

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
STORED = "pounce-store-"
"""How the names of descriptors begin that pounce itself put into the store."""

UNUSED = "/run/pounce/{}.unused"
"""Where a service's socket unit listens only because it has to: pounce does not serve it."""

# What systemd calls a descriptor that was stored without a name (FDNAME=, sd_notify(3)).
_NAMELESS = "stored"

# Of a number of descriptors; the kernel allows a process 1,048,576 (/proc/sys/fs/nr_open).
_MOST_DIGITS = 7

_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


Passed = tuple[int, str]
"""A descriptor and its name, which may be empty."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What systemd passed: listeners, and what an earlier run put into the descriptor store.

    *are_withheld*: systemd passed them to another process, which started this one.
    """

    sockets: list[InheritedSocket]
    stored: list[tuple[str, int]]  # name and descriptor
    are_withheld: bool = False


def inherited_descriptors() -> Inherited:
    """What systemd passed to this process, listeners in the order of the socket unit.

    The variables are removed from the environment, so that no child takes the descriptors
    for its own: a second call returns nothing. Every descriptor becomes close-on-exec.
    Raises ListenError for a listener that is not open, is no socket, or cannot be served.
    """
    environment = {name: os.environ.get(name, "") for name in _VARIABLES}
    try:
        passed = by_systemd_python() if environment["LISTEN_PID"] else []
    finally:
        for name in _VARIABLES:
            os.environ.pop(name, None)
    inherited = Inherited([], [], _are_withheld(environment))
    for descriptor, name in passed or by_variables(environment):
        if name.startswith(STORED) or (name == _NAMELESS and not _is_servable(descriptor)):
            with suppress(OSError):  # it may not be open; whoever uses it judges it
                os.set_inheritable(descriptor, False)
            inherited.stored.append((name, descriptor))
        else:
            _check(descriptor)
            sock = socket.socket(fileno=descriptor)
            if _is_unused(sock):
                sock.close()
            else:
                inherited.sockets.append(InheritedSocket(sock, name))
    return inherited


def is_started_by_systemd() -> bool:
    """Whether this very process is what systemd started as a service (systemd.exec(5)).

    Another program that a service starts, a shell for instance, has the variable as well, with
    the number of a process that is not its own.
    """
    return os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())


def is_environment_emptied() -> bool:
    """Whether a program between systemd and this process has dropped the variables of systemd.

    systemd gives each process of a service SYSTEMD_EXEC_PID (systemd.exec(5), since 248), and what
    such a process starts inherits the variable, except through `env -i`, sudo and the like.
    """
    return "SYSTEMD_EXEC_PID" not in os.environ


def by_systemd_python() -> list[Passed] | None:
    """What sd_listen_fds_with_names(3) says; None where it says nothing.

    That is where systemd-python is not installed; where libsystemd refuses the variables, of which
    it does not tell what is wrong; and on an interpreter whose global lock is off, since importing
    systemd-python switches it on for the whole process, unless the interpreter was told to leave
    it off (-X gil=0).
    """
    if not has_global_lock() and getattr(sys.flags, "gil", None) != 0:
        return None
    try:
        from systemd import daemon

        found = daemon.listen_fds_with_names()
    except (ImportError, OSError):
        return None
    return [(descriptor, _known(name)) for descriptor, name in sorted(found.items())]


def by_variables(environment: Mapping[str, str]) -> list[Passed]:
    """The same, as the LISTEN_* variables say. Raises ListenError where they make no sense."""
    if environment["LISTEN_PID"] != str(os.getpid()):
        if _are_withheld(environment):
            logger.warning(
                "LISTEN_FDS=%s passes descriptors to the process that LISTEN_PID names (%s), and "
                "this is process %d: they are left alone; a shell or wrapper that starts pounce "
                "must exec it and keep both variables",
                environment["LISTEN_FDS"],
                environment["LISTEN_PID"] or "none",
                os.getpid(),
            )
        return []
    descriptors = _descriptors(environment["LISTEN_FDS"])
    names = _names(environment["LISTEN_FDNAMES"], len(descriptors))
    return list(zip(descriptors, names, strict=True))


def _are_withheld(environment: Mapping[str, str]) -> bool:
    is_other = environment["LISTEN_PID"] != str(os.getpid())
    return is_other and bool(environment["LISTEN_FDS"])


def _descriptors(count: str) -> range:
    if not (count.isascii() and count.isdigit()) or len(count) > _MOST_DIGITS:
        raise ListenError(f"LISTEN_FDS should be a number of descriptors, but is {count!r}")
    return range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))


def _names(names: str, count: int) -> list[str]:
    """One name for each descriptor."""
    given = [_known(name) for name in names.split(":")] if names else []
    return (given + [""] * count)[:count]


def _known(name: str) -> str:
    """*name*, unless it is what systemd writes where the unit gives no name."""
    return "" if name == "unknown" else name


def _is_unused(sock: socket.socket) -> bool:
    name = sock.getsockname() if sock.family == socket.AF_UNIX else b""
    return isinstance(name, str) and PurePath(name).match(UNUSED.format("*"))


def _is_servable(descriptor: int) -> bool:
    try:
        _check(descriptor)
    except ListenError:
        return False
    return True


def _check(descriptor: int) -> None:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        raise ListenError(f"inherited descriptor {descriptor} is not open") from None
    if not stat.S_ISSOCK(mode):
        raise unusable(descriptor, file_kind(mode))
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        if problem := why_unusable(sock):
            raise unusable(descriptor, problem)
