"""What keeps this process from a file: a mode, or the sandbox that systemd runs it in."""

import os
import pwd
import re
import stat
from collections import deque
from pathlib import Path
from typing import NamedTuple

# What ProtectHome= hides (systemd.exec(5)).
_HOMES = ("/home", "/root", "/run/user")
# The number of every user that the user namespace does not map (user_namespaces(7)).
_UNMAPPED = Path("/proc/sys/kernel/overflowuid")
# What systemd mounts over a path to make it inaccessible.
_HIDDEN = "/systemd/inaccessible/"
# The kernel follows 40 links (path_resolution(7)), and paths have few parts.
_MOST_STEPS = 1000


class _Stop(NamedTuple):
    """Where a walk along a path ends too early: *needed* are the missing permissions."""

    place: str
    needed: str
    link: tuple[str, str] | None


def obstacle(path: str) -> str:
    """Say what keeps this process from reading *path*, and how to remove it; "" if nothing does.

    A path that leads nowhere is no obstacle: whoever looked for it has said so.
    """
    stop = _walk(path)
    if stop is None:
        return ""
    leads = f"{stop.link[0]} is a link to {stop.link[1]}; " if stop.link else ""
    return leads + (_hidden(stop.place) or _closed(stop.place, stop.needed))


def _walk(path: str) -> _Stop | None:
    """Follow *path* as the kernel does (path_resolution(7)), up to what this process may not read.

    The link is the last absolute one on the way there.
    """
    here, left, link = "/", _parts(path), None
    for _ in range(_MOST_STEPS):
        if not left or not Path(here).is_dir():
            break
        if not _may(here, "x"):
            return _Stop(here, "x", link)
        there = os.path.normpath(Path(here, left.popleft()))
        try:
            target = os.readlink(there)  # noqa: PTH115 - what is written there, as it is
        except FileNotFoundError:
            return _Stop(there, "", link) if _hidden(there) else None
        except OSError:  # no link
            here = there
            continue
        left.extendleft(reversed(_parts(target)))
        if target.startswith("/"):
            here, link = "/", (there, target)
    needed = "rx" if Path(here).is_dir() else "r"
    return None if left or _may(here, needed) else _Stop(here, needed, link)


def _may(place: str, needed: str) -> bool:
    modes = {"r": os.R_OK, "x": os.X_OK, "rx": os.R_OK | os.X_OK}
    return os.access(place, modes[needed], effective_ids=True)


def _parts(path: str) -> deque[str]:
    return deque(part for part in path.split("/") if part not in ("", "."))


def _hidden(place: str) -> str:
    """Which directive of the unit hides *place*, if one does (mount_namespaces(7))."""
    root, point, kind = max(
        (each for each in _mounts() if Path(place).is_relative_to(each[1])),
        key=lambda each: len(each[1]),
        default=("", "", ""),
    )
    is_hidden = _HIDDEN in root
    if point in _HOMES and (is_hidden or kind == "tmpfs"):
        return f"ProtectHome= hides {point} from the service: use another place, such as /srv"
    if "/systemd-private-" in root:
        return f"PrivateTmp= gives the service a {point} of its own: use another place"
    if is_hidden:
        return f"InaccessiblePaths= or a directive like it hides {point} from the service"
    return ""


def _mounts() -> list[tuple[str, str, str]]:
    """Root, mount point and type of each mount that this process sees (proc_pid_mountinfo(5))."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, point = map(_unescaped, before.split()[3:5])
        found.append((root, point, after.split()[0]))
    return found


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _closed(place: str, needed: str) -> str:
    """Whose *place* is, and what this process would need."""
    status = os.stat(place)  # noqa: PTH116 - as os.access() above
    verb = {"r": "read", "x": "enter", "rx": "list and enter"}[needed]
    is_home = any(place in (home, f"{home}/{Path(place).name}") for home in _HOMES)
    way_out = "use another place, such as /srv" if is_home else f"chmod o+{needed} {place}"
    return (
        f"{place} has the mode {stat.filemode(status.st_mode)} and belongs to "
        f"{_owner(status.st_uid)}: the user {_name(os.geteuid())} may not {verb} it ({way_out})"
    )


def _owner(uid: int) -> str:
    """Whose a file is, as far as PrivateUsers= lets this process see it (systemd.exec(5))."""
    is_hidden = uid == int(_UNMAPPED.read_text()) and not _is_mapped(uid)
    return "another user" if is_hidden else _name(uid)


def _is_mapped(uid: int) -> bool:
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = [map(int, line.split()) for line in lines]
    return any(first <= uid < first + count for first, _, count in ranges)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        # Names of DynamicUser= are known where nss-systemd(8) is, and to the unit's own processes.
        own = os.environ.get("USER") if uid == os.geteuid() else None
        return own or str(uid)
