"""What a service holds: counted on the host, from /proc and systemd, not asked of the service."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine

_LISTENING, _TIME_WAIT = "0A", "06"  # states in /proc/net/tcp (linux/tcp_states.h)
_UNIX_CONNECTED = "03"  # in /proc/net/unix (SS_CONNECTED, linux/net.h)

MEMORY_SHARE, MEMORY_BYTES = 0.15, 6_000_000
"""Memory may grow by this share or by so many bytes, whichever is more: allocators keep some."""

INHERITED = 4
"""A forked worker inherits so many descriptors of each worker that the supervisor has then (a
pidfd, the file for its stacks, two pipes of multiprocessing): more after a reload, when the old
generation is still there, than after a start."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the service; *memory* is its proportional set size, in bytes."""

    pid: int
    descriptors: int
    threads: int
    memory: int


@dataclass(frozen=True, slots=True)
class Account:
    """What the service holds at one moment; memory in bytes (PSS), sums over its processes."""

    processes: int
    threads: int
    supervisor_descriptors: int
    descriptors: int
    connections: int
    stored: int
    supervisor_memory: int
    memory: int

    def changed(self, before: "Account") -> list[str]:
        """Whatever is counted and is not what it was *before*, in words."""
        names = ("processes", "threads", "supervisor_descriptors", "connections", "stored")
        changed = [name for name in names if getattr(self, name) != getattr(before, name)]
        workers = before.processes - 1
        siblings = 2 * workers - 1  # the other workers of two generations
        if self.descriptors > before.descriptors + INHERITED * workers * siblings:
            changed.append("descriptors")
        return [
            f"{name}: {getattr(before, name)} before, {getattr(self, name)} after"
            for name in changed
        ]

    def left_behind(self, before: "Account") -> list[str]:
        """What has changed, and memory that has grown."""
        allowed = max(MEMORY_BYTES, before.memory * MEMORY_SHARE)
        if self.memory - before.memory <= allowed:
            return self.changed(before)
        memory = f"memory: {before.memory} bytes before, {self.memory} after"
        return [*self.changed(before), memory]


class Accountant:
    """Counts what an instance with listeners at *path* and *port* holds."""

    def __init__(self, instance: Instance, path: str, port: int) -> None:
        self._instance = instance
        self._machine: Machine = instance.machine
        self._path = path
        self._port = f":{port:04X}"

    def pids(self) -> tuple[int, list[int]]:
        """The supervisor's pid and those of its children, on the host."""
        group = self._machine.path("/sys/fs/cgroup" + self._instance.show("ControlGroup"))
        # Written for whoever reads it: a container's processes have other pids inside.
        pids = {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
        [supervisor] = [pid for pid in pids if _parent(pid) not in pids]
        return supervisor, sorted(pids - {supervisor})

    def take(self) -> Account:
        """Count; raises OSError or ValueError where a process ends or starts meanwhile."""
        supervisor, workers = self.pids()
        processes = [_process(pid) for pid in (supervisor, *workers)]
        return Account(
            processes=len(processes),
            threads=sum(process.threads for process in processes),
            supervisor_descriptors=processes[0].descriptors,
            descriptors=sum(process.descriptors for process in processes),
            connections=len(self.connections()),
            stored=int(self._instance.show("NFileDescriptorStore")),
            supervisor_memory=processes[0].memory,
            memory=sum(process.memory for process in processes),
        )

    def settled(self, expected: Account | None = None, deadline: float = 30.0) -> Account:
        """Wait until all is drained: as *expected*, else without clients and unchanging; count.

        Where something stays that is not expected, what is there at the deadline is told.
        """
        found: list[Account] = []

        def is_settled() -> bool:
            try:
                found.append(self.take())
            except (OSError, ValueError):  # a process has just ended
                return False
            if expected is not None:
                return not found[-1].changed(expected)
            unchanged = len(found) > 1 and not found[-1].changed(found[-2])
            return unchanged and not found[-1].connections

        with suppress(AssertionError):
            self._machine.wait_until(is_settled, deadline, "all to be drained")
        return found[-1] if found else self.take()

    def connections(self) -> set[int]:
        """The inodes of the clients' connections, the service's end, accepted or not yet."""
        return {*self._tcp(), *self._unix()}

    def held_by(self, pids: list[int]) -> int:
        """How many connections these processes hold between them."""
        return len(self.connections() & {inode for pid in pids for inode in _sockets(pid)})

    def _tcp(self) -> Iterator[int]:
        for line in self._network("tcp"):
            _, local, _, state, *_, inode = line.split()[:10]
            if local.endswith(self._port) and state not in (_LISTENING, _TIME_WAIT):
                yield int(inode)

    def _unix(self) -> Iterator[int]:
        for line in self._network("unix"):
            columns = line.split()
            if columns[-1] == self._path and columns[5] == _UNIX_CONNECTED:
                yield int(columns[6])

    def _network(self, name: str) -> list[str]:
        return Path(f"/proc/{self._machine.init}/net/{name}").read_text().splitlines()[1:]


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Processes that do nothing meanwhile, so that what they hold can be counted exactly."""
    for pid in pids:
        os.kill(pid, SIGSTOP)
    try:
        Machine.wait_until(lambda: all(map(_is_stopped, pids)), 5, "processes to stop")
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, SIGCONT)


def _is_stopped(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all("\nState:\tT" in (thread / "status").read_text() for thread in threads)


def _parent(pid: int) -> int:
    return int(_number(Path(f"/proc/{pid}/status"), "PPid"))


def _process(pid: int) -> Process:
    process = Path(f"/proc/{pid}")
    return Process(
        pid=pid,
        descriptors=sum(1 for _ in (process / "fd").iterdir()),
        threads=_number(process / "status", "Threads"),
        memory=_number(process / "smaps_rollup", "Pss") * 1024,
    )


def _number(file: Path, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+)", file.read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"{file} says nothing of {name}")
    return int(match[1])


def _sockets(pid: int) -> Iterator[int]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
                yield int(match[1])
