"""The README's first sections, typed as they are there, from a checkout to a service."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import REPOSITORY, Machine
from tests.systemd.packages import boot
from tests.systemd.readme import blocks

# Building in a root file system that is not there yet takes minutes.
pytestmark = pytest.mark.timeout(600)

Temporary = pytest.TempPathFactory

CHECKOUT = "/root/pounce"
WHEELHOUSE = "/root/wheelhouse"

# As in the machine, which reaches no registry, pip finds it here; of sdnotify there is no wheel.
WHEELS = ("click", "cryptography", "h11", "setuptools", "tomli", "uvloop", "websockets")
SOURCES = ("sdnotify",)


@pytest.fixture(scope="module")
def machine(suite: str, packages: list[Path], tmp_path_factory: Temporary) -> Iterator[Machine]:
    with boot(suite) as machine:
        checkout = machine.path(CHECKOUT)
        shutil.copytree(REPOSITORY / "service", checkout / "service")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(REPOSITORY / name, checkout)
        wheels = tmp_path_factory.mktemp("wheels")
        download(machine.path("/usr/bin/python3").readlink().name, wheels)
        shutil.copytree(wheels, machine.path(WHEELHOUSE))
        (checkout / "dist").mkdir()
        for package in packages:
            shutil.copy(package, checkout / "dist")
        yield machine


def download(python: str, directory: Path) -> None:
    """Download what pounce needs on *python*, such as ``python3.13``."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(directory))
    version = python.removeprefix("python")
    wheels = ("--only-binary=:all:", "--python-version", version, *WHEELS)
    for wanted in (wheels, ("--no-deps", *SOURCES)):
        subprocess.run([*pip, *wanted], check=True)


def type_in(machine: Machine, text: str) -> str:
    """Type a block in the checkout; what it prints."""
    environment = ("env", f"--chdir={CHECKOUT}", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={WHEELHOUSE}")
    return machine.run(*environment, "sh", "-euc", text, timeout=180).stdout


def test_by_hand(machine: Machine) -> None:
    debian, make, ask = (text for _, text in blocks("Try it"))
    type_in(machine, debian)
    *first, serve = make.splitlines()
    assert serve.startswith(".venv/bin/pounce serve ")
    type_in(machine, "\n".join(first))
    service = machine.start("env", f"--chdir={CHECKOUT}", *serve.split())
    try:
        address = "http://127.0.0.1:8000/"
        machine.wait_until(
            lambda: machine.curl(address, check=False).returncode == 0, 20, "pounce to serve"
        )
        assert type_in(machine, ask) == "hello\n"
    finally:
        machine.run("pkill", "--full", "^pounce: hello:app supervisor$")
        assert "stopped" in service.communicate(timeout=60)[1]


def test_as_a_service(machine: Machine) -> None:
    """With packages that were built elsewhere: that takes another machine, and a network."""
    build, install, look = (text for _, text in blocks("Run it as a service"))
    assert build.splitlines()[-1] == "make deb"
    assert type_in(machine, install).endswith("hello\n")
    *commands, restart = look.splitlines()
    for command in commands:
        # `systemctl status` would page on a terminal; elsewhere it does not.
        assert type_in(machine, command) or "reload" in command
    type_in(machine, restart)
    assert machine.curl("http://127.0.0.1:8080/").stdout == "hello\n"
