"""The RPM packages, on a Debian that looks for modules where Fedora's Python does."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli

from pounce import __version__
from tests.systemd import rootfs
from tests.systemd.instance import Instance
from tests.systemd.machine import APPLICATIONS, REPOSITORY, Machine
from tests.systemd.packages import build

# Building in a root file system that is not there yet takes minutes.
pytestmark = pytest.mark.timeout(600)

PROJECT = tomli.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
OPTIONAL = [
    each for extra in ("http3", "systemd") for each in PROJECT["optional-dependencies"][extra]
]
# Debian's packages provide what the RPMs need, but not under Fedora's names.
RPM = ("rpm", "--nodeps")


@pytest.fixture(scope="module")
def rpms(suite: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The packages, and the one with their source."""
    return build("rpm", suite, tmp_path_factory.mktemp("rpms"))


@pytest.fixture(scope="module")
def installed(suite: str, rpms: list[Path]) -> Iterator[Machine]:
    """A machine with the packages, and all of them in /root."""
    with Machine(rootfs.cached(suite, (*rootfs.PACKAGES, "rpm"), wheels=())) as machine:
        shutil.copytree(REPOSITORY / "tests/apps", machine.path(APPLICATIONS))
        version = machine.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
        python = f"python{version.stdout.strip()}"
        machine.write(
            f"/usr/local/lib/{python}/dist-packages/fedora.pth",
            f"/usr/lib/{python}/site-packages\n",
        )
        for package in rpms:
            shutil.copy(package, machine.path("/root"))
        machine.run("sh", "-c", f"{' '.join(RPM)} --install /root/*.noarch.rpm")
        yield machine


def told(machine: Machine, *query: str) -> set[str]:
    """The lines that rpm answers."""
    return set(machine.run("rpm", "--query", *query).stdout.splitlines())


def in_rpm(requirement: str, python: str = "3") -> str:
    """A Python *requirement* under the name that Fedora's packages have for it."""
    name, bound = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
    return f"python{python}dist({name}) >= {_shortest(bound)}"


def _shortest(version: str) -> str:
    """The *version* as rpm has it, without zeros at its end."""
    return re.sub(r"(\.0)+$", "", version)


def test_dependencies_are_those_of_the_python_package(installed: Machine) -> None:
    [abi] = [
        each for each in told(installed, "--requires", "python3-pounce") if "python(abi)" in each
    ]
    version = abi.removeprefix("python(abi) = ")
    needed = told(installed, "--requires", "python3-pounce")
    assert {in_rpm(each, version) for each in PROJECT["dependencies"]} <= needed
    assert {in_rpm(each).partition(" ")[0] for each in OPTIONAL} <= needed
    provided = told(installed, "--provides", "python3-pounce")
    assert f"python{version}dist(pounce) = {_shortest(__version__)}" in provided


def test_building_takes_what_the_python_package_says(installed: Machine, rpms: list[Path]) -> None:
    [source] = [path.name for path in rpms if path.name.endswith(".src.rpm")]
    needed = told(installed, "--requires", "--package", f"/root/{source}")
    assert {in_rpm(each) for each in (*PROJECT["dependencies"], *OPTIONAL)} <= needed


def test_python_finds_it_in_site_packages_with_its_bytecode(installed: Machine) -> None:
    program = "import pounce.errors as module; print(module.__file__, module.__cached__)"
    module, cached = installed.run("python3", "-I", "-c", program).stdout.split()
    assert re.fullmatch(r"/usr/lib/python3\.\d+/site-packages/pounce/errors\.py", module)
    assert installed.path(cached).exists()
    assert {module, cached} <= told(installed, "--list", "python3-pounce")
    # Neither a user's modules nor those of the current directory: -s and -P.
    assert installed.path("/usr/bin/pounce").read_text().startswith("#!/usr/bin/python3 -sP\n")


def test_an_upgrade_restarts_what_runs(installed: Machine) -> None:
    running, stopped = instances = [Instance(installed, name) for name in ("one", "two")]
    for instance in instances:
        instance.configure("demo:app")
    running.start()
    supervisor = running.show("MainPID")
    installed.run("sh", "-c", f"{' '.join(RPM)} --upgrade --replacepkgs /root/*.noarch.rpm")
    Machine.wait_until(
        lambda: running.show("ActiveState") == "active" and running.show("MainPID") != supervisor,
        30,
        "the restart",
    )
    assert stopped.show("ActiveState") == "inactive"
    for instance in instances:
        instance.remove()


def test_it_serves_and_goes(installed: Machine) -> None:
    script = "/root/service"
    shutil.copy(REPOSITORY / "debian/tests/service", installed.path(script))
    installed.run(script)
    instance = Instance(installed, "hello")
    installed.systemctl("enable", "--now", instance.socket, instance.service)
    installed.run(*RPM, "--erase", "pounce", "python3-pounce")
    for unit in (instance.socket, instance.service):
        assert installed.show(unit, "ActiveState") == "inactive"
    # What an administrator has made stays: an RPM has no purge.
    left = installed.run("find", "/usr", "/etc/systemd", "-name", "*pounce*").stdout.split()
    assert left == []
