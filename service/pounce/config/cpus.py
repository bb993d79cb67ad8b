"""How many CPUs this service may use: what affinity and the control group's quota leave.

``os.cpu_count()`` counts the machine's CPUs, which a container or a unit with CPUQuota=
may not have. Sources: sched_setaffinity(2); the kernel's admin-guide/cgroup-v2.rst (cpu.max)
and scheduler/sched-bwc.rst (cpu.cfs_quota_us of version 1); proc_pid_mountinfo(5).
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


def available_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs usable at once, at least 1.

    *root* is where ``proc`` and the control group file systems are looked up.
    """
    quotas = list(_quotas(root))
    allowed = len(os.sched_getaffinity(0))
    # Rounded up: a quota of 1.5 CPUs is not used up by one worker.
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas)]))


class _Mount(NamedTuple):
    """A mounted control group hierarchy: which of its groups is seen at what directory."""

    group: str
    directory: Path
    version: int


def _quotas(root: Path) -> Iterator[float]:
    """The quota, in CPUs, of each control group this process is in, its ancestors included."""
    groups = _groups(root / "proc/self/cgroup")
    for mount in _mounts(root):
        for directory in _ancestry(mount, groups.get(mount.version)):
            quota = _QUOTA_READERS[mount.version](directory)
            if quota is not None:
                yield quota


def _groups(path: Path) -> dict[int, str]:
    """Read the process's groups by hierarchy version; lines are ``id:controllers:group``."""
    groups = {}
    for line in _read(path).splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            groups[2] = group
        elif "cpu" in controllers.split(","):
            groups[1] = group
    return groups


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _read(root / "proc/self/mountinfo").splitlines():
        # Fields before " - " are the mount's own, after it the file system's.
        own, _, system = line.partition(" - ")
        group, directory = own.split()[3:5]
        kind, _, settings = system.split()[:3]
        if kind == "cgroup2":
            version = 2
        elif kind == "cgroup" and "cpu" in settings.split(","):
            version = 1
        else:
            continue
        yield _Mount(_unescape(group), root / _unescape(directory).lstrip("/"), version)


def _ancestry(mount: _Mount, group: str | None) -> Iterator[Path]:
    """The directories of *group* and its ancestors, up to the hierarchy's mount point."""
    if group is None:
        return
    below = Path()
    # A group outside the mounted part of the hierarchy has no directory here: all that
    # can be looked at is the mount point.
    if Path(group).is_relative_to(mount.group):
        below = Path(group).relative_to(mount.group)
    for part in (below, *below.parents):
        yield mount.directory / part


def _quota_v2(directory: Path) -> float | None:
    """Read cpu.max: ``max PERIOD`` or ``QUOTA PERIOD``; the root group has none."""
    quota, _, period = _read(directory / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota not in {"", "max"} else None


def _quota_v1(directory: Path) -> float | None:
    """Read cpu.cfs_quota_us, -1 where there is no quota, and cpu.cfs_period_us."""
    quota = _read(directory / "cpu.cfs_quota_us")
    period = _read(directory / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


_QUOTA_READERS = {1: _quota_v1, 2: _quota_v2}


def _read(path: Path) -> str:
    """The file's text; empty where there is none, as without /proc or in a root group."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _unescape(field: str) -> str:
    """Undo mountinfo's octal escapes of space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
