"""The Debian packages under apt: purged, removed and back, upgraded; debian/tests, too."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import REPOSITORY, Machine, Result
from tests.systemd.packages import apt, boot, build, newer, preseed, publish

# Building in a root file system that is not there yet takes minutes.
pytestmark = pytest.mark.timeout(600)

DATABASE = "/var/lib/private/pounce/shop/database"
TESTS = "/root/debian/tests"


@pytest.fixture(scope="module")
def stocked(suite: str, packages: list[Path]) -> Iterator[Machine]:
    """A machine whose apt finds the packages."""
    with boot(suite) as machine:
        publish(machine, packages)
        shutil.copytree(REPOSITORY / "debian/tests", machine.path(TESTS))
        yield machine


@pytest.fixture
def installed(stocked: Machine) -> Iterator[Machine]:
    """The same with pounce; afterwards without a trace of it."""
    apt(stocked, "install", "pounce")
    yield stocked
    apt(stocked, "install", "pounce")  # else it would not be asked about what a test has left
    preseed(stocked, "true")
    apt(stocked, "purge", "pounce")
    stocked.path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)


@pytest.fixture
def shop(installed: Machine) -> Instance:
    """A service, enabled, with data."""
    instance = serve(installed, "shop")
    installed.write(DATABASE, "rows")
    return instance


def serve(machine: Machine, name: str) -> Instance:
    """An enabled service, with code of its own in the directory /srv/NAME."""
    shutil.copytree(REPOSITORY / "tests/apps", machine.path(f"/srv/{name}"), dirs_exist_ok=True)
    instance = Instance(machine, name)
    instance.configure("demo:app", directory=f"/srv/{name}")
    machine.systemctl("enable", "--now", instance.service)
    return instance


def purge(machine: Machine, answer: str) -> Result:
    """Purge pounce, at a terminal where a person answers."""
    command = "DEBIAN_FRONTEND=teletype dpkg --purge pounce"
    typed = f"printf '{answer}\\n' | script --quiet --return --command '{command}' /dev/null"
    return machine.run("sh", "-c", typed)


def is_enabled(instance: Instance) -> bool:
    unit = instance.service
    return instance.machine.run("systemctl", "is-enabled", unit, check=False).stdout == "enabled\n"


def test_two_builds_give_the_same_bytes(suite: str, built: list[Path], tmp_path: Path) -> None:
    again = build("deb/again", suite, tmp_path)
    assert {"pounce_0.1.0-1.dsc"} <= {path.name for path in again}
    first = {path.name: path.read_bytes() for path in built}
    assert [path.name for path in again if path.read_bytes() != first[path.name]] == []


@pytest.mark.parametrize("name", ["reinstall", "purge", "bad-configuration", "dictconfig"])
def test_a_test_of_the_package(installed: Machine, name: str) -> None:
    variables = ("env", "AUTOPKGTEST_TMP=/tmp")
    installed.run(*variables, f"{TESTS}/{name}", timeout=240)


@pytest.mark.parametrize(("answer", "kept"), [("yes", False), ("no", True)])
def test_a_purge_asks_a_person(shop: Instance, answer: str, kept: bool) -> None:
    shop.amend(shop.service, "[Service]\nNice=5\n")
    shop.amend("pounce.service", "[Unit]\nDescription=Shops\n")
    shop.machine.systemctl("mask", shop.socket)
    said = purge(shop.machine, answer).stdout
    assert "Remove all pounce services" in said
    changed = [f"{shop.service}.d", "pounce.service.d", shop.socket]
    places = ["/etc/pounce/shop.toml", DATABASE]
    places += [f"/etc/systemd/system/{name}" for name in changed]
    assert [shop.machine.path(place).exists() for place in places] == [kept] * len(places)
    assert ("configuration and data stay in" in said) is kept
    # What is kept is not enabled, or the next installation would start it.
    found = shop.machine.run("find", "/etc/systemd/system", "-name", f"{shop.service}")
    assert found.stdout == ""


def test_a_purge_without_data_asks_nobody(installed: Machine) -> None:
    assert "Remove all pounce services" not in purge(installed, "").stdout


def test_back_it_starts_what_is_enabled_and_nothing_else(shop: Instance) -> None:
    machine = shop.machine
    disabled = serve(machine, "disabled")
    machine.systemctl("disable", disabled.service, disabled.socket)
    gone = serve(machine, "gone")
    apt(machine, "remove", "pounce")
    assert shop.show("ActiveState") == "inactive"
    machine.path("/etc/pounce/gone.toml").unlink()
    said = apt(machine, "install", "pounce").stdout
    assert f"{gone.service} is enabled, but there is no /etc/pounce/gone.toml" in said
    assert "DOES NOT SERVE" not in said
    assert shop.curl("/", "--fail").returncode == 0
    assert machine.show("pounce.service", "ActiveState") == "active"
    assert disabled.show("ActiveState") == "inactive"
    assert not is_enabled(disabled)


def test_an_upgrade_tells_of_what_does_not_start(shop: Instance, tmp_path: Path) -> None:
    machine = shop.machine
    broken = serve(machine, "broken")
    machine.write("/srv/broken/demo.py", "import a_module_that_is_gone\n")
    supervisor = shop.show("MainPID")
    said = upgrade(machine, tmp_path).stdout  # apt shows there what dpkg and its scripts say
    assert f"{broken.service} DOES NOT SERVE" in said
    assert "No module named 'a_module_that_is_gone'" in said
    assert f"pounce check broken && systemctl restart {broken.service}" in said
    assert "shop" not in said
    assert shop.show("MainPID") != supervisor
    assert shop.curl("/", "--fail").returncode == 0
    status = machine.run("dpkg-query", "--show", "--showformat=${Status}", "pounce").stdout
    assert status == "install ok installed"


def test_an_upgrade_restarts_only_what_the_policy_allows(shop: Instance, tmp_path: Path) -> None:
    machine = shop.machine
    free = serve(machine, "free")
    policy = machine.path("/usr/sbin/policy-rc.d")
    policy.write_text(f'#!/bin/sh\n[ "$1" != {shop.service} ] || exit 101\n')
    policy.chmod(0o755)
    before = [instance.show("MainPID") for instance in (shop, free)]
    upgrade(machine, tmp_path)
    assert shop.show("MainPID") == before[0]
    assert free.show("MainPID") not in (before[1], "0")


def upgrade(machine: Machine, directory: Path) -> Result:
    """Install what the machine has, under a version that comes after."""
    archive = machine.path("/opt/archive")
    names = ("pounce", "python3-pounce")
    latest = [max(archive.glob(f"{name}_*.deb"), key=lambda path: len(str(path))) for name in names]
    publish(machine, newer(latest, directory))
    return apt(machine, "upgrade")
