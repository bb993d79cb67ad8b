"""Measure worker threads on a free-threaded Python: `python -m tests.benchmarks.threads`.

Two workers, as threads and as processes, beside one, with the load from the same two cores; the
memory of four workers as threads and as processes, of an application of 100 MB; and the memory of
reload after reload.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import run
from tests.benchmarks.servers import HERE, PROJECT
from tests.service import Service, serving

WORKERS = 4
RELOADS = 200
WARM_UP = 10  # reloads until memory is what it will be
_TICKS = 100  # a second: USER_HZ, proc_stat(5)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.threads", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    interpreter = run.free_threaded()
    if interpreter is None:
        sys.stdout.write("threads are not measured: no free-threaded Python here\n")
        return 0
    python = run.environment(run.FREE_THREADED, interpreter)
    figures = {
        **{path: scaling(python, path, given.rounds, given.seconds) for path in PATHS},
        "memory": memory(python),
        "reloads": reloads(python),
    }
    output = PROJECT / "build" / "threads.json"
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(figures, indent=1))
    sys.stdout.write(f"all figures: {output}\n")
    return 0


PATHS = ("/compute", "/hello")
CREWS = {"one": (1, "thread"), "two": (2, "thread"), "two as processes": (2, "process")}


def scaling(python: Path, path: str, rounds: int, seconds: float) -> dict[str, float]:
    """One worker and two, in turn; requests a second, and for a second of the server's time."""
    rate: dict[str, list[float]] = {name: [] for name in CREWS}
    per_cpu: dict[str, list[float]] = {name: [] for name in CREWS}
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(served(python, workers, mode))
            for name, (workers, mode) in CREWS.items()
        }
        for _ in range(rounds):
            for name, service in services.items():
                used = cpu(service)
                requests, elapsed = wrk(service, path, seconds)
                rate[name].append(requests / elapsed)
                per_cpu[name].append(requests / (cpu(service) - used))
    figures = {name: statistics.median(each) for name, each in rate.items()}
    costs = {name: statistics.median(each) for name, each in per_cpu.items()}
    figures |= {
        "ratio": figures["two"] / figures["one"],
        # What two cores of its own would give: wrk takes its part of these two.
        "ratio for equal CPU time": 2 * costs["two"] / costs["one"],
        # Two that share nothing, on the same cores and beside the same load.
        "that of processes": 2 * costs["two as processes"] / costs["one"],
    }
    say(f"{path}: two workers beside one", figures)
    return figures


def memory(python: Path) -> dict[str, float]:
    """Bytes of the whole service, with its workers as processes and as threads."""
    figures = {}
    for mode in ("process", "thread"):
        with served(python, workers=WORKERS, mode=mode) as service:
            figures[mode] = sum(pss(pid) for pid in family(service.process.pid)) / 1e6
    figures["ratio"] = figures["thread"] / figures["process"]
    say(f"MB of {WORKERS} workers, an application of 100 MB", figures)
    return figures


def reloads(python: Path) -> dict[str, float]:
    """The service's bytes after the first reloads, and after many more."""
    figures = {}
    with served(python, workers=2) as service:
        for number in range(1, WARM_UP + RELOADS + 1):
            service.send_signal(signal.SIGHUP)
            service.expect(f"generation {number} is retired", 60)
            if number in (WARM_UP, WARM_UP + RELOADS):
                figures[f"after {number}"] = pss(service.process.pid) / 1e6
    say("MB of threads, reload after reload", figures)
    return figures


@contextmanager
def served(python: Path, workers: int, mode: str = "thread") -> Iterator[Service]:
    flags = ("--worker-mode", mode, "--workers", str(workers))
    with (
        tempfile.TemporaryDirectory() as directory,
        serving(Path(directory), *flags, app="heavy:app", apps=HERE, python=python) as service,
    ):
        yield service


def wrk(service: Service, path: str, seconds: float) -> tuple[int, float]:
    """How many requests were answered, in how many seconds."""
    command = ["wrk", "--threads", "1", "--connections", "32", "--duration", f"{seconds:g}s"]
    began = time.monotonic()
    output = subprocess.run(
        [*command, f"http://{service.address}{path}"], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"(\d+) requests in", output)
    if found is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk says: {output}")
    return int(found[1]), time.monotonic() - began


def cpu(service: Service) -> float:
    """Seconds of CPU time that its processes have used."""
    used = 0
    for pid in family(service.process.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / _TICKS


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


def pss(pid: int) -> int:
    """Bytes, shared pages in proportion (proc_pid_smaps(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def say(title: str, figures: dict[str, float]) -> None:
    told = ", ".join(f"{name} {value:,.2f}" for name, value in figures.items())
    sys.stdout.write(f"{title}: {told}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
