"""Where the pause of a restart goes: `python -m tests.benchmarks.restart [--rounds 7]`.

In a container with a real systemd a client sends one request after the other while `systemctl
restart` runs: the pause is the longest time between two answers. What it consists of is told by the
unit's timestamps and by its processes, which the host sees as well. All figures are medians, in
milliseconds. The last table is what importing takes, by the packages that are imported.
"""

import argparse
import os
import re
import select
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from pounce.net.address import Address
from tests.service import Wire
from tests.systemd import rootfs
from tests.systemd.instance import Instance
from tests.systemd.machine import Machine, build_wheel, control_groups

APPLICATIONS = {
    "hello": "demo:app",
    "Django": "django_app:app",
}
PHASES = {
    "asked": "until systemd tells the service to stop",
    "workers": "until the last worker has ended",
    "supervisor": "until the supervisor has ended",
    "systemd": "until systemd starts the service",
    "sandbox": "until Python runs, in the unit's sandbox",
    "start": "until the service is ready",
    "answer": "until the client has its answer",
}
_PROGRAM = "import pounce.assembly.foreground, pounce.assembly.server"
_FAMILIES = ("pounce", "websockets", "h11", "uvloop", "sdnotify", "tomli", "asyncio")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.restart", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    root = rootfs.cached("trixie", (*rootfs.PACKAGES, "python3-django"), wheels=())
    with tempfile.TemporaryDirectory() as directory, Machine(root) as machine:
        machine.install(build_wheel(Path(directory)))
        for name, app in APPLICATIONS.items():
            with serving(machine, name.lower(), app) as instance:
                report(name, [restart(instance) for _ in range(rounds)])
        report("imports", [imports(machine) for _ in range(rounds)])


@contextmanager
def serving(machine: Machine, name: str, app: str) -> Iterator[Instance]:
    """A service of *app* that has answered."""
    instance = Instance(machine, name)
    instance.configure(app, workers=1, environment={"DATABASE": ":memory:"})
    # systemd counts the restarts: more than five in ten seconds are too many.
    instance.amend(instance.service, "[Unit]\nStartLimitIntervalSec=0\n")
    instance.start()
    instance.curl("/")
    yield instance
    instance.remove()


def report(title: str, rounds: list[dict[str, float]]) -> None:
    """Print the median of each figure."""
    sys.stdout.write(f"\n{title}, {len(rounds)} rounds\n")
    for name in rounds[0]:
        median = statistics.median(each[name] for each in rounds)
        sys.stdout.write(f"{median * 1000:8.0f}  {PHASES.get(name, name)}\n")
    sys.stdout.flush()


def restart(instance: Instance) -> dict[str, float]:
    """Restart once; the pause, its phases, and the CPU time of the start, in seconds."""
    with asking(str(instance.machine.path(instance.path))) as answers:
        watch = Watch(control_group(instance))
        began = time.monotonic()
        process = instance.machine.start("systemctl", "restart", instance.service)
        watch.until_python_runs()
        if process.wait(60):
            raise AssertionError(f"the restart has failed: {process.communicate()[1]}")
        cpu = watch.cpu()
    before, after = max(pairwise(answers), key=lambda each: each[1] - each[0])
    moments = [
        began,
        moment(instance, "ActiveExit"),
        *(watch.workers_ended, watch.supervisor_ended),
        moment(instance, "InactiveExit"),
        watch.python_runs,
        moment(instance, "ActiveEnter"),
        after,
    ]
    phases = (later - earlier for earlier, later in pairwise(moments))
    return {
        "the pause": after - before,
        **dict(zip(PHASES, phases, strict=True)),
        "CPU time, from the sandbox until it is ready": cpu,
    }


@contextmanager
def asking(path: str) -> Iterator[list[float]]:
    """Ask the service at the socket *path* all the time; gives the times of its answers."""
    answers: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.001):
            with Wire(Address(kind="unix", path=path)) as wire:
                wire.send("/")
                if wire.receive() is None:
                    raise AssertionError("a request was lost")
            answers.append(time.monotonic())

    client = threading.Thread(target=ask)
    client.start()
    try:
        wait_for_more(answers)
        yield answers
        wait_for_more(answers)
    finally:
        over.set()
        client.join()


def wait_for_more(answers: list[float]) -> None:
    enough = len(answers) + 20
    Machine.wait_until(lambda: len(answers) > enough, 30, "answers")


def moment(instance: Instance, name: str) -> float:
    """When the unit last changed its state so; the container's monotonic clock is the host's."""
    return int(instance.show(f"{name}TimestampMonotonic")) / 1e6


def control_group(instance: Instance) -> Path:
    """The unit's, as the host sees it."""
    # proc_pid_cgroup(5): the container's init is in a group beside those of the slices.
    own = Path(f"/proc/{instance.machine.init}/cgroup").read_text().strip().rpartition(":")[2]
    inside = instance.show("ControlGroup").lstrip("/")
    return (control_groups() / own.lstrip("/")).parent / inside


class Watch:
    """Sees when a unit's processes end, and when its next one runs Python."""

    def __init__(self, group: Path) -> None:
        self._group = group
        self._old = self._processes()
        self.workers_ended = self.supervisor_ended = self.python_runs = 0.0
        self._poll = select.poll()
        self._descriptors = [os.pidfd_open(pid) for pid in self._old]
        for descriptor in self._descriptors:
            self._poll.register(descriptor, select.POLLIN)

    def until_python_runs(self) -> None:
        """Wait for all of that, and note when it was."""
        left = list(self._descriptors)  # the supervisor's is the first
        deadline = time.monotonic() + 60
        while not self.python_runs and time.monotonic() < deadline:
            for descriptor, _ in self._poll.poll(1):
                self._poll.unregister(descriptor)
                left.remove(descriptor)
                os.close(descriptor)
                if left == self._descriptors[:1]:
                    self.workers_ended = time.monotonic()
                elif not left:
                    self.supervisor_ended = time.monotonic()
            if not left and any(map(_runs_python, self._processes())):
                self.python_runs = time.monotonic()

    def cpu(self) -> float:
        """Seconds of CPU time that the unit's processes have used since its start."""
        return int(re.findall(r"usage_usec (\d+)", (self._group / "cpu.stat").read_text())[0]) / 1e6

    def _processes(self) -> list[int]:
        with suppress(OSError):  # it has none now
            return [int(pid) for pid in (self._group / "cgroup.procs").read_text().split()]
        return []


def _runs_python(pid: int) -> bool:
    # Until then it is systemd, which makes the sandbox, as "(pounce)". pounce renames itself, too.
    with suppress(OSError):
        return re.match(rb".*python|pounce:", Path(f"/proc/{pid}/cmdline").read_bytes()) is not None
    return False


def imports(machine: Machine) -> dict[str, float]:
    """Seconds that importing takes what serves, by package."""
    told = machine.run("python3", "-X", "importtime", "-c", _PROGRAM).stderr
    spent: dict[str, float] = defaultdict(float)
    for microseconds, module in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", told):
        package = module.partition(".")[0]
        family = package if package in _FAMILIES else "everything else"
        spent[family] += int(microseconds) / 1e6
        spent["all modules"] += int(microseconds) / 1e6
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    main()
