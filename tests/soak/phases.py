"""Phases: the same load, something done to the service meanwhile, and what clients may notice."""

import json
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from pounce.net.address import Address
from tests.soak.account import Account
from tests.soak.service import Broken, Service
from tests.soak.traffic import ESTABLISHED
from tests.systemd.machine import REPOSITORY, Machine

Action = Callable[[], tuple[str, int]]
"""Does something; tells what, and how many connections it may have cost."""

_DRAINED = 60.0
"""Seconds that requests in flight may take at the end."""


class Traffic:
    """The mixture of load on one address, from a process of its own in the machine's network."""

    def __init__(self, machine: Machine, address: Address, idle: int) -> None:
        command = (sys.executable, "-m", "tests.soak.traffic", str(address), str(idle))
        self._process = subprocess.Popen(
            machine.in_network(*command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        self.began = 0.0
        """When its clients' clocks began, on time.monotonic()."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_until_established(self) -> None:
        """Wait until every client has been served."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], 2 * ESTABLISHED)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            raise Broken("not every client was served at the beginning")
        self.began = json.loads(line)["began"]

    def result(self) -> dict[str, dict[str, Any]]:
        """End it; the figures (tests.load.Result) of each kind of load."""
        output, _ = self._process.communicate(timeout=_DRAINED)
        found: dict[str, dict[str, Any]] = json.loads(output)
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """A phase: *count* times one of *actions*, spread over *seconds*."""

    name: str
    count: int
    seconds: float
    act: Action
    keeps_all: bool
    """Whether no client may notice anything; else those may whose connections it cost."""


@dataclass(slots=True)
class Report:
    """What came of a phase."""

    name: str
    seconds: float = 0.0
    actions: list[tuple[float, str]] = field(default_factory=list)
    cost: int = 0
    """Connections that killed processes held."""
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    before: Account | None = None
    after: Account | None = None
    broken: list[str] = field(default_factory=list)

    def total(self, name: str) -> int:
        """A figure of all clients together."""
        return sum(result[name] for result in self.seen.values())

    @property
    def dropped(self) -> int:
        """Requests without a complete response."""
        names = ("refused", "reset", "unanswered", "half_answered", "timed_out")
        return sum(map(self.total, names))

    @property
    def reconnects(self) -> int:
        """Connections that took another's place."""
        return self.total("connections") - self.total("clients")

    @property
    def longest_pause(self) -> float:
        """The longest time, in seconds, in which nobody on one address got an echo."""
        echoes = [seen["longest_pause_ms"] for name, seen in self.seen.items() if "echo" in name]
        return max(echoes, default=0.0) / 1000

    def problems(self) -> Iterator[str]:
        """What the clients noted, first ones only."""
        for name, result in self.seen.items():
            yield from (f"{name}: {problem}" for problem in result["problems"])


def carry_out(plan: Plan, service: Service, idle: int, rng: random.Random) -> Report:
    """Carry out *plan*, and judge it."""
    report = Report(plan.name)
    report.before = service.accountant.settled()
    began = time.monotonic()
    try:
        _under_load(plan, service, idle, rng, report)
    except (Broken, AssertionError, subprocess.TimeoutExpired, OSError) as error:
        report.broken.append(f"after {len(report.actions)} actions: {error!r}")
    report.seconds = time.monotonic() - began
    report.after = service.accountant.settled(report.before)
    report.broken += report.after.left_behind(report.before)
    report.broken += _noticed(report, plan)
    return report


def _under_load(
    plan: Plan, service: Service, idle: int, rng: random.Random, report: Report
) -> None:
    with ExitStack() as stack:
        traffics = {
            name: stack.enter_context(Traffic(service.instance.machine, address, idle))
            for name, address in service.addresses.items()
        }
        for traffic in traffics.values():
            traffic.wait_until_established()
        began = max(traffic.began for traffic in traffics.values())
        for _ in _paced(plan.count, plan.seconds, rng):
            started = time.monotonic() - began
            what, cost = plan.act()
            report.actions.append((round(started, 3), what))
            report.cost += cost
        for name, traffic in traffics.items():
            for kind, seen in traffic.result().items():
                report.seen[f"{name} {kind}"] = seen


def _paced(count: int, seconds: float, rng: random.Random) -> Iterator[int]:
    """*count* moments at random intervals, done when *seconds* are over."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    for left in range(count, 0, -1):
        mean = max(0.0, end - time.monotonic()) / left
        pause.wait(mean * rng.uniform(0.2, 1.8))
        yield left
    pause.wait(max(0.0, end - time.monotonic()))


def _noticed(report: Report, plan: Plan) -> Iterator[str]:
    """What clients saw that they may not."""
    if not report.seen:
        return
    never = {name: report.total(name) for name in ("wrong", "refused", "timed_out")}
    lost = report.total("reset") + report.total("unanswered") + report.total("half_answered")
    lost += report.total("closed_idle")
    if plan.keeps_all:
        never |= {"lost or closed": lost, "polite closes": report.total("polite_closes")}
        never["reconnects"] = report.reconnects
    elif lost > report.cost:
        yield f"{lost} connections lost, and what was killed held {report.cost}"
    yield from (f"{name}: {figure}" for name, figure in never.items() if figure)
