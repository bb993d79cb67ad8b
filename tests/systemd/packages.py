"""The native packages: built, and installed in a machine."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.systemd import rootfs
from tests.systemd.machine import APPLICATIONS, REPOSITORY, Machine


def build(kind: str, suite: str, directory: Path) -> list[Path]:
    command = [sys.executable, "packaging/build.py", kind, suite, str(directory)]
    # The project's tests run elsewhere.
    environment = os.environ | {"DEB_BUILD_OPTIONS": "nocheck"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=sys.stderr)
    return sorted(directory.iterdir())


@contextlib.contextmanager
def boot(suite: str, more: Sequence[str] = ()) -> Iterator[Machine]:
    """A machine without pounce; *more* are Debian packages it has beside the usual ones."""
    with Machine(rootfs.cached(suite, (*rootfs.PACKAGES, *more))) as machine:
        shutil.copytree(REPOSITORY / "tests/apps", machine.path(APPLICATIONS))
        yield machine


def install(machine: Machine, packages: list[Path]) -> None:
    for package in packages:
        shutil.copy(package, machine.path("/root"))
    paths = [f"/root/{package.name}" for package in packages]
    # Where dependencies were missing, this would fail: there is no network.
    apt(machine, "install", *paths)
    for package in packages:
        machine.path(f"/root/{package.name}").unlink()


def apt(machine: Machine, *arguments: str) -> None:
    machine.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", *arguments)


def newer(packages: list[Path], directory: Path) -> list[Path]:
    """The same packages under a version that comes after."""
    for package in packages:
        content = directory / package.stem
        subprocess.run(["dpkg-deb", "--raw-extract", package, content], check=True)
        control = content / "DEBIAN/control"
        control.write_text(control.read_text().replace("0.1.0-1", "0.1.0-2"))
        subprocess.run(["dpkg-deb", "--build", content, directory], check=True)
    return sorted(directory.glob("*.deb"))
