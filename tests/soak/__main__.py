"""`python -m tests.soak`: the long test. As root; `--short` is a form of a few minutes."""

import argparse
import json
import random
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from tests.soak import free_threaded
from tests.soak.phases import Action, Plan, Report, carry_out
from tests.soak.service import MODES, Service
from tests.systemd import rootfs
from tests.systemd.machine import REPOSITORY, Machine, build_wheel

SHORT = {"reloads": 60, "restarts": 16, "kills": 20, "minutes": 5.0}
SHARES = {"reload": 0.5, "restart": 0.3, "kill": 0.2}
"""How the phases share the time."""
ONE_FAILS_OF = 20  # reloads
ONE_SUPERVISOR_OF = 8  # kills of processes

PROBLEMS_TOLD = 20  # all of them are in the JSON file

WARM_UP_COUNT, WARM_UP_SECONDS = 3, 6.0
"""A phase's first steps, before anything is counted: its processes are then of the same kind as
at its end, of the same age, and have held as many connections."""

COLUMNS = (
    *("phase", "actions", "seconds", "answered", "dropped", "closed idle", "may lose"),
    *("reconnects", "pause s", "fds of supervisor", "fds of all", "threads", "processes"),
    *("stored", "memory MB"),
)


def main() -> int:
    given = _arguments()
    _say(f"seed {given.seed}")
    # Told to end, it takes the machine down first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # Nothing that is asked on a socket here may take longer.
    socket.setdefaulttimeout(60)
    with tempfile.TemporaryDirectory() as directory:
        wheel = build_wheel(Path(directory))
        with Machine(rootfs.cached(given.suite)) as machine:
            machine.install(wheel)
            if "free-threaded" in given.modes:
                free_threaded.install(machine, wheel)
            reports = list(_reports(machine, given))
    _write(given, reports)
    _say(_table(reports))
    return 1 if any(report.broken for report in reports) else 0


def _tell(report: Report) -> None:
    _say(f"{report.name}: promise {'broken' if report.broken else 'kept'}")
    for line in report.broken:
        _say(f"! {line}")
    # What clients noted is no news where connections had to be lost.
    for line in islice(report.problems(), PROBLEMS_TOLD if report.broken else 0):
        _say(f"  {line}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--reloads", type=int, default=1000, help="in all; 1000")
    parser.add_argument("--restarts", type=int, default=200, help="in all; 200")
    parser.add_argument("--kills", type=int, default=200, help="in all; 200")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all; 60")
    parser.add_argument("--short", action="store_true", help=f"as if given {SHORT}")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["process", "thread"])
    parser.add_argument("--phases", nargs="+", choices=SHARES, default=list(SHARES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--idle", type=int, default=300, help="idle connections an address")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--suite", choices=rootfs.SUITES, default="trixie")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "build/soak")
    if parser.parse_args().short:
        parser.set_defaults(**SHORT)
    return parser.parse_args()


def _reports(machine: Machine, given: argparse.Namespace) -> Iterator[Report]:
    rng = random.Random(given.seed)
    service = Service(machine, given.workers, rng)
    for mode in given.modes:
        service.start(mode)
        for plan in _plans(service, mode, given, rng):
            first = replace(plan, count=WARM_UP_COUNT, seconds=WARM_UP_SECONDS)
            carry_out(first, service, given.idle, rng)
            report = carry_out(plan, service, given.idle, rng)
            _tell(report)
            if report.broken:
                _keep_journal(service, given.output / f"{report.name}.log")
            yield report


def _plans(
    service: Service, mode: str, given: argparse.Namespace, rng: random.Random
) -> Iterator[Plan]:
    actions = {
        "reload": (given.reloads, _reload(service, rng), True),
        "restart": (given.restarts, lambda: (service.restart(), 0), True),
        "kill": (given.kills, _kill(service, mode, rng), False),
    }
    for name in given.phases:
        count, act, keeps_all = actions[name]
        seconds = given.minutes * 60 * SHARES[name] / len(given.modes)
        yield Plan(f"{mode} {name}", count // len(given.modes), seconds, act, keeps_all)


def _reload(service: Service, rng: random.Random) -> Action:
    def act() -> tuple[str, int]:
        fails = rng.random() < 1 / ONE_FAILS_OF
        return (service.failing_reload() if fails else service.reload()), 0

    return act


def _kill(service: Service, mode: str, rng: random.Random) -> Action:
    def act() -> tuple[str, int]:
        # A thread cannot be killed but with its process, the supervisor.
        if mode != "process" or rng.random() < 1 / ONE_SUPERVISOR_OF:
            return service.kill_supervisor()
        return service.kill_worker()

    return act


def _keep_journal(service: Service, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ("journalctl", "-u", service.instance.service, "-o", "short-monotonic")
    path.write_text(service.instance.machine.run(*command, "--no-pager").stdout)


def _write(given: argparse.Namespace, reports: list[Report]) -> None:
    given.output.mkdir(parents=True, exist_ok=True)
    content = {"arguments": vars(given), "phases": [asdict(report) for report in reports]}
    path = given.output / "soak.json"
    path.write_text(json.dumps(content, indent=1, default=str))
    _say(f"all figures: {path}")


def _table(reports: list[Report]) -> str:
    rows = [COLUMNS, *(_row(report) for report in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def _row(report: Report) -> tuple[str, ...]:
    before, after = report.before, report.after
    assert before is not None
    assert after is not None
    changes = [
        f"{getattr(before, name)}→{getattr(after, name)}"
        for name in ("supervisor_descriptors", "descriptors", "threads", "processes", "stored")
    ]
    return (
        report.name,
        str(len(report.actions)),
        f"{report.seconds:.0f}",
        str(report.total("answered")),
        str(report.dropped),
        str(report.total("closed_idle")),
        str(report.cost),
        str(report.reconnects),
        f"{report.longest_pause:.1f}",
        *changes,
        f"{before.memory / 1e6:.1f}→{after.memory / 1e6:.1f}",
    )


if __name__ == "__main__":
    sys.exit(main())
