"""An instance of pounce@.service: it serves what its socket unit opened, and binds little itself.

A service of another kind, or one started by hand, may bind what its configuration names.
"""

import re
import socket
from collections.abc import Sequence
from pathlib import Path

from pounce.assembly.sockets import bound_to, files_of, how_to_move, is_at, matches, refuse_unnamed
from pounce.config.service import Listen
from pounce.errors import ListenError
from pounce.net.address import Address
from pounce.net.listeners import InheritedSocket
from pounce.systemd.activation import (
    UNUSED,
    Inherited,
    is_environment_emptied,
    is_started_by_systemd,
)
from pounce.systemd.generator import opened_by, why_not_held
from pounce.systemd.socket_files import Held, held_by
from pounce.systemd.units import active_states, main_process, systemctl

# systemd names a control group for each unit (sd_pid_get_unit(3)), which no drop-in changes. Below
# user.slice are the units of users, who have no socket units of ours.
_CONTROL_GROUP = re.compile(
    r"^\d+:[^:]*:(?!/user\.slice/).*/pounce@([^/]+)\.service(?:/|$)", re.MULTILINE
)

GENERATED = Path("/run/systemd/generator")


def own_name(*, has_variables: bool, groups: Path = Path("/proc/self/cgroup")) -> str:
    """NAME, if systemd or a wrapper started this process as pounce@NAME.service; "" otherwise.

    A wrapper *has_variables* of systemd's to pass on, or has emptied the environment. A program
    that the service itself starts has SYSTEMD_EXEC_PID alone, with the number of another process.
    """
    if not (is_started_by_systemd() or has_variables or is_environment_emptied()):
        return ""
    try:
        found = _CONTROL_GROUP.search(groups.read_text())
    except (OSError, UnicodeError):
        return ""
    return found[1] if found else ""


def refuse_moved(
    name: str,
    entries: Sequence[Listen],
    inherited: Inherited,
    generated: Path = GENERATED,
) -> None:
    """Raise ListenError if the socket unit of the instance *name* has other addresses open.

    It has those of the configuration as it was at the last daemon-reload until it is restarted,
    and may have none then. A generator's drop-in below *generated* tells what it opened for
    entries.
    """
    sockets = inherited.sockets
    if entries:
        refuse_unnamed(entries, sockets)
    elif sockets:
        _refuse_abandoned(name, sockets, opened_by(name, generated))
    if missing := _missing(name, entries, sockets):
        raise _not_opened(name, ", ".join(missing), inherited)


def _missing(name: str, entries: Sequence[Listen], sockets: Sequence[InheritedSocket]) -> list[str]:
    """What the socket unit is to open, and has not."""
    if not (entries or sockets):
        return [f"unix:/run/pounce/{name}.sock"]
    missing = []
    for entry in filter(_is_for_systemd, entries):
        types = {each.sock.type for each in sockets if matches(entry, each)}
        if socket.SOCK_STREAM not in types:
            missing.append(str(entry.address))
        elif entry.http3 and socket.SOCK_DGRAM not in types:
            missing.append(f"{entry.address} for UDP")
    return missing


def _not_opened(name: str, missing: str, inherited: Inherited) -> ListenError:
    if inherited.are_withheld:
        return ListenError(
            f"systemd has passed the sockets of pounce@{name}.socket to another process, which "
            f"started this one: {missing} cannot be served",
            hint="the shell or wrapper in ExecStart= must exec pounce, and keep LISTEN_PID and "
            "LISTEN_FDS",
        )
    if is_environment_emptied():
        return ListenError(
            f"systemd's variables are gone from the environment of this process, which runs in "
            f"pounce@{name}.service: the sockets of pounce@{name}.socket are not found, and "
            f"{missing} cannot be served",
            hint="a program that ExecStart= puts before pounce must keep systemd's variables: "
            "replace env -i, sudo and the like by Environment=, UnsetEnvironment= and User=",
        )
    if inherited.sockets:
        return ListenError(
            f"pounce@{name}.socket has not opened {missing}",
            hint=f"to have it opened: {how_to_move([], name)}",
        )
    return ListenError(
        f"pounce@{name}.socket has not opened {missing}: systemd passed no socket",
        hint=f"to have it opened: {how_to_move([], name)}; a program that ExecStart= puts "
        "before pounce must leave LISTEN_PID and LISTEN_FDS as they are",
    )


def _is_for_systemd(entry: Listen) -> bool:
    named = entry.name or entry.address.kind == "fd"
    return not named and not why_not_held(entry.address)


def _refuse_abandoned(
    name: str, inherited: Sequence[InheritedSocket], generated: Sequence[Address]
) -> None:
    """Refuse what was opened for an entry that is gone: that may have had a certificate."""
    sockets = [each.sock for each in inherited]
    abandoned = [sock for sock in sockets if any(is_at(one, sock) for one in generated)]
    if abandoned:
        passed = ", ".join(dict.fromkeys(map(bound_to, abandoned)))
        raise ListenError(
            f"{passed}: systemd opened this for a [[listen]] entry that is gone",
            hint=f"to listen on unix:/run/pounce/{name}.sock: "
            + how_to_move(inherited, name, files_of(abandoned)),
        )


def named_by(entries: Sequence[Listen], name: str) -> Sequence[Listen]:
    """The addresses of *entries*; without any, the default one of the instance *name*, if it is."""
    default = Listen(Address.parse(f"unix:/run/pounce/{name}.sock"))
    return entries if entries or not name else [default]


def how_to_catch_up(name: str, entries: Sequence[Listen], generated: Path = GENERATED) -> str:
    """The commands that move the open sockets of the instance *name* to the addresses of *entries*.

    "" if they are there, or if none are open: those will be opened where the entries say. What a
    drop-in of the administrator opens is not judged, nor are sockets in a network of their own.
    """
    unit = f"pounce@{name}.socket"
    if active_states([unit]).get(unit) != "active" or _network(unit):
        return ""
    held, wanted = held_by(1), {str(each.address) for each in named_by(entries, name)}
    old = [each for each in opened_by(name, generated) if each.path != UNUSED.format(name)]
    gone = [each for each in old if str(each) not in wanted and held.has(each)]
    if not gone and all(_is_held(each, held) for each in entries if _is_for_systemd(each)):
        return ""
    return how_to_move([], name, _left(name, old, wanted))


def _is_held(entry: Listen, held: Held) -> bool:
    return held.has(entry.address) and not (entry.http3 and not held.has(entry.address, "udp"))


def _left(name: str, old: Sequence[Address], wanted: set[str]) -> list[str]:
    """The files of unix sockets at which the service has listened until the move."""
    served = held_by(main_process(f"pounce@{name}.service"))
    known = [*old, Address.parse(f"unix:/run/pounce/{name}.sock")]
    files = [each for each in known if each.path.startswith("/") and str(each) not in wanted]
    return list(dict.fromkeys(each.path for each in files if served.has(each)))


def _network(unit: str) -> str:
    return systemctl("show", "--value", "--property=NetworkNamespacePath", unit).strip()
