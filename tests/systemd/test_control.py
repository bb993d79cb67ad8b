"""The control socket as an administrator meets it: varlinkctl, pounce's commands, another user."""

import json
from typing import Any

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine, Result

SERVICE = "io.pounce.Service"


@pytest.fixture
def served(instance: Instance) -> Instance:
    instance.configure(workers=2)
    instance.start()
    return instance


def control(instance: Instance) -> str:
    return f"/run/pounce/{instance.name}/control"


def call(instance: Instance, method: str, parameters: str = "{}") -> Any:
    """Call with systemd's own client; the answer."""
    where, name = control(instance), f"{SERVICE}.{method}"
    said = instance.machine.run("varlinkctl", "call", "--json=short", where, name, parameters)
    return json.loads(said.stdout)


def pounce(instance: Instance, command: str, *words: str, check: bool = True) -> Result:
    return instance.machine.run("pounce", command, instance.name, *words, check=check)


def states(instance: Instance) -> list[tuple[int, str, int, str]]:
    """Generation and its state, slot and its state of every worker."""
    return [
        (generation["number"], generation["state"], worker["slot"], worker["state"])
        for generation in call(instance, "Status")["generations"]
        for worker in generation["workers"]
    ]


def test_systemds_client_understands_it(machine: Machine, served: Instance) -> None:
    where = control(served)
    assert "Vendor: pounce" in machine.run("varlinkctl", "info", where).stdout
    assert SERVICE in machine.run("varlinkctl", "list-interfaces", where).stdout
    for interface in (SERVICE, "org.varlink.service"):
        described = machine.run("varlinkctl", "introspect", where, interface).stdout
        assert f"interface {interface}" in described
        machine.write("/run/described", described)
        machine.run("varlinkctl", "validate-idl", "/run/described")
    [(_, _, slot, state), _] = states(served)
    assert (slot, state) == (0, "ready")
    refused = machine.run("varlinkctl", "call", where, f"{SERVICE}.No", "{}", check=False)
    assert refused.returncode
    assert "MethodNotFound" in refused.stderr


def test_the_commands_take_an_instances_name(machine: Machine, served: Instance) -> None:
    assert pounce(served, "reload").stdout == "generation 2 serves\n"
    head, *lines = pounce(served, "status").stdout.splitlines()
    assert "heartbeat" in head
    assert len(lines) >= 2
    assert json.loads(pounce(served, "status", "--json").stdout)["phase"] == "serving"
    assert pounce(served, "scale", "3").stdout == "workers: 3\n"
    serving = [(2, "serving", slot, "ready") for slot in range(3)]
    machine.wait_until(lambda: states(served) == serving, 20, "three workers")
    assert "3 workers" in served.show("StatusText")
    assert pounce(served, "stop-draining").stdout == "workers stopped: 0\n"
    assert call(served, "Scale", '{"workers": 1}') == {"workers": 1}
    machine.wait_until(lambda: states(served) == serving[:1], 20, "one worker")


def test_every_service_is_listed(machine: Machine, served: Instance) -> None:
    other = Instance(machine, "stopped")
    other.configure()
    machine.systemctl("start", other.socket)
    try:
        lines = [line.split() for line in machine.run("pounce", "status").stdout.splitlines()]
        assert [served.name, "serving", "active", "1", "2/2"] in [line[:5] for line in lines]
        assert ["stopped", "inactive", "active", "-", "-", "-", "-"] in lines
        as_nobody = ("setpriv", "--reuid=nobody", "--clear-groups", "pounce", "status")
        lines = [line.split() for line in machine.run(*as_nobody).stdout.splitlines()]
        assert [served.name, "active", "active", "-", "-", "-", "-"] in lines
    finally:
        other.remove()


def test_the_processes_say_what_they_are(machine: Machine, served: Instance) -> None:
    shown = machine.systemctl("status", served.service, "--no-pager").stdout
    assert f"pounce: {served.name} supervisor" in shown
    for slot in (0, 1):
        assert f"pounce: {served.name} worker {slot}, generation 1" in shown


def test_another_user_is_refused(machine: Machine, served: Instance) -> None:
    as_nobody = ("setpriv", "--reuid=nobody", "--clear-groups")
    refused = machine.run(*as_nobody, "pounce", "status", served.name, check=False)
    assert refused.returncode == 1
    assert "root and the service's user only" in refused.stderr


def test_a_service_that_does_not_run(instance: Instance) -> None:
    refused = pounce(instance, "reload", check=False)
    assert refused.returncode == 1
    assert "no service answers at" in refused.stderr
    assert "systemctl status" in refused.stderr
