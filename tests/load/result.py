"""What the clients have seen."""

import json
import math
import time
from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum

# Latencies are counted in buckets 1 % wide, so that an hour's load fits in memory.
_WIDTH = math.log(1.01)
_SMALLEST = 1e-6
_PROBLEMS_KEPT = 20


class Drop(StrEnum):
    """How a request can be lost."""

    REFUSED = "refused"  # no connection could be made
    RESET = "reset"  # the connection was reset before the response began
    UNANSWERED = "unanswered"  # the connection was closed before the response began
    HALF = "half answered"  # the response began, and did not end or was malformed
    TIMED_OUT = "timed out"  # connecting or answering took too long


@dataclass(frozen=True, slots=True)
class ServedBy:
    """Who answered, as the application says, and how many requests."""

    generation: str
    worker: str
    pid: str
    version: str
    answered: int


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one run; latencies in milliseconds, as seen by the client."""

    answered: int  # completely and correctly
    wrong: int  # complete responses to something else: status, headers or content
    refused: int
    reset: int
    unanswered: int
    half_answered: int
    timed_out: int
    closed_idle: int  # kept-alive connections closed without notice, no request in flight
    polite_closes: int  # ... closed by a response that announced it
    connections: int  # established in all
    clients: int  # connections wanted at a time
    seconds: float
    longest_pause_ms: float  # between two answers, over all clients
    p50_ms: float
    p99_ms: float
    max_ms: float
    served_by: tuple[ServedBy, ...]
    problems: tuple[str, ...]  # the first few, with their time in seconds

    @property
    def dropped(self) -> int:
        """Requests that were not answered by a complete response."""
        lost = self.refused + self.reset + self.unanswered
        return lost + self.half_answered + self.timed_out

    @property
    def reconnects(self) -> int:
        """Connections that took the place of an earlier one."""
        return self.connections - self.clients

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds if self.seconds else 0.0

    @property
    def generations(self) -> set[str]:
        """The generations that answered."""
        return {each.generation for each in self.served_by}

    @property
    def workers(self) -> set[str]:
        """The slots that answered."""
        return {each.worker for each in self.served_by}

    @property
    def pids(self) -> set[int]:
        """The processes that answered."""
        return {int(each.pid) for each in self.served_by}

    def assert_nothing_lost(self) -> None:
        """Demand that no client noticed anything: every request answered, no connection lost."""
        noticed = (self.wrong, self.dropped, self.closed_idle, self.polite_closes, self.reconnects)
        assert self.answered, f"nobody was served\n{self.table()}"
        assert not any(noticed), f"clients noticed\n{self.table()}"

    def rows(self) -> list[tuple[str, str]]:
        """The table's lines: name and figure."""
        figures = {
            "answered": f"{self.answered} ({self.per_second:.0f}/s for {self.seconds:.1f} s)",
            "wrong": self.wrong,
            "dropped": self.dropped,
            "  refused": self.refused,
            "  reset": self.reset,
            "  unanswered": self.unanswered,
            "  half answered": self.half_answered,
            "  timed out": self.timed_out,
            "idle connections closed": self.closed_idle,
            "polite closes": self.polite_closes,
            "connections": f"{self.connections} for {self.clients} clients",
            "latency": f"p50 {self.p50_ms:.2f}, p99 {self.p99_ms:.2f}, max {self.max_ms:.2f} ms",
            "longest pause": f"{self.longest_pause_ms:.1f} ms",
            "generations": ", ".join(sorted(self.generations)) or "-",
            "workers": ", ".join(sorted(self.workers)) or "-",
        }
        return [(name, str(figure)) for name, figure in figures.items()]

    def table(self) -> str:
        """The figures for a person, with the first problems."""
        lines = [f"{name:<25}{figure}" for name, figure in self.rows()]
        return "\n".join(lines + [f"! {problem}" for problem in self.problems])

    def to_json(self) -> str:
        """The figures for a program."""
        derived = {"dropped": self.dropped, "reconnects": self.reconnects}
        return json.dumps({**asdict(self), **derived}, indent=2)


class Tally:
    """Counts while clients run; `result` is what has been counted so far."""

    def __init__(self, clients: int) -> None:
        self.clients = clients
        self.answered = 0
        self.wrong = 0
        self.closed_idle = 0
        self.polite_closes = 0
        self.connections = 0
        self.drops: Counter[Drop] = Counter()
        self._served_by: Counter[bytes] = Counter()
        self._latencies: Counter[int] = Counter()
        self._slowest = 0.0
        self._problems: list[str] = []
        self._began = self._last_answer = time.monotonic()
        self._longest_pause = 0.0

    def answer(self, latency: float, served_by: bytes) -> None:
        """Count a request that was answered *latency* seconds after it began."""
        now = time.monotonic()
        self.answered += 1
        self._served_by[served_by] += 1
        self._latencies[int(math.log(max(latency, _SMALLEST) / _SMALLEST) / _WIDTH)] += 1
        self._slowest = max(self._slowest, latency)
        self._longest_pause = max(self._longest_pause, now - self._last_answer)
        self._last_answer = now

    def drop(self, how: Drop, why: str) -> None:
        """Count a request that was lost."""
        self.drops[how] += 1
        self.note(f"{how}: {why}")

    def note(self, problem: str) -> None:
        """Remember what happened, unless too much has."""
        if len(self._problems) < _PROBLEMS_KEPT:
            self._problems.append(f"{time.monotonic() - self._began:.3f} s: {problem}")

    def result(self) -> Result:
        """The figures."""
        return Result(
            answered=self.answered,
            wrong=self.wrong,
            refused=self.drops[Drop.REFUSED],
            reset=self.drops[Drop.RESET],
            unanswered=self.drops[Drop.UNANSWERED],
            half_answered=self.drops[Drop.HALF],
            timed_out=self.drops[Drop.TIMED_OUT],
            closed_idle=self.closed_idle,
            polite_closes=self.polite_closes,
            connections=self.connections,
            clients=self.clients,
            seconds=time.monotonic() - self._began,
            longest_pause_ms=self._longest_pause * 1000,
            p50_ms=self._quantile(0.5),
            p99_ms=self._quantile(0.99),
            max_ms=self._slowest * 1000,
            served_by=tuple(_parse(text, count) for text, count in self._served_by.items()),
            problems=tuple(self._problems),
        )

    def _quantile(self, share: float) -> float:
        remaining = share * self._latencies.total()
        for bucket, count in sorted(self._latencies.items()):
            remaining -= count
            if remaining <= 0:
                return _SMALLEST * math.exp((bucket + 1) * _WIDTH) * 1000
        return 0.0


def _parse(served_by: bytes, answered: int) -> ServedBy:
    generation, worker, pid, version = served_by.decode().split(" ")
    return ServedBy(generation, worker, pid, version, answered)
