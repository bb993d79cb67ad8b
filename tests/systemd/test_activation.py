"""Sockets that systemd opened."""

import json

import pytest

from pounce.net.address import Address
from pounce.systemd.generator import listen_stream
from tests.systemd.instance import Instance
from tests.systemd.machine import APPLICATIONS, Machine

LISTEN_ON_80 = "[[listen]]\naddress = ':80'\n"


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


def test_sockets_are_opened_anew_as_often_as_somebody_likes(
    machine: Machine, instance: Instance
) -> None:
    """DefaultStartLimitBurst= would allow five times in ten seconds."""
    instance.configure()
    for _ in range(7):
        machine.systemctl("restart", instance.socket)
    assert instance.curl("/items").stdout == "[]"


def warnings(instance: Instance) -> list[str]:
    entries = instance.journal("PRIORITY=4", "SYSLOG_IDENTIFIER=pounce")
    return [entry["MESSAGE"] for entry in entries]


def test_an_address_that_systemd_cannot_open_is_bound_by_pounce_and_warned_of(
    machine: Machine, instance: Instance
) -> None:
    machine.write("/etc/hosts", "127.0.0.1 localhost inside\n::1 localhost\n")
    addresses = (f"unix:{instance.path}", "inside:8004")
    instance.configure(listen=[{"address": address} for address in addresses])
    instance.start()
    for target in ("http://127.0.0.1:8004", f"unix:{instance.path}:"):
        assert machine.curl(f"{target}/items").stdout == "[]"
    [told] = warnings(instance)
    assert told == (
        "systemd does not hold 127.0.0.1:8004: pounce has opened it itself, and clients are "
        "refused while the service is down\n  a socket unit needs an IP address, not a name"
    )


ADDRESSES = (
    *(":8110", "127.0.0.1:8111", "[::1]:8111", "[fe80::1%lo]:8112", "[::ffff:127.0.0.1]:8113"),
    *("0.0.0.0:8114", "[::1]:8114", "[::]:8115"),
    *("unix:/run/odd//./50%/a b.sock/", "unix:/run/ä\\b", "unix:@a/../b %i"),
    *(f"unix:/run/{102 * 'x'}", f"unix:@{106 * 'x'}"),
)
"""What the configuration takes for addresses, with all that is odd in systemd's own syntax."""


def test_systemd_takes_every_address_that_a_configuration_may_have(
    machine: Machine, instance: Instance
) -> None:
    """One that it does not take is ignored, or keeps the unit from being loaded."""
    instance.configure()
    addresses = [Address.parse(address) for address in ADDRESSES]
    instance.listen(*map(listen_stream, addresses))
    listed = machine.show(instance.socket, "Listen").splitlines()
    # What is not ASCII is shown in octal.
    listed = [line.encode().decode("unicode_escape").encode("latin-1").decode() for line in listed]
    assert listed == [f"{_as_systemd_shows(each)} (Stream)" for each in addresses]
    # The machine has no link-local address.
    instance.listen(*(listen_stream(each) for each in addresses if "%" not in each.host))
    machine.systemctl("start", instance.socket)


def _as_systemd_shows(address: Address) -> str:
    if address.kind == "unix":
        return address.path
    if not address.host:
        return f"[::]:{address.port}"
    return listen_stream(address).replace("%%", "%")


def test_without_a_socket_nothing_is_opened_beside_systemd(
    machine: Machine, instance: Instance
) -> None:
    """As where a wrapper has cleared the environment, or a daemon-reload closed the sockets."""
    instance.configure()
    clears = "env -u LISTEN_PID -u LISTEN_FDS /usr/bin/pounce serve %i || exit 71"  # not by exec
    shell = f"Restart=no\nExecStart=\nExecStart=/bin/sh -c '{clears}'\n"
    instance.amend(instance.service, f"[Service]\n{shell}")
    for listen, missing in ("", f"unix:{instance.path}"), (LISTEN_ON_80, ":80"):
        instance.configure_text(f'app = "demo:app"\ndirectory = "{APPLICATIONS}"\n{listen}')
        assert machine.systemctl("start", instance.service, check=False).returncode == 1
        assert instance.show("ExecMainStatus") == "71"
        told = instance.journal("PRIORITY=2", "SYSLOG_IDENTIFIER=pounce")[-1]["MESSAGE"]
        assert told.startswith(f"{instance.socket} has not opened {missing}: systemd passed no")
        assert f"systemctl restart {instance.socket} {instance.service};" in told


def test_a_unit_of_another_name_may_open_its_address(machine: Machine, instance: Instance) -> None:
    instance.configure(listen=[{"address": "127.0.0.1:8005"}])
    unit = f"own-{instance.name}.service"
    machine.run(
        "systemd-run",
        "--service-type=notify",
        f"--unit={unit}",
        "/usr/bin/pounce",
        "serve",
        instance.name,
    )
    assert machine.curl("http://127.0.0.1:8005/items").stdout == "[]"
    machine.systemctl("stop", unit)


def test_what_a_wrapper_keeps_from_pounce_is_named(machine: Machine, instance: Instance) -> None:
    instance.configure()
    stays = "Restart=no\nExecStart=\nExecStart=/bin/sh -c '/usr/bin/pounce serve %i || exit 71'\n"
    instance.amend(instance.service, f"[Service]\n{stays}")
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("ExecMainStatus") == "71"
    told = instance.journal("PRIORITY=2", "SYSLOG_IDENTIFIER=pounce")[-1]["MESSAGE"]
    assert told.startswith(
        f"systemd has passed the sockets of {instance.socket} to another process"
    )
    assert "the shell or wrapper in ExecStart= must exec pounce" in told
    # Without NOTIFY_SOCKET the end of pounce is all that systemd learns of it.
    emptied = "Restart=no\nExecStart=\nExecStart=env -i /usr/bin/pounce serve %i\n"
    instance.amend(instance.service, f"[Service]\n{emptied}")
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("ExecMainStatus") == "71"
    logged = [entry["MESSAGE"] for entry in instance.journal()]
    assert any("systemd's variables are gone" in message for message in logged)


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
