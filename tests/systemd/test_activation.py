"""Sockets that systemd opened."""

import json

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine


def test_the_first_request_starts_the_service(machine: Machine, instance: Instance) -> None:
    instance.configure()
    instance.listen("127.0.0.1:8001", "[::1]:8001", instance.path)
    machine.systemctl("start", instance.socket)
    assert instance.show("ActiveState") == "inactive"
    main_pid = json.loads(machine.curl("http://127.0.0.1:8001/who").stdout)["pid"]
    assert instance.show("ActiveState") == "active"
    for target in ("http://[::1]:8001/who", f"unix:{instance.path}:/who"):
        assert json.loads(machine.curl(target).stdout)["pid"] == main_pid


def test_a_service_started_by_hand_has_its_sockets(machine: Machine, instance: Instance) -> None:
    instance.configure()
    instance.start()
    assert machine.show(instance.socket, "ActiveState") == "active"
    assert instance.curl("/items").stdout == "[]"


def test_systemd_keeps_the_sockets_when_the_service_stops(
    machine: Machine, instance: Instance
) -> None:
    instance.configure()
    instance.start()
    first = instance.show("MainPID")
    instance.stop()
    assert instance.curl("/items").stdout == "[]"
    assert instance.show("MainPID") not in (first, "0")


def test_stopping_the_socket_stops_everything(machine: Machine, instance: Instance) -> None:
    instance.configure()
    instance.start()
    machine.systemctl("stop", instance.socket)
    assert instance.show("ActiveState") == "inactive"
    assert not machine.path(instance.path).exists()


def test_an_address_that_systemd_did_not_open_is_bound_by_pounce(
    machine: Machine, instance: Instance
) -> None:
    instance.configure(listen=[{"address": f"unix:{instance.path}"}, {"address": "127.0.0.1:8002"}])
    instance.start()
    assert machine.curl("http://127.0.0.1:8002/items").stdout == "[]"
    assert instance.curl("/items").stdout == "[]"


def test_a_udp_socket_is_held_and_does_no_harm(machine: Machine, instance: Instance) -> None:
    instance.configure()
    instance.amend(instance.socket, "[Socket]\nListenDatagram=127.0.0.1:8003\n")
    instance.start()
    assert instance.curl("/items").stdout == "[]"


@pytest.mark.systemd_since(253, "OpenFile=")
def test_a_descriptor_that_is_no_socket_is_named(machine: Machine, instance: Instance) -> None:
    instance.configure()
    # OpenFile= passes a regular file among the listening sockets.
    instance.amend(instance.service, "[Service]\nOpenFile=/etc/hostname:x:read-only\nRestart=no\n")
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("ExecMainStatus") == "71"
    messages = [entry["MESSAGE"] for entry in instance.journal("_COMM=pounce")]
    assert any("is a regular file" in message for message in messages), messages


def test_the_application_sees_nothing_of_the_service_managers_variables(instance: Instance) -> None:
    instance.configure()
    instance.start()
    private = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC"}
    assert private.isdisjoint(json.loads(instance.curl("/environment").stdout))
