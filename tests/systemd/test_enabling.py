"""One command makes a service of a configuration, and another one takes it back."""

from collections.abc import Iterator

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine


@pytest.fixture
def enabled(machine: Machine, instance: Instance) -> Iterator[Instance]:
    instance.configure("load:app")
    machine.systemctl("enable", "--now", instance.service)
    yield instance
    machine.systemctl("disable", instance.service)


def is_enabled(instance: Instance) -> list[str]:
    """What systemctl says of the service and its socket."""
    units = (instance.service, instance.socket)
    return instance.machine.systemctl("is-enabled", *units, check=False).stdout.split()


def links(instance: Instance) -> list[str]:
    """The links that enable the instance."""
    found = instance.machine.run("find", "/etc/systemd/system", "-name", f"pounce@{instance.name}*")
    return sorted(found.stdout.split())


def test_it_serves_at_once_and_is_enabled_whole(machine: Machine, enabled: Instance) -> None:
    assert is_enabled(enabled) == ["enabled", "enabled"]
    for unit in (enabled.service, enabled.socket):
        assert machine.show(unit, "ActiveState") == "active"
    enabled.curl("/", "--fail")


def test_it_is_up_after_all_were_stopped_and_started(machine: Machine, enabled: Instance) -> None:
    machine.systemctl("start", "pounce")
    machine.systemctl("stop", "pounce")
    assert enabled.show("ActiveState") == "inactive"
    machine.systemctl("start", "pounce")
    assert enabled.show("ActiveState") == "active"
    machine.systemctl("stop", "pounce")


@pytest.mark.systemd_since(254, "soft-reboot")
def test_it_is_up_after_a_boot(machine: Machine, enabled: Instance) -> None:
    machine.reboot()
    assert enabled.show("ActiveState") == "active"
    assert machine.show(enabled.socket, "ActiveState") == "active"


def test_disabled_it_is_gone_whole(machine: Machine, enabled: Instance) -> None:
    machine.systemctl("disable", "--now", enabled.service, enabled.socket)
    assert links(enabled) == []
    for unit in (enabled.service, enabled.socket):
        assert machine.show(unit, "ActiveState") == "inactive"
    assert enabled.curl("/", check=False).returncode == 7  # nobody listens


@pytest.mark.parametrize("kind", ["service", "socket"])
def test_a_mistyped_name_is_refused(machine: Machine, instance: Instance, kind: str) -> None:
    unit = f"pounce@{instance.name}.{kind}"
    assert machine.systemctl("start", unit, check=False).returncode == 1
    told = [entry["MESSAGE"] for entry in machine.journal(instance.socket)]
    assert any(f"/etc/pounce/{instance.name}.toml" in message for message in told), told
    for each in (instance.service, instance.socket):
        assert machine.show(each, "ActiveState") == "inactive"


def test_nothing_runs_when_the_file_has_been_taken_away(
    machine: Machine, instance: Instance
) -> None:
    instance.configure("load:app")
    machine.systemctl("start", instance.socket)
    file = machine.path(f"/etc/pounce/{instance.name}.toml")
    file.rename(file.with_suffix(".away"))
    refused = machine.systemctl("start", instance.service, check=False)
    assert "Assertion failed" in refused.stderr
    with machine.connect(instance.path):
        socket = instance.socket
        machine.wait_until(
            lambda: machine.show(socket, "ActiveState") == "failed", 20, "the sockets to fail"
        )
    assert instance.show("ExecMainStartTimestamp") == ""
    listed = machine.run("pounce", "status").stdout.splitlines()
    assert [line.split()[1:3] for line in listed if instance.name in line.split()] == [
        ["inactive", "failed"]
    ]
    file.with_suffix(".away").rename(file)
    instance.start()
    instance.curl("/", "--fail")


def test_what_is_enabled_without_a_file_says_so_and_can_be_taken_back(
    machine: Machine, instance: Instance
) -> None:
    refused = machine.systemctl("enable", "--now", instance.service, check=False)
    assert f"A dependency job for {instance.service} failed" in refused.stderr
    told = machine.systemctl("status", "--no-pager", "--full", instance.socket, check=False).stdout
    assert f"/etc/pounce/{instance.name}.toml" in told.replace("as /etc/pounce", "")
    assert len(links(instance)) == 3
    machine.systemctl("disable", instance.service)
    assert links(instance) == []
