"""An instance of pounce@.service: it serves what its socket unit opened, and binds little itself.

A service of another kind, or one started by hand, may bind what its configuration names.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from pounce.config import Listen
from pounce.errors import ListenError
from pounce.listening import bound_to, how_to_move, is_at
from pounce.net.address import Address
from pounce.net.listeners import InheritedSocket
from pounce.systemd.activation import is_started_by_systemd
from pounce.systemd.generator import opened_by, why_not_held

# systemd names a control group for each unit (sd_pid_get_unit(3)), which no drop-in changes. Below
# user.slice are the units of users, who have no socket units of ours.
_CONTROL_GROUP = re.compile(
    r"^\d+:[^:]*:(?!/user\.slice/).*/pounce@([^/]+)\.service(?:/|$)", re.MULTILINE
)

GENERATED = Path("/run/systemd/generator")


def own_name(groups: Path = Path("/proc/self/cgroup")) -> str:
    """NAME, if systemd started this very process as pounce@NAME.service; "" otherwise."""
    if not is_started_by_systemd():
        return ""
    try:
        found = _CONTROL_GROUP.search(groups.read_text())
    except (OSError, UnicodeError):
        return ""
    return found[1] if found else ""


def refuse_moved(
    name: str,
    entries: Sequence[Listen],
    inherited: Sequence[InheritedSocket],
    generated: Path = GENERATED,
) -> None:
    """Raise ListenError if the socket unit of the instance *name* has other addresses open.

    It has those of the configuration as it was at the last daemon-reload until it is restarted,
    and may have none then. A generator's drop-in below *generated* tells what it opened for
    entries.
    """
    if not inherited:
        _refuse_to_bind(name, entries)
    elif not entries:
        _refuse_abandoned(name, inherited, opened_by(name, generated))


def _refuse_to_bind(name: str, entries: Sequence[Listen]) -> None:
    missing = [str(each.address) for each in entries if _is_for_systemd(each)]
    if not entries:
        missing = [f"unix:/run/pounce/{name}.sock"]
    if missing:
        raise ListenError(
            f"pounce@{name}.socket has not opened {', '.join(missing)}: systemd passed no socket",
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
            hint=f"to listen on unix:/run/pounce/{name}.sock: {how_to_move(inherited, name)}",
        )
