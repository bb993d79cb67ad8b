"""Measure pounce beside its peers: `make bench`.

    python -m tests.benchmarks [--rounds 5] [--seconds 4] [--only TEXT ...]

First come requests that differ from one another, which is what a server behind a proxy sees; rows
that repeat one request begin with that word. Rates are requests for each second of CPU time of a
server's whole process tree, and memory is that of the whole tree, too.

Every server has one worker on one core and serves the same application; the client has another
core. The servers of a row take turns, and a figure is the median of all rounds, so that what
else happens on the machine meets all alike. The table is printed; build/ gets it as JSON and
as a plot, and a profile of where the time of a request goes.

The interpreter matters: one that was built without profile-guided optimization, as pyenv does
unless it is told to, runs Python code half as fast as a distribution's, and C code as fast. On a
free-threaded one the rows of HTTP/3 are left out, and a server that needs the GIL is named.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import tools
from tests.benchmarks import generator, report
from tests.benchmarks.generator import HTTP3, Echo, Load, Sample
from tests.benchmarks.report import Line
from tests.benchmarks.rows import ROWS, Row, paced
from tests.benchmarks.servers import (
    HAS_HTTP3,
    PROJECT,
    Interpreters,
    Server,
    environments,
    serving,
)

IDLE_CONNECTIONS = 5000
BESIDE = 1000


class Bench:
    """A run of the benchmarks; each method yields lines of the table, and *notes* go below it."""

    def __init__(
        self, rounds: int, seconds: int, interpreters: Interpreters, directory: Path
    ) -> None:
        self.rounds = rounds
        self.seconds = seconds
        self.interpreters = interpreters
        self.directory = directory
        self.notes: list[str] = []

    def row(self, row: Row) -> Iterator[Line]:
        if missing := self._missing(row):
            self._note(f"{row.title}: left out, {missing}")
            return
        samples = self._samples(row.servers, row.load)
        clock = self._median(samples, lambda sample: sample.rate)
        cpu = self._median(samples, lambda sample: sample.rate_per_cpu)
        rate = clock if row.wall else cpu
        mine = row.subject
        for peer in row.servers[1:]:
            wall = clock[mine] / clock[peer]
            yield Line(
                row.title, peer, "/s", rate[mine], rate[peer], row.wanted.get(peer), wall=wall
            )

    def latency(self) -> Iterator[Line]:
        capacity = self._samples(("uvicorn",), Load())["uvicorn"]
        load = paced(statistics.median(sample.rate for sample in capacity) / 2)
        samples = self._samples(("pounce", "uvicorn"), load)
        p99 = self._median(samples, lambda sample: sample.p99 * 1e6)
        title = "p99 at half of uvicorn's capacity"
        yield Line(title, "uvicorn", "us", p99["pounce"], p99["uvicorn"], 1.0, at_most=True)

    def memory(self) -> Iterator[Line]:
        worker, idle, each = {}, {}, {}
        for name in ("pounce", "uvicorn"):
            with self._serving(name) as server:
                with generator.idle_connections(server, 1):
                    before = server.memory()
                    worker[name] = server.worker_memory() / 1024
                with generator.idle_connections(server, IDLE_CONNECTIONS):
                    each[name] = (server.memory() - before) / IDLE_CONNECTIONS
                idle[name] = before / 1024
        for title, unit, figures, wanted in (
            ("memory of an idle worker", "KiB", worker, 1.0),
            ("memory of an idle service, supervisor included", "KiB", idle, None),
            (f"memory of each of {IDLE_CONNECTIONS:,} idle connections", "bytes", each, 0.4),
        ):
            mine, peer = figures["pounce"], figures["uvicorn"]
            yield Line(title, "uvicorn", unit, mine, peer, wanted, at_most=True)

    def beside_idle(self) -> Iterator[Line]:
        alone, beside = [], []
        with self._serving("pounce, wsgi") as server:
            for _ in range(self.rounds):
                alone.append(Load().run(server, self.seconds, self.directory))
                with generator.idle_connections(server, BESIDE):
                    beside.append(Load().run(server, self.seconds, self.directory))
        samples = {"beside": beside, "alone": alone}
        clock = self._median(samples, lambda sample: sample.rate)
        cpu = self._median(samples, lambda sample: sample.rate_per_cpu)
        title = f"WSGI, 32 connections beside {BESIDE:,} idle ones"
        wall = clock["beside"] / clock["alone"]
        yield Line(title, "without them", "/s", cpu["beside"], cpu["alone"], 0.9, wall=wall)

    def _samples(
        self, names: tuple[str, ...], load: Load | Echo | HTTP3
    ) -> dict[str, list[Sample]]:
        samples = defaultdict(list)
        with ExitStack() as stack:
            servers = [stack.enter_context(self._serving(name)) for name in names]
            for server in servers:
                load.run(server, 1, self.directory)
            for _ in range(self.rounds):
                for server in servers:
                    sample = load.run(server, self.seconds, self.directory)
                    samples[server.name].append(sample)
        return samples

    @contextmanager
    def _serving(self, name: str) -> Iterator[Server]:
        with serving(name, self.interpreters, self.directory) as server:
            yield server
        if module := server.brought_the_gil():
            self._note(f"{name} ran with the GIL: {module} switched it on")

    def _missing(self, row: Row) -> str:
        if isinstance(row.load, HTTP3) and not HAS_HTTP3:
            return "aioquic does not fit a free-threaded Python"
        if row.free_threaded and not self.interpreters.free_threaded:
            return "there is no free-threaded Python here"
        return ""

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    @staticmethod
    def _median(
        samples: dict[str, list[Sample]], figure: Callable[[Sample], float]
    ) -> dict[str, float]:
        return {name: statistics.median(map(figure, taken)) for name, taken in samples.items()}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure pounce beside its peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose title has such a text")
    chosen = parser.parse_args()
    tools.install({"wrk": "wrk", "taskset": "util-linux", "unshare": "util-linux"})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for thousands of clients
    with tempfile.TemporaryDirectory(prefix="pounce-bench-") as directory:
        interpreters = environments()
        bench = Bench(chosen.rounds, chosen.seconds, interpreters, Path(directory))
        work: list[tuple[str, Callable[[], Iterator[Line]]]] = [
            *((row.title, lambda row=row: bench.row(row)) for row in ROWS),
            ("WSGI beside idle connections", bench.beside_idle),
            ("p99", bench.latency),
            ("memory", bench.memory),
        ]
        lines: list[Line] = []
        for title, measure in work:
            if any(text in title for text in chosen.only):
                measured = list(measure())
                lines += measured
                ratios = ", ".join(f"{line.ratio:.2f} x {line.peer}" for line in measured)
                _say(f"{title}: {ratios or 'left out'}")
    build = PROJECT / "build"
    build.mkdir(exist_ok=True)
    report.write_json(lines, bench.notes, build / "bench.json")
    report.write_plot(lines, build / "bench.svg")
    profile = subprocess.run(
        [interpreters.python, "-m", "tests.benchmarks.profile"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (build / "profile.txt").write_text(profile)
    _say(f"{report.table(lines, bench.notes)}\n\n{profile}")


if __name__ == "__main__":
    main()
