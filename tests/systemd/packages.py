"""The native packages: built, and installed in a machine."""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.systemd import rootfs
from tests.systemd.machine import APPLICATIONS, REPOSITORY, Machine, Result


def build(kind: str, suite: str, directory: Path) -> list[Path]:
    """Build packages of *kind*, ``deb`` or ``rpm``, into *directory*; their paths."""
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
    """Install *packages* as an administrator does who has the files."""
    for package in packages:
        shutil.copy(package, machine.path("/root"))
    paths = [f"/root/{package.name}" for package in packages]
    # Where dependencies were missing, this would fail: there is no network.
    apt(machine, "install", *paths)
    for package in packages:
        machine.path(f"/root/{package.name}").unlink()


def apt(machine: Machine, *arguments: str) -> Result:
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive")
    return machine.run(*quiet, "apt-get", "--yes", *arguments, timeout=180)


def preseed(machine: Machine, answer: str) -> None:
    """Answer the question that a purge asks before it does."""
    question = f"pounce pounce/remove_data boolean {answer}"
    machine.run("sh", "-c", f"echo {question} | debconf-set-selections")


def publish(machine: Machine, packages: list[Path]) -> None:
    """Make *packages* an archive, the only one that the machine's apt knows."""
    archive = "/opt/archive"
    for package in packages:
        machine.path(archive).mkdir(exist_ok=True)
        shutil.copy(package, machine.path(archive))
    entries = [_entry(package) for package in sorted(machine.path(archive).glob("*.deb"))]
    machine.write(f"{archive}/Packages", "\n".join(entries))
    machine.write("/etc/apt/sources.list", f"deb [trusted=yes] file:{archive} ./\n")
    apt(machine, "update")


def _entry(package: Path) -> str:
    """A package in an archive's index: deb822(5), as apt reads it."""
    fields = subprocess.run(
        ["dpkg-deb", "--field", package], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    content = package.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{fields}Filename: ./{package.name}\nSize: {len(content)}\nSHA256: {digest}\n"


def newer(packages: list[Path], directory: Path) -> list[Path]:
    """The same packages under a version that comes after."""
    for package in packages:
        content = directory / package.stem
        subprocess.run(["dpkg-deb", "--raw-extract", package, content], check=True)
        control = content / "DEBIAN/control"
        text = control.read_text()
        [version] = re.findall(r"^Version: (\S+)$", text, re.MULTILINE)
        # Also where one of them depends on exactly this version of another.
        control.write_text(text.replace(version, f"{version}+newer"))
        subprocess.run(["dpkg-deb", "--build", content, directory], check=True)
    return sorted(directory.glob("*.deb"))
