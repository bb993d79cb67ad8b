"""Debian root file systems to boot, made once and kept in a cache outside the repository."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SYSTEMD = {"bookworm": 252, "trixie": 257, "forky": 262}
"""The systemd of each suite."""

SUITES = tuple(SYSTEMD)

# pounce runs on Debian's own Python packages, as the native package does.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "curl",
    "iproute2",
    "procps",
    "python3",
    "python3-venv",
    "python3-pip",
    "python3-click",
    "python3-h11",
    "python3-tomli",
    "python3-uvloop",
    "python3-websockets",
    "python3-aiosqlite",
    "python3-fastapi",
    "python3-sqlalchemy",
    "python3-aioquic",
    "python3-sdnotify",
    "python3-systemd",
    "python3-cryptography",
    # The project's own tests run in there, too.
    "python3-hypothesis",
    "python3-pytest",
    "python3-pytest-timeout",
)

# Applications that Debian does not have, installed into a virtual environment.
WHEELS = ("datasette",)
VIRTUALENV = "/opt/apps"

# Debian 12 is there for its systemd. Its Python packages are missing or older than pounce and the
# tests' applications need; these go to /usr/local, where Python looks first.
NEWER = {
    "bookworm": ("aioquic", "fastapi", "h11>=0.14", "sqlalchemy", "tomli", "uvloop", "websockets"),
}
MISSING = {"bookworm": {"python3-aioquic"}}

HOST_TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container"}

_WHEELHOUSE = "opt/wheelhouse"
_DEBIAN = re.compile(r"^(?:URIs:|deb )[^#\n]*?(\w+://\S+/debian/?)(?=\s)", re.MULTILINE)


class UnpreparedError(Exception):
    """This machine cannot make or boot a root file system; the message says what is missing."""


def cached(suite: str, packages: Sequence[str] = PACKAGES, wheels: Sequence[str] = WHEELS) -> Path:
    """The suite with *packages*, and *wheels*; made now if the cache has none with just these."""
    if os.geteuid() != 0:
        raise UnpreparedError("booting a container with systemd needs root")
    root = _cache() / f"{suite}-{_fingerprint(suite, packages, wheels)}"
    with _locked(root.with_suffix(".lock")):
        if not root.exists():
            _build(suite, packages, wheels, root)
    return root


def _cache() -> Path:
    default = Path.home() / ".cache/pounce"
    return Path(os.environ.get("POUNCE_TEST_CACHE") or default)


def _fingerprint(suite: str, packages: Sequence[str], wheels: Sequence[str]) -> str:
    """Changes whenever what the root file system is made from changes."""
    contents = "\n".join((suite, VIRTUALENV, *packages, *wheels, *NEWER.get(suite, ())))
    return hashlib.sha256(contents.encode()).hexdigest()[:12]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Several test runs at once build a root file system once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(suite: str, packages: Sequence[str], wheels: Sequence[str], root: Path) -> None:
    partial = root.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _bootstrap(suite, packages, partial)
    if suite in NEWER:
        _pip(
            "/usr/bin/python3",
            NEWER[suite],
            partial,
            "--break-system-packages",
            "--ignore-installed",
        )
    if wheels:
        _install_wheels(wheels, partial)
    partial.rename(root)


def _bootstrap(suite: str, packages: Sequence[str], root: Path) -> None:
    for tool, package in HOST_TOOLS.items():
        if shutil.which(tool) is None:
            raise UnpreparedError(f"{tool} is missing: install the package {package}")
    _run(
        # What it mounts goes with it, also when it is killed: else nothing could be made there.
        *("unshare", "--mount", "--propagation", "private", "--"),
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(p for p in packages if p not in MISSING.get(suite, ()))}",
        # The index of a suite in development, or of a mirror that lags, may be out of date.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        suite,
        str(root),
        _mirror(),
    )


def _mirror() -> str:
    """The Debian mirror that the host's own apt uses."""
    sources = Path("/etc/apt")
    for file in [sources / "sources.list", *sorted((sources / "sources.list.d").glob("*"))]:
        text = file.read_text() if file.is_file() else ""
        if match := _DEBIAN.search(text):
            return match[1]
    raise UnpreparedError("no Debian mirror in /etc/apt: is this host a Debian?")


def _install_wheels(wheels: Sequence[str], root: Path) -> None:
    inside = ("chroot", str(root))
    _run(*inside, "python3", "-m", "venv", "--system-site-packages", VIRTUALENV)
    _pip(f"{VIRTUALENV}/bin/python", wheels, root)


def _pip(python: str, wheels: Sequence[str], root: Path, *options: str) -> None:
    """Install *wheels* for the *python* that is in *root*, which reaches no registry."""
    wheelhouse = root / _WHEELHOUSE
    version = (root / "usr/bin/python3").readlink().name.removeprefix("python")
    _run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"),
        *("--python-version", version, "--dest", str(wheelhouse), *wheels),
    )
    _run(
        *("chroot", str(root), python, "-m", "pip", "install", "--quiet", "--no-index", *options),
        *("--find-links", f"/{_WHEELHOUSE}", *wheels),
    )
    shutil.rmtree(wheelhouse)


def _run(*command: str) -> None:
    finished = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if finished.returncode:
        raise UnpreparedError(f"{' '.join(command)}\nfailed:\n{finished.stdout[-4000:]}")
