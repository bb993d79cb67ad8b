"""Counting CPUs: recorded file systems, and the real one under a real limit."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pounce.config.cpus import available_cpus

COUNT = "from pounce.config.cpus import available_cpus; print(available_cpus())"
V2 = "30 1 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "30 1 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpuacct,cpu"
V1_SET = "31 1 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
HYBRID = "32 1 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
NESTED = r"30 1 0:28 /docker/a /sys/fs/cgroup/my\040groups rw - cgroup2 cgroup2 rw"

CASES = {
    "nothing is known": ("", "", {}, 64),
    "no quota": ("0::/a/b", V2, {"a/b/cpu.max": "max 100000"}, 64),
    "own quota, rounded up": ("0::/a/b", V2, {"a/b/cpu.max": "150000 100000"}, 2),
    "a part of a CPU is one": ("0::/a", V2, {"a/cpu.max": "1000 100000"}, 1),
    "the least of all ancestors": (
        "0::/a/b/c",
        V2,
        {"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000", "a/b/c/cpu.max": "max 1"},
        2,
    ),
    "the mount's own group, as in a namespace": ("0::/", V2, {"cpu.max": "300000 100000"}, 3),
    "a group outside the namespace": ("0::/../x", V2, {"cpu.max": "300000 100000"}, 3),
    "more quota than CPUs": ("0::/", V2, {"cpu.max": "9900000 100000"}, 64),
    "a group that is gone": ("0::/a (deleted)", V2, {}, 64),
    "version 1": (
        "3:cpu,cpuacct:/a\n2:cpuset:/x\n1:name=systemd:/",
        f"{V1_SET}\n{V1}",
        {"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000"},
        3,
    ),
    "version 1 without a quota": (
        "3:cpu,cpuacct:/a",
        V1,
        {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"},
        64,
    ),
    "hybrid": (
        "3:cpu,cpuacct:/a\n0::/b",
        f"{V1}\n{HYBRID}",
        {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
        2,
    ),
    "a part of the hierarchy, mounted at an odd place": (
        "0::/docker/a/b",
        NESTED,
        {"my groups/b/cpu.max": "500000 100000"},
        5,
    ),
    "a group outside what is mounted": (
        "0::/docker/other",
        NESTED,
        {"my groups/cpu.max": "400000 100000"},
        4,
    ),
}


@pytest.mark.parametrize(("groups", "mounts", "files", "count"), CASES.values(), ids=list(CASES))
def test_recorded_systems(
    groups: str,
    mounts: str,
    files: dict[str, str],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    content = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts} | {
        f"sys/fs/cgroup/{name}": text for name, text in files.items()
    }
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in content.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert available_cpus(tmp_path) == count


def counted(prepare: str = "") -> int:
    """Count in a new process, after it has run the statement *prepare*."""
    outcome = subprocess.run(
        [sys.executable, "-c", f"import os; {prepare}\n{COUNT}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(outcome.stdout)


def test_affinity_is_honoured() -> None:
    cpu = min(os.sched_getaffinity(0))
    assert counted(f"os.sched_setaffinity(0, {{{cpu}}})") == 1


@pytest.fixture
def group_with_one_cpu() -> Iterator[Path]:
    """A real control group, of either version, with a quota of one CPU."""
    if available_cpus() < 2:
        pytest.skip("one CPU is all there is")
    hierarchies = [
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "50000"}),
        (Path("/sys/fs/cgroup"), {"cpu.max": "50000 50000"}),
    ]
    for hierarchy, settings in hierarchies:
        group = hierarchy / f"pounce-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            try:
                for name, value in settings.items():
                    with (group / name).open("r+") as file:
                        file.write(value)
                yield group
                return
            finally:
                group.rmdir()
    pytest.skip("no control group with a quota can be made here")


def test_a_real_quota_is_honoured(group_with_one_cpu: Path) -> None:
    joined = f"open('{group_with_one_cpu}/cgroup.procs', 'w').write(str(os.getpid()))"
    assert counted(joined) == 1
    assert counted() > 1
