"""Run the project's tests: `make test` and `make test-full`.

    python -m tests.run [--full] [--retry] [STAGE ...]

Stages: "current" is this interpreter; "threads" is the free-threaded one; "fronts" is real
proxies before the service; "systemd" is a real systemd in a container: these are the gate. With
--full come "others", every other supported interpreter of this machine; "browser", a real
browser; "attack", attacks on a service that others use meanwhile; "systemds", the other two
systemds; "soak", minutes of reloads, restarts and kills under load.

What fails fails the run. With --retry, which is for a machine that others use too, what failed
gets one more try by itself, and the last lines name it. The last lines name what was skipped,
too. Environments and root file systems are kept in a cache outside the project:
$POUNCE_TEST_CACHE, or ~/.cache/pounce.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.outcomes import VARIABLE, Outcomes

PROJECT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("POUNCE_TEST_CACHE", Path.home() / ".cache" / "pounce"))
RETRIED = PROJECT / "build" / "retried.txt"
"""Has a line for each test that passed only at its second try; `.ci/run` prints it last."""

SUITES = ["tests/unit", "tests/integration", "tests/conformance"]
# The corpus of requests says the same on every interpreter; the oldest and the one without a
# global lock run it ("systemd" on Debian's).
SUITES_OF_OTHERS = SUITES[:2]
# Most tests wait for something; a file's own tests stay in their order.
SIDE_BY_SIDE = ["-n", "3", "--dist", "loadfile"]
# Each process boots a machine of its own, and builds the packages if it needs them.
TWO_MACHINES = ["-n", "2", "--dist", "loadfile"]
TESTS_FAILED = 1  # pytest's exit status
# What systemd itself does differently from version to version.
_OF_SYSTEMD = ["activation", "failed_starts", "judging", "enabling", "all_instances", "remove"]
ON_OTHER_SYSTEMDS = {
    "bookworm": ["service", "reload", "restart", *_OF_SYSTEMD],
    "forky": ["debian", "applications", "service", "reload", *_OF_SYSTEMD],
}
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]
FREE_THREADED = "3.14t"
# This interpreter's, with the "t" of a free-threaded one.
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"


@dataclass
class Account:
    """What a run has to tell at its end; *retry* gives what failed a second try."""

    retry: bool
    failed: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def program(self, title: str, *command: str) -> None:
        """Run *command* from the project's folder; its exit status is the outcome."""
        print(f"== {title}", flush=True)
        status = subprocess.run(command, cwd=PROJECT, check=False).returncode
        self.failed += [title] if status else []
        _say_outcome(title, status)

    def pytest(self, python: Path, suites: list[str], *options: str, **variables: str) -> None:
        """Run *suites* with *python*; environment *variables* are added."""
        version = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout
        title = f"{', '.join(suites)} on {version.split('(')[0].split('[')[0].strip()}"
        print(f"== {title}", flush=True)
        began = time.monotonic()
        command = [str(python), "-m", "pytest", "-q", "-p", "tests.outcomes"]
        status, outcomes = _pytest([*command, *options, *suites], variables)
        self.skipped.update(outcomes.skipped)
        if status == TESTS_FAILED and self.retry and _are_tests(outcomes.failed):
            print(f"== once more, one at a time: what failed of {title}", flush=True)
            result, again = _pytest([*command, *outcomes.failed], variables)
            if result in (0, TESTS_FAILED):  # otherwise pytest could not run them
                passed = [test for test in outcomes.failed if test not in again.failed]
                self.retried += [f"{test} ({title})" for test in passed]
                status, outcomes = result, again
        if status:
            self.failed += [f"{test} ({title})" for test in outcomes.failed] or [title]
        _say_outcome(f"{title}, {time.monotonic() - began:.0f} s", status)

    def leave_out(self, what: str) -> None:
        """Tell at the end that *what* was not run, and why."""
        self.skipped[what] += 1

    def tell(self) -> int:
        """Print the summary and leave the file for `.ci/run`; returns the exit status."""
        RETRIED.parent.mkdir(exist_ok=True)
        RETRIED.write_text("".join(f"{each}\n" for each in self.retried))
        _list("skipped", [f"{what} (x {n})" if n > 1 else what for what, n in self.skipped.items()])
        _list("passed only at the second try", self.retried)
        _list("failed", self.failed)
        return 1 if self.failed else 0


def _pytest(command: list[str], variables: dict[str, str]) -> tuple[int, Outcomes]:
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "outcomes.json"
        environment = os.environ | variables | {VARIABLE: str(told)}
        status = subprocess.run(command, cwd=PROJECT, env=environment, check=False).returncode
        return status, Outcomes.read(told)


def _are_tests(failed: list[str]) -> bool:
    """Whether each of *failed* can be run by itself, unlike a file that cannot be collected.

    There is none where pytest itself was ended, as by a test that hung.
    """
    return bool(failed) and all("::" in each for each in failed)


def _say_outcome(title: str, status: int) -> None:
    print(f"== {title}: {'passed' if status == 0 else f'failed ({status})'}", flush=True)


def _list(title: str, lines: list[str]) -> None:
    if lines:
        print(f"== {title}:", *lines, sep="\n   ", flush=True)


def current(account: Account) -> None:
    account.pytest(Path(sys.executable), SUITES, *SIDE_BY_SIDE)


def threads(account: Account) -> None:
    interpreter = free_threaded()
    if VERSION == FREE_THREADED:
        return
    if interpreter is None:
        account.leave_out("threads: there is no free-threaded Python on this machine")
    else:
        account.pytest(environment(FREE_THREADED, interpreter), SUITES, *SIDE_BY_SIDE)


def fronts(account: Account) -> None:
    _prepare("tests.fronts.prepare")
    account.pytest(Path(sys.executable), ["tests/fronts"], *SIDE_BY_SIDE)


def systemd(account: Account) -> None:
    _prepare("tests.systemd.prepare", "trixie")
    account.pytest(Path(sys.executable), ["tests/systemd"], *TWO_MACHINES)


def others(account: Account) -> None:
    for version in VERSIONS:
        interpreter = find(version)
        if version == VERSION:
            continue
        if interpreter is None:
            account.leave_out(f"others: Python {version} is not on this machine")
        else:
            account.pytest(environment(version, interpreter), SUITES_OF_OTHERS, *SIDE_BY_SIDE)


def browser(account: Account) -> None:
    _prepare("tests.browser.prepare")
    account.pytest(Path(sys.executable), ["tests/browser"])


def attack(account: Account) -> None:
    _prepare("tests.attack.prepare")
    account.pytest(Path(sys.executable), ["tests/attack"])


def systemds(account: Account) -> None:
    _prepare("tests.systemd.prepare", *ON_OTHER_SYSTEMDS)
    for suite, names in ON_OTHER_SYSTEMDS.items():
        files = [f"tests/systemd/test_{name}.py" for name in names]
        account.pytest(Path(sys.executable), files, *TWO_MACHINES, POUNCE_TEST_SUITES=suite)


def soak(account: Account) -> None:
    _prepare("tests.systemd.prepare", "trixie")
    account.program("soak, short", sys.executable, "-m", "tests.soak", "--short")


GATE = (current, threads, fronts, systemd)
FULL = (*GATE, others, browser, attack, systemds, soak)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the project's tests.")
    parser.add_argument("--full", action="store_true", help="all stages, not only the gate's")
    parser.add_argument("--retry", action="store_true", help="give what failed one more try")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="these stages alone")
    given = parser.parse_args()
    stages = {each.__name__: each for each in FULL}
    if unknown := set(given.stages) - set(stages):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(stages)}")
    account = Account(given.retry)
    chosen: list[Callable[[Account], None]] = [stages[name] for name in given.stages]
    for stage in chosen or (FULL if given.full else GATE):
        stage(account)
    if not (chosen or given.full):
        left_out = ", ".join(each.__name__ for each in FULL if each not in GATE)
        account.leave_out(f"{left_out}: make test-full runs them")
    return account.tell()


def _prepare(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=PROJECT, check=True)


def environment(version: str, interpreter: Path) -> Path:
    """A virtual environment of *interpreter* in the cache, with the project and its tests."""
    folder = CACHE / f"venv-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([interpreter, "-m", "venv", "--clear", folder], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--editable", f"{PROJECT}[test]"]
    subprocess.run(install, check=True)
    return python


def find(version: str) -> Path | None:
    """An interpreter of *version* on PATH, or where pyenv keeps its own."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True),
    ]
    return next((Path(each) for each in candidates if each and works(each)), None)


def works(interpreter: str | Path) -> bool:
    # pyenv puts a stub on PATH for every version it has, also for those it will not start.
    return subprocess.run([interpreter, "-c", ""], capture_output=True, check=False).returncode == 0


def free_threaded() -> Path | None:
    """This interpreter, if it is one; or else $POUNCE_PYTHON_FREE_THREADED, python3.14t on PATH,
    or an archive beside the project.
    """
    if VERSION == FREE_THREADED:
        return Path(sys.executable)
    named = os.environ.get("POUNCE_PYTHON_FREE_THREADED") or shutil.which("python3.14t")
    if named:
        return Path(named)
    archive = PROJECT.parent / "shared" / "python3.14t.tar.xz"
    if not archive.exists():
        return None
    folder = CACHE / "python3.14t"
    if not folder.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="tar")
    return next(folder.glob("**/bin/python3.14t"))


if __name__ == "__main__":
    sys.exit(main())
