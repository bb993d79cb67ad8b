"""Run the project's tests: `make test`.

    python tests/run.py [STAGE ...]

Stages: "current" is this interpreter; "others" is every other supported interpreter of this
machine, the free-threaded one among them; "attack" is attacks on a service that others use
meanwhile; "browser" is a real browser; "fronts" is real proxies before it; "systemd" is a real
systemd in a container. All of them by default. Environments and root file systems are kept in a
cache outside the project: $POUNCE_TEST_CACHE, or ~/.cache/pounce.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("POUNCE_TEST_CACHE", Path.home() / ".cache" / "pounce"))
SUITES = ["tests/unit", "tests/integration", "tests/conformance"]
# The corpus of requests says the same on every interpreter; the newest and the one without a
# global lock run it too ("systemd" on Debian's).
SUITES_OF_OTHERS = SUITES[:2]
# Most tests wait for something; a file's own tests stay in their order.
SIDE_BY_SIDE = ["-n", "3", "--dist", "loadfile"]
TESTS_FAILED = 1  # pytest's exit status
ON_FORKY = ["debian", "applications", "service", "reload"]
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]
FREE_THREADED = "3.14t"
# This interpreter's, with the "t" of a free-threaded one.
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}{sys.abiflags}"


def main() -> int:
    stages = {each.__name__: each for each in (current, others, attack, browser, fronts, systemd)}
    chosen = sys.argv[1:] or list(stages)
    unknown = set(chosen) - set(stages)
    if unknown:
        print(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(stages)}")
        return 2
    failed = []
    for name in chosen:
        for title, status in stages[name]():
            print(f"== {title}: {'passed' if status == 0 else f'failed ({status})'}", flush=True)
            failed += [title] if status else []
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def current() -> Iterator[tuple[str, int]]:
    yield pytest(Path(sys.executable), SUITES, *SIDE_BY_SIDE)


def attack() -> Iterator[tuple[str, int]]:
    subprocess.run([sys.executable, "-m", "tests.attack.prepare"], cwd=PROJECT, check=True)
    yield pytest(Path(sys.executable), ["tests/attack"])


def browser() -> Iterator[tuple[str, int]]:
    subprocess.run([sys.executable, "-m", "tests.browser.prepare"], cwd=PROJECT, check=True)
    yield pytest(Path(sys.executable), ["tests/browser"])


def fronts() -> Iterator[tuple[str, int]]:
    subprocess.run([sys.executable, "-m", "tests.fronts.prepare"], cwd=PROJECT, check=True)
    yield pytest(Path(sys.executable), ["tests/fronts"], *SIDE_BY_SIDE)


def systemd() -> Iterator[tuple[str, int]]:
    prepare = [sys.executable, "-m", "tests.systemd.prepare", "trixie", "forky"]
    subprocess.run(prepare, cwd=PROJECT, check=True)
    yield pytest(Path(sys.executable), ["tests/systemd"])
    # The second target: another systemd, and Python 3.14 with the suites run on it.
    os.environ["POUNCE_TEST_SUITES"] = "forky"
    yield pytest(Path(sys.executable), [f"tests/systemd/test_{name}.py" for name in ON_FORKY])


def others() -> Iterator[tuple[str, int]]:
    wanted = [version for version in (*VERSIONS, FREE_THREADED) if version != VERSION]
    missing = []
    for version in wanted:
        interpreter = free_threaded() if version == FREE_THREADED else find(version)
        if interpreter is None:
            missing.append(version)
        else:
            suites = SUITES if version == FREE_THREADED else SUITES_OF_OTHERS
            yield pytest(environment(version, interpreter), suites, *SIDE_BY_SIDE)
    if missing:
        print(f"== not on this machine, so not tested on it: Python {', '.join(missing)}")


def pytest(python: Path, suites: list[str], *options: str) -> tuple[str, int]:
    version = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout
    title = f"{', '.join(suites)} on {version.split('(')[0].split('[')[0].strip()}"
    print(f"== {title}", flush=True)
    began = time.monotonic()
    command = [str(python), "-m", "pytest", "-q"]
    status = subprocess.run([*command, *options, *suites], cwd=PROJECT, check=False).returncode
    if status == TESTS_FAILED:
        # Deadlines are for a machine that is not busy with other tests: what failed beside
        # others has to pass alone, and the log shows both.
        print(f"== once more, one at a time: what failed of {title}", flush=True)
        again = [*command, "--last-failed", *suites]
        status = subprocess.run(again, cwd=PROJECT, check=False).returncode
        title += ", at the second try"
    return f"{title}, {time.monotonic() - began:.0f} s", status


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
