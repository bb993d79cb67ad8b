"""`pounce remove`: the service is gone, and nobody has lost data without being asked."""

import shutil
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


def test_an_address_that_was_moved_leaves_no_file(service: Instance) -> None:
    machine = service.machine
    service.listen(f"/run/{NAME}-old.sock")
    machine.systemctl("restart", service.socket, service.service)
    service.listen(f"/run/{NAME}-new.sock")
    assert machine.path(f"/run/{NAME}-old.sock").exists()
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


def test_what_an_application_writes_at_its_end_is_kept(service: Instance) -> None:
    machine = service.machine
    machine.path(DATABASE).unlink()
    state = f"/var/lib/private/pounce/{NAME}"
    service.amend(
        service.service, f"[Service]\nExecStopPost=/bin/sh -c 'echo rows >{state}/late'\n"
    )
    remove(machine, "--keep-data")
    assert machine.path(f"{state}/late").exists()


def test_a_directory_whose_name_has_a_blank_is_kept(service: Instance) -> None:
    machine = service.machine
    directories = f'StateDirectory="pounce/{NAME} rows"'
    service.amend(service.service, f"[Service]\nStateDirectory=\n{directories}\n")
    machine.systemctl("restart", service.service)
    data = machine.path(f"/var/lib/private/pounce/{NAME} rows/data")
    data.write_text("rows")
    assert f"stay in /var/lib/pounce/{NAME} rows\n" in remove(machine, "--keep-data").stdout
    assert data.exists()
    shutil.rmtree(data.parent)
    machine.path(f"/var/lib/pounce/{NAME} rows").unlink()


def test_what_another_service_uses_is_kept(service: Instance, instance: Instance) -> None:
    machine = service.machine
    instance.configure("demo:app")
    for each in (service, instance):
        each.amend(each.service, "[Service]\nStateDirectory=common-rows\n")
        machine.systemctl("restart", each.service)
    machine.write("/var/lib/private/common-rows/data", "rows")
    assert "other services use" in remove(machine, "--purge").stdout
    assert machine.path("/var/lib/private/common-rows/data").exists()


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeDirectory=\nStateDirectory=\nCacheDirectory=\n",
        "RuntimeDirectory=\n",
    ],
)
def test_without_directories_it_can_be_removed(service: Instance, text: str) -> None:
    machine = service.machine
    machine.path(DATABASE).unlink()
    service.amend(service.service, f"[Service]\n{text}")
    remove(machine, "--purge")
    assert not machine.path(f"/etc/pounce/{NAME}.toml").exists()
    assert not machine.path(f"/etc/systemd/system/{service.service}.d").exists()


@pytest.mark.parametrize("unit", ["service", "socket"])
def test_with_a_unit_that_is_not_valid_the_rest_is_removed(service: Instance, unit: str) -> None:
    machine = service.machine
    machine.systemctl("stop", service.socket, service.service)
    wrong = {
        "service": "[Service]\nExecStart=relative\nType=bogus\n",
        "socket": "[Socket]\nListenStream=\n",
    }
    service.amend(f"pounce@{NAME}.{unit}", wrong[unit])
    said = remove(machine, "--purge", check=False)
    assert "Traceback" not in said.stderr
    assert not machine.path(f"/etc/pounce/{NAME}.toml").exists()
    assert not machine.path(f"/etc/systemd/system/pounce@{NAME}.{unit}.d").exists()
    remove(machine, "--purge", check=False)  # valid again
    assert traces(machine) == []


def test_secrets_of_any_kind_of_file(service: Instance) -> None:
    machine, secrets = service.machine, service.machine.path(f"/etc/pounce/{NAME}")
    machine.write("/srv/secrets/key", "key")
    secrets.rmdir()
    secrets.symlink_to("../../srv/secrets")
    remove(machine, "--purge")
    assert machine.path("/srv/secrets/key").exists()
    assert traces(machine) == []
    secrets.write_text("key")
    assert f"The data stay in /etc/pounce/{NAME}\n" in remove(machine, "--keep-data").stdout
    remove(machine, "--purge")
    assert traces(machine) == []


def test_what_is_in_the_way_of_one_step_is_told_at_the_end(service: Instance) -> None:
    machine, file = service.machine, service.machine.path(f"/etc/pounce/{NAME}.toml")
    file.unlink()
    file.mkdir()
    said = remove(machine, "--purge", check=False)
    file.rmdir()
    assert said.returncode == 1
    assert f"not all of {NAME} could be removed" in said.stderr
    assert "Traceback" not in said.stderr
    assert traces(machine) == []


def test_files_of_no_service_are_in_nobodys_way(service: Instance) -> None:
    # Longer than the name of a unit can be, systemd.unit(5).
    file = service.machine.path(f"/etc/pounce/{'x' * 245}.toml")
    file.write_text("")
    remove(service.machine, "--purge")
    file.unlink()
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
