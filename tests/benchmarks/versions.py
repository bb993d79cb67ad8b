"""Hold this checkout's speed against an earlier commit's.

    python -m tests.benchmarks.versions REVISION [--pairs 15] [--seconds 2] [--only TEXT ...]

Both serve at the same time and are loaded in turn, each pair in the other order, so that what else
happens on the machine meets both alike. A row shows the median of the pairs' ratios (now / then,
requests for each second of the server's CPU time) and the 95 % confidence interval of that median.
The exit status is 1 where an interval does not reach 0.98.
"""

import argparse
import io
import math
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests import tools
from tests.benchmarks.generator import HTTP3
from tests.benchmarks.rows import ROWS, Row
from tests.benchmarks.servers import HAS_HTTP3, PROJECT, Interpreters, environments, serving

WANTED = 0.98
TITLES = (
    "GET, 13-byte body",
    "POST, 1 KB JSON",
    "WSGI, 13-byte body",
    "repeated: GET, 13-byte body, 32",
    "repeated: POST",
    "repeated: GET, streamed",
    "WebSocket echo",
    "repeated: HTTP/3",
    "repeated: WSGI",
)


@dataclass(frozen=True)
class Verdict:
    """A row's median ratio and the limits *low* and *high* of its interval."""

    title: str
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.title}: {self.ratio:.3f} ({self.low:.3f} to {self.high:.3f})"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median: two of *values*, at least six of them.

    It supposes nothing of how they are distributed: the median lies between the k-th smallest and
    the k-th largest of n unless fewer than k of them fall on one of its sides (binomial, p = 1/2).
    """
    ordered, count = sorted(values), len(values)
    if count < 6:  # with five, all of them lie on one side in 6 % of cases
        raise ValueError(f"an interval needs at least six pairs, and there are {count}")
    outside, k = 0.0, 0
    while outside + math.comb(count, k) / 2**count <= 0.025:  # half of 5 %
        outside += math.comb(count, k) / 2**count
        k += 1
    return ordered[k - 1], ordered[-k]


def compare(row: Row, then: Path, interpreters: Interpreters, pairs: int, seconds: int) -> Verdict:
    """Load this checkout and the package in *then*, in turn."""
    ratios = []
    with ExitStack() as stack:
        places = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        servers = [
            stack.enter_context(serving(row.subject, interpreters, place, source))
            for place, source in zip(places, (PROJECT / "service", then), strict=True)
        ]
        for server, place in zip(servers, places, strict=True):
            row.load.run(server, 1, place)
        for number in range(pairs):
            rates = [0.0, 0.0]
            for which in (0, 1) if number % 2 else (1, 0):
                sample = row.load.run(servers[which], seconds, places[which])
                rates[which] = sample.rate_per_cpu
            ratios.append(rates[0] / rates[1])
    return Verdict(row.title, statistics.median(ratios), *interval(ratios))


def unpack(revision: str, directory: Path) -> Path:
    """Put the package of *revision* into *directory*; returns what PYTHONPATH needs."""
    command = ["git", "archive", revision, "service"]
    archive = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(directory, filter="data")
    return directory / "service"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.versions")
    parser.add_argument("revision", help="the commit to compare with")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2, help="of each run")
    parser.add_argument("--only", nargs="+", default=TITLES, help="rows whose title begins so")
    given = parser.parse_args()
    tools.install({"wrk": "wrk", "taskset": "util-linux"})
    interpreters = environments()
    slower = False
    with tempfile.TemporaryDirectory(prefix="pounce-versions-") as directory:
        then = unpack(given.revision, Path(directory))
        for row in ROWS:
            if not row.title.startswith(tuple(given.only)):
                continue
            if isinstance(row.load, HTTP3) and not HAS_HTTP3:
                sys.stdout.write(f"{row.title}: left out, aioquic does not fit this Python\n")
                continue
            verdict = compare(row, then, interpreters, given.pairs, given.seconds)
            slower = slower or verdict.high < WANTED
            sys.stdout.write(f"{verdict}\n")
            sys.stdout.flush()
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
