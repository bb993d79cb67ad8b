"""`pounce remove`: the service is gone, and nobody has lost data without being asked."""

from collections.abc import Iterator

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import APPLICATIONS, Machine, Result

NAME = "going-away"
DATABASE = f"/var/lib/private/pounce/{NAME}/database"


@pytest.fixture
def service(machine: Machine) -> Iterator[Instance]:
    """A service as an administrator has set it up, with data of its own."""
    instance = Instance(machine, NAME)
    machine.run("pounce", "init", NAME, "--app", "demo:app", "--directory", APPLICATIONS)
    machine.systemctl("enable", "--now", instance.service)
    machine.write(DATABASE, "rows")
    yield instance
    remove(machine, "--purge", check=False)


def remove(machine: Machine, *flags: str, check: bool = True) -> Result:
    return machine.run("pounce", "remove", NAME, *flags, check=check)


def answer(machine: Machine, word: str) -> Result:
    """Let a person at a terminal answer the command's question."""
    command = (
        f"printf '{word}\\n' | script --quiet --return --command 'pounce remove {NAME}' /dev/null"
    )
    return machine.run("sh", "-c", command)


def traces(machine: Machine) -> list[str]:
    """Every file with the service's name, and what systemd knows of its units."""
    found = machine.run("find", "/", "/run", "-xdev", "-name", f"*{NAME}*").stdout
    units = machine.run("systemctl", "list-units", "--all", "--no-legend", f"pounce@{NAME}*").stdout
    return [*found.splitlines(), *units.splitlines()]


def test_purged_it_leaves_nothing(service: Instance) -> None:
    machine = service.machine
    service.amend(service.service, "[Service]\nLogsDirectory=pounce/%i extra-%i\n")
    service.amend(service.socket, "[Socket]\nBacklog=64\n")
    machine.systemctl("set-property", service.service, "CPUWeight=50")
    machine.systemctl("set-property", "--runtime", service.service, "MemoryHigh=1G")
    machine.systemctl("add-wants", "rescue.target", service.service)
    machine.systemctl("restart", service.service)
    machine.write(f"/etc/pounce/{NAME}/password", "secret")
    machine.write(f"/var/log/private/extra-{NAME}/log", "line")
    remove(machine, "--purge")
    assert traces(machine) == []


def test_without_a_terminal_data_stay_and_are_named(service: Instance) -> None:
    machine = service.machine
    machine.write(f"/etc/pounce/{NAME}/password", "secret")
    said = remove(machine).stdout
    assert f"The data stay in /etc/pounce/{NAME}, /var/lib/pounce/{NAME}\n" in said
    assert f"pounce remove {NAME} --purge\n" in said
    assert machine.path(DATABASE).exists()
    assert machine.path(f"/etc/pounce/{NAME}/password").exists()
    assert not machine.path(f"/etc/pounce/{NAME}.toml").exists()
    assert machine.run("systemctl", "is-enabled", service.socket, check=False).stdout != "enabled\n"
    remove(machine, "--purge")
    assert traces(machine) == []


@pytest.mark.parametrize(("word", "kept"), [("y", False), ("n", True)])
def test_a_person_is_asked(service: Instance, word: str, kept: bool) -> None:
    said = answer(service.machine, word).stdout
    assert f"The service has data: /var/lib/pounce/{NAME}" in said
    assert service.machine.path(DATABASE).exists() is kept
    assert not service.machine.path(f"/etc/pounce/{NAME}.toml").exists()


def test_without_data_nobody_is_asked(service: Instance) -> None:
    service.machine.path(DATABASE).unlink()
    assert "data" not in answer(service.machine, "").stdout
    assert traces(service.machine) == []


def test_broken_and_masked_it_can_be_removed(service: Instance) -> None:
    machine = service.machine
    service.configure_text("app = \n")
    machine.systemctl("restart", service.service, check=False)
    machine.systemctl("mask", "--now", service.socket)
    remove(machine, "--purge")
    assert traces(machine) == []


def test_what_is_left_of_one_can_be_removed(service: Instance) -> None:
    service.machine.path(f"/etc/pounce/{NAME}.toml").unlink()
    remove(service.machine, "--keep-data")
    assert service.machine.path(DATABASE).exists()
    remove(service.machine, "--purge")
    assert traces(service.machine) == []


def test_others_go_on(service: Instance, instance: Instance) -> None:
    instance.configure("demo:app")
    instance.start()
    supervisor = instance.show("MainPID")
    remove(service.machine, "--purge")
    assert instance.show("MainPID") == supervisor
    assert instance.curl("/", "--fail").returncode == 0


def test_what_cannot_be_removed(machine: Machine) -> None:
    unknown = remove(machine, check=False)
    assert unknown.returncode == 1
    assert f"there is no service '{NAME}'" in unknown.stderr
    outside = machine.run("pounce", "remove", "../passwd", check=False)
    assert "cannot be the name of a service" in outside.stderr
    user = ("setpriv", "--reuid=65534", "--clear-groups")
    assert "only root" in machine.run(*user, "pounce", "remove", NAME, check=False).stderr
