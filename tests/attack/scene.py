"""One attack on one service: what its honest clients see of it, and what it costs the worker."""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tests.attack.attacks import PATIENCE, Attack
from tests.load import Background, Result
from tests.load.plan import Request
from tests.service import Service, serving, wait_until

PROJECT = Path(__file__).parents[2]

KEPT, VISITORS = 8, 4
AT_WORK = KEPT + 2 * VISITORS  # a visitor's last connection may still be closing
RECOVERY = 15.0
"""Seconds after which nothing of an attack may be left; every timeout is shorter."""

LEFT = 16
"""What may stay of it in a worker's resident memory, in MiB: the allocator's, not ours."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request on a connection of its own."""

    def request(self, nonce: bytes) -> Request:
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Nonce: %b\r\nConnection: close\r\n\r\n"
        return Request(nonce, head % nonce)


class Process:
    """What the kernel says of a worker (proc_pid_status(5))."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))

    @property
    def descriptors(self) -> int:
        return sum(1 for _ in (self._folder / "fd").iterdir())

    @property
    def resident(self) -> float:
        """In MiB."""
        return self._memory("VmRSS")

    @property
    def peak(self) -> float:
        """The most since `forget_peak`, in MiB."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def recover(self, descriptors: int) -> None:
        """Wait until no more than so many are open."""
        wait_until(lambda: self.descriptors <= descriptors, "descriptors closed", RECOVERY)

    def _memory(self, name: str) -> float:
        found = re.search(rf"{name}:\s+(\d+) kB", (self._folder / "status").read_text())
        return int(found[1]) / 1024 if found else math.nan


@dataclass(frozen=True, slots=True)
class Seen:
    """What clients saw, in milliseconds."""

    answered: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def by(cls, result: Result) -> Self:
        """From their figures; AssertionError if they were not served."""
        assert (result.wrong, result.dropped, result.closed_idle) == (0, 0, 0), result.table()
        return cls(result.answered, result.p50_ms, result.p99_ms, result.max_ms)


@dataclass(frozen=True, slots=True)
class Memory:
    """A worker's resident memory, in MiB."""

    before: float
    peak: float
    after: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attack: for clients that keep a connection, and for those that do not."""

    attack: str
    amount: int
    kept: Seen
    visits: Seen | None
    memory: Memory
    attackers_saw: str


def perform(attack: Attack, amount: int, directory: Path, *, rounds: int = 1) -> Outcome:
    """Carry *attack* out; AssertionError if an honest client noticed more than a delay.

    What the worker's memory has grown by once, the allocator may keep; with more *rounds* it has
    to be content with that.
    """
    flags = ("--worker-mode", "process", *attack.flags)
    with serving(directory, *flags, app="tests.apps.attack:app", apps=PROJECT) as service:
        worker = Process(service.workers["0"])
        with service.connect() as wire:
            wire.get("/")  # the first connection leaves a descriptor of the loop's own
            in_use = worker.descriptors - 1
        with honest_clients(service, visits=not attack.crowded) as (kept, visits):
            before = calm = worker.resident
            worker.forget_peak()
            for left in reversed(range(rounds)):
                seen = attack.carry_out(service.address, amount)
                kept.wait_for_more(50, RECOVERY)
                worker.recover(in_use + AT_WORK)
                calm = worker.resident if left else calm
        worker.recover(in_use)
        outcome = Outcome(
            attack.name,
            amount,
            Seen.by(kept.result()),
            Seen.by(visits.result()) if visits else None,
            Memory(before, worker.peak, worker.resident),
            seen,
        )
        assert outcome.memory.peak - before < attack.growth, outcome
        assert outcome.memory.after - calm < LEFT, outcome
        assert not re.search("Traceback|ERROR", service.log), service.log
    return outcome


@contextmanager
def honest_clients(
    service: Service, *, visits: bool
) -> Iterator[tuple[Background, Background | None]]:
    """Those that keep a connection, and those that open one for each request; all at work."""
    with ExitStack() as stack:
        each = [service.load(connections=KEPT, think=0.02, duration=PATIENCE)]
        if visits:
            each += [
                service.load(connections=VISITORS, think=0.02, duration=PATIENCE, work=Visit())
            ]
        for load in each:
            stack.enter_context(load)
            load.wait_for_more(100)
        yield each[0], each[1] if visits else None


COLUMNS: dict[str, Callable[[Outcome], str]] = {
    "attack": lambda outcome: outcome.attack,
    "amount": lambda outcome: f"{outcome.amount:,}",
    "answered": lambda outcome: f"{outcome.kept.answered:,}",
    "p50 ms": lambda outcome: f"{outcome.kept.p50:.1f}",
    "p99 ms": lambda outcome: f"{outcome.kept.p99:.1f}",
    "longest": lambda outcome: f"{outcome.kept.longest:.1f}",
    "visits": lambda outcome: f"{outcome.visits.answered:,}" if outcome.visits else "-",
    "visits' p99": lambda outcome: f"{outcome.visits.p99:.1f}" if outcome.visits else "-",
    "MiB before": lambda outcome: f"{outcome.memory.before:.0f}",
    "peak": lambda outcome: f"{outcome.memory.peak:.0f}",
    "after": lambda outcome: f"{outcome.memory.after:.0f}",
}


def table(outcomes: list[Outcome]) -> str:
    """The figures for a person."""
    rows = [list(COLUMNS), *([cell(each) for cell in COLUMNS.values()] for each in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def to_json(outcomes: list[Outcome]) -> str:
    """The figures for a program."""
    return json.dumps([asdict(each) for each in outcomes], indent=2)
