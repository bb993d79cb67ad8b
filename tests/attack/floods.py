"""What others notice of a flood: the same server, measured in peace and under each flood.

Server and clients have a core each where there are two, so that what the flood takes of the
clients' core is not taken for the server's: it is the same core in peace, though, without anybody
else on it.
"""

import asyncio
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tests.attack.blaster import FLOODS
from tests.certificates import Authority
from tests.http3 import connected
from tests.service import PATIENCE, Service, binding, serving, wait_until

PROJECT = Path(__file__).parents[2]
BYSTANDERS = 4
THINK = 0.02
RISE = 50.0
"""How many milliseconds a flood may add to the p99 of others."""

# The listener that a way of attack is for.
LISTENERS = {"plain": "plain", "tls": "tls", "quic": "http3"}
WORKER_TIMEOUT = "5"  # s; soon enough for a worker that looks hung to be replaced within a flood


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a flood; the p99 of others' GETs in ms, in peace and meanwhile."""

    flood: str
    way: str
    calm: float
    flooded: float
    worst: float
    answered: int
    sent: str
    trouble: str

    @property
    def rise(self) -> float:
        return self.flooded - self.calm

    @property
    def verdict(self) -> str:
        return self.trouble or ("ok" if self.rise < RISE else f"more than {RISE:g} ms")


@dataclass(frozen=True, slots=True)
class Seen:
    """What clients saw that ask again and again, in ms; *problem* is why it is worth nothing."""

    answered: int = 0
    p99: float = math.inf
    worst: float = math.inf
    problem: str = ""


class Bystanders:
    """Clients that ask again and again, each measurement on connections of its own."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def watch(self, seconds: float) -> Seen:
        """What they see for so long."""
        with self._service.load(connections=BYSTANDERS, think=THINK, duration=seconds) as load:
            result = load.result()
        lost = result.dropped or result.wrong or result.closed_idle or not result.answered
        problem = f"not served: {result.problems[:1]}" if lost else ""
        return Seen(result.answered, result.p99_ms, result.max_ms, problem)


class QuicBystanders(Bystanders):
    """The same over HTTP/3, on connections that are there before the flood begins.

    Whoever comes from the address that floods has to wait for a handshake; that is no fault.
    """

    def __enter__(self) -> Self:
        self._over = False
        self._times: list[float] = []
        self._asked: dict[int, float] = {}  # when each client asked what is not answered yet
        self._problem = ""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask_all()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def watch(self, seconds: float) -> Seen:
        """What they see for so long."""
        wait_until(lambda: self._times or self._problem, "an answer")
        self._times = []
        self._thread.join(seconds)
        answered, now = len(self._times), time.monotonic()
        times = sorted([*self._times, *(now - asked for asked in self._asked.values())])
        if not answered:
            return Seen(problem=self._problem or "not served")
        p99 = times[int(len(times) * 0.99)]
        return Seen(answered, p99 * 1000, times[-1] * 1000, self._problem)

    async def _ask_all(self) -> None:
        try:
            await asyncio.gather(*map(self._ask, range(2)))
        except Exception as error:
            self._problem = f"not served: {error!r}"

    async def _ask(self, number: int) -> None:
        address = self._service.address
        async with connected((address.host, address.port)) as client:
            while not self._over:
                self._asked[number] = time.monotonic()
                await asyncio.wait_for(client.get(), PATIENCE)
                self._times.append(time.monotonic() - self._asked.pop(number))
                await asyncio.sleep(THINK)


@contextmanager
def listening(directory: Path, listener: str) -> Iterator[Service]:
    """A service with *listener*, on a core of its own; whoever asks for it has the others."""
    cores = os.sched_getaffinity(0)
    first = {min(cores)}
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, first)
        service = stack.enter_context(_started(directory, listener))
        os.sched_setaffinity(0, cores - first or cores)
        yield service


def _started(directory: Path, listener: str) -> AbstractContextManager[Service]:
    flags = ("--worker-mode", "process", "--worker-timeout", WORKER_TIMEOUT)
    app, apps = "tests.apps.attack:app", PROJECT
    if listener == "plain":
        return serving(directory, *flags, app=app, apps=apps)
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(directory, "server")
    files = ("--certificate", str(certificate), "--key", str(key))
    trust = authority.write(directory)
    return binding(directory, "--http3", *files, *flags, app=app, apps=apps, authority=trust)


def floods_of(listener: str) -> list[tuple[str, str]]:
    """The name and the way of each flood that is for *listener*."""
    return [
        (name, way)
        for name, flood in FLOODS.items()
        for way in flood.ways
        if LISTENERS[way.partition("-")[0]] == listener
    ]


def endure(directory: Path, listener: str, name: str, way: str, seconds: float) -> Outcome:
    """Measure in peace and under one flood, with a service for that alone.

    What the kernel has taken of a flood, up to 6 MB a connection, is handled after its end, too.
    """
    with listening(directory, listener) as service:
        return _measure(service, listener, name, way, seconds)


def _measure(service: Service, listener: str, name: str, way: str, seconds: float) -> Outcome:
    kind = QuicBystanders if listener == "http3" else Bystanders
    said = len(service.log)
    with kind(service) as bystanders:
        calm = bystanders.watch(seconds / 2)
        with _blasting(service, name, way, seconds) as blaster:
            meanwhile = bystanders.watch(seconds)
            sent = json.loads(blaster.communicate(timeout=30)[0])
    return Outcome(
        flood=name,
        way=way,
        calm=calm.p99,
        flooded=meanwhile.p99,
        worst=meanwhile.worst,
        answered=meanwhile.answered,
        sent=", ".join(f"{count:,} {what}" for what, count in sent.items()),
        trouble=meanwhile.problem or calm.problem or _trouble(service.log[said:]),
    )


@contextmanager
def _blasting(
    service: Service, name: str, way: str, seconds: float
) -> Iterator[subprocess.Popen[bytes]]:
    """The flood, which has begun and will last for so long."""
    command = [sys.executable, "-m", "tests.attack.blaster", name, way, str(service.address)]
    with subprocess.Popen([*command, str(seconds)], stdout=subprocess.PIPE, cwd=PROJECT) as blaster:
        try:
            assert blaster.stdout is not None
            assert blaster.stdout.readline() == b"begins\n"
            yield blaster
        finally:
            blaster.kill()


def _trouble(said: str) -> str:
    """What is wrong with what the service has said meanwhile; nothing if nothing is."""
    if re.search("was silent|is ready", said):
        return "a worker looked hung"
    found = re.search("Traceback|ERROR.*", said)
    return found[0] if found else ""


COLUMNS: tuple[str, ...] = (
    "flood",
    "way",
    "calm p99",
    "flooded",
    "rise ms",
    "worst",
    "answered",
    "verdict",
    "sent",
)


def table(outcomes: list[Outcome]) -> str:
    """The figures for a person."""
    rows = [COLUMNS, *map(_row, outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(outcome: Outcome) -> tuple[str, ...]:
    times = (outcome.calm, outcome.flooded, outcome.rise, outcome.worst)
    return (
        outcome.flood,
        outcome.way,
        *(f"{each:.1f}" for each in times),
        f"{outcome.answered:,}",
        outcome.verdict,
        outcome.sent,
    )


def to_dict(outcome: Outcome) -> dict[str, object]:
    """The figures for a program."""
    return asdict(outcome) | {"rise": outcome.rise, "verdict": outcome.verdict}
