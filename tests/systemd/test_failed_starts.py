"""Starts that fail, and what becomes of the clients that wait meanwhile."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import APPLICATIONS, Machine, Result

REQUEST = b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
WATCHED = 20.0
"""Seconds for which failing starts are watched."""
HALF_A_MINUTE = 30.0
AT_ONCE = 10.0
"""Seconds that a command takes on a busy machine when it waits for nothing."""

Mend = Callable[[], object]


def bad_configuration(instance: Instance) -> Mend:
    configure(instance, wokers=2)
    return lambda: configure(instance)


def broken_application(instance: Instance) -> Mend:
    path = f"/srv/{instance.name}/demo.py"
    instance.machine.write(path, "raise RuntimeError('this release is broken')\n")
    configure(instance, directory=f"/srv/{instance.name}")
    return lambda: instance.machine.run("cp", f"{APPLICATIONS}/demo.py", path)


def unnamed_socket(instance: Instance) -> Mend:
    configure(instance, listen=[{"address": "127.0.0.1:1"}])
    return lambda: configure(instance)


def missing_credential(instance: Instance) -> Mend:
    path = f"/etc/pounce/{instance.name}/secret"
    amend(instance, f"LoadCredential=secret:{path}")
    return lambda: instance.machine.write(path, "hush")


def missing_mount(instance: Instance) -> Mend:
    path = f"/srv/{instance.name}/media"
    amend(instance, f"ReadWritePaths={path}")
    return lambda: instance.machine.run("mkdir", "--parents", path)


def missing_user(instance: Instance) -> Mend:
    amend(instance, f"DynamicUser=no\nUser={instance.name}")
    return lambda: instance.machine.run("useradd", "--system", instance.name)


def missing_interpreter(instance: Instance) -> Mend:
    path = f"/usr/local/bin/{instance.name}"
    amend(instance, f"ExecStart=\nExecStart={path} serve %i")
    return lambda: instance.machine.run("ln", "--symbolic", "/usr/bin/pounce", path)


def configure(instance: Instance, **settings: Any) -> None:
    instance.configure("demo:app", **settings)


def amend(instance: Instance, directives: str) -> None:
    configure(instance)
    instance.amend(instance.service, f"[Service]\n{directives}\n")


FAILURES = {
    78: bad_configuration,
    70: broken_application,
    71: unnamed_socket,
    243: missing_credential,
    226: missing_mount,
    217: missing_user,
    203: missing_interpreter,
}


def failing_mount(instance: Instance) -> Mend:
    machine, unit = instance.machine, f"mnt-{instance.name}.mount"

    def mount(what: str) -> None:
        place = f"/mnt/{instance.name}"
        machine.write(f"/run/systemd/system/{unit}", f"[Mount]\nWhat={what}\nWhere={place}\n")
        require(instance, f"RequiresMountsFor={place}")

    mount("/srv/nothing")
    return lambda: mount("tmpfs\nType=tmpfs")


def missing_path(instance: Instance) -> Mend:
    path = f"/srv/{instance.name}/flag"
    require(instance, f"ConditionPathExists={path}")
    return lambda: instance.machine.write(path, "")


def failing_condition(instance: Instance) -> Mend:
    path = f"/srv/{instance.name}/flag"
    amend(instance, f"ExecCondition=/usr/bin/test -e {path}")
    return lambda: instance.machine.write(path, "")


def require(instance: Instance, directive: str) -> None:
    configure(instance)
    instance.amend(instance.service, f"[Unit]\n{directive}\n")


BEFORE_THE_START = [failing_mount, missing_path, failing_condition]


@dataclass
class Waiting:
    """A client that waits for an instance which exits with *status*, until *mend* is called."""

    status: int
    instance: Instance
    mend: Mend
    client: socket.socket

    @property
    def restarts(self) -> int:
        return int(self.instance.show("NRestarts"))

    def is_tried_again_later(self) -> bool:
        """Whether the service has failed as it was to, and will be started again."""
        status = self.instance.show("ExecMainStatus")
        return status == str(self.status) and self.instance.show("SubState") == "auto-restart"


@pytest.fixture
def waiting(machine: Machine) -> Iterator[list[Waiting]]:
    """A client for each of FAILURES, all at once: they wait for half a minute."""
    them = []
    for status, breaks in FAILURES.items():
        instance = Instance(machine, f"exits{status}")
        mend = breaks(instance)
        machine.systemctl("start", instance.socket)
        client = machine.connect(instance.path)
        client.settimeout(60)
        client.sendall(REQUEST)
        them.append(Waiting(status, instance, mend, client))
    yield them
    for each in them:
        each.client.close()
        each.instance.remove()


def answer(client: socket.socket) -> bytes:
    received = b""
    # A listening socket that is closed resets the connections that wait there: unix(7).
    with contextlib.suppress(ConnectionResetError):
        while more := client.recv(65536):
            received += more
    return received


def slow_pace(machine: Machine, seconds: float) -> int:
    """How many restarts there may be in *seconds*: each waits twice as long, up to 30 s."""
    if machine.systemd_version < 254:
        return int(seconds / HALF_A_MINUTE)
    return int(seconds).bit_length()


def test_waiting_clients_make_no_loop_and_are_answered_in_the_end(
    machine: Machine, waiting: list[Waiting]
) -> None:
    begin = time.monotonic()
    for each in waiting:
        machine.wait_until(each.is_tried_again_later, 15, f"the exit status {each.status}")
    machine.wait_until(lambda: time.monotonic() - begin > WATCHED, WATCHED + 1, "more starts")
    restarts = {each.status: each.restarts for each in waiting}
    pace = slow_pace(machine, time.monotonic() - begin)
    assert all(count <= pace for count in restarts.values()), restarts
    for each in waiting:
        assert machine.show(each.instance.socket, "ActiveState") == "active", each.status
        each.mend()
    mended = time.monotonic()
    for each in waiting:
        assert answer(each.client).startswith(b"HTTP/1.1 200 "), each.status
    assert time.monotonic() - mended < HALF_A_MINUTE + AT_ONCE


@pytest.mark.parametrize("status", FAILURES)
def test_a_person_is_told_at_once(machine: Machine, instance: Instance, status: int) -> None:
    mend = FAILURES[status](instance)
    for command in ("start", "start" if can_hurry(machine) else "restart"):
        failed = at_once(instance, command)
        assert failed.returncode == 1
        assert f"systemctl status {instance.service}" in failed.stderr
        assert instance.show("ExecMainStatus") == str(status)
    mend()
    assert at_once(instance, command).returncode == 0
    assert instance.curl("/", "--fail").returncode == 0


def can_hurry(machine: Machine) -> bool:
    """Whether systemd knows a start that does not wait for the restart that is due anyway."""
    return machine.systemd_version >= 254


def at_once(instance: Instance, command: str) -> Result:
    began = time.monotonic()
    finished = instance.machine.systemctl(command, instance.service, check=False)
    assert time.monotonic() - began < AT_ONCE
    return finished


REASONS = {
    78: "Start failed: /etc/pounce/{}.toml:3: wokers: unknown key",
    70: "Start failed: importing 'demo' failed: RuntimeError: this release is broken",
    71: "Start failed: no [[listen]] entry names unix:/run/pounce/{}.sock",
    # What systemd could not do is told in the journal.
    243: "status=243/CREDENTIALS",
    226: "status=226/NAMESPACE",
    217: "status=217/USER",
    203: "status=203/EXEC",
}


@pytest.mark.parametrize("status", REASONS)
def test_systemctl_status_says_why(machine: Machine, instance: Instance, status: int) -> None:
    FAILURES[status](instance)
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    shown = machine.systemctl("status", instance.service, check=False).stdout
    assert REASONS[status].format(instance.name) in shown


@pytest.fixture
def without_pause(machine: Machine) -> Iterator[list[tuple[Instance, Mend]]]:
    """An instance for each of BEFORE_THE_START, and how to mend it."""
    them = [
        (Instance(machine, breaks.__name__.replace("_", "")), breaks) for breaks in BEFORE_THE_START
    ]
    yield [(instance, breaks(instance)) for instance, breaks in them]
    for instance, _ in them:
        instance.remove()


def test_sockets_that_failed_listen_again(
    machine: Machine, without_pause: list[tuple[Instance, Mend]]
) -> None:
    """systemd knows no pause between these starts, and fails the socket for a client that waits."""
    instances = [instance for instance, _ in without_pause]
    for each in instances:
        assert "OnActiveUSec=30s" in machine.show(reopening(each), "TimersMonotonic")
        # The pause is longer than what the starts are counted in.
        each.amend(reopening(each), "[Timer]\nOnActiveSec=\nOnActiveSec=7s\n")
        each.amend(each.socket, "[Socket]\nTriggerLimitIntervalSec=6s\n")
        machine.systemctl("start", each.socket)
    for _ in range(2):
        clients = [machine.connect(each.path) for each in instances]
        for client in clients:
            assert answer(client) == b""
            client.close()
        machine.wait_until(lambda: not any(map(has_failed, instances)), 30, "sockets to listen")
    for each, mend in without_pause:
        mend()
        assert each.curl("/", "--fail").returncode == 0


def test_sockets_that_failed_can_be_opened_and_closed(machine: Machine, instance: Instance) -> None:
    missing_path(instance)
    machine.systemctl("start", instance.socket)
    for command in ("start", "stop"):
        fail_the_sockets(instance)
        assert is_to_reopen(instance)
        machine.systemctl(command, instance.socket)
        machine.wait_until(lambda: not is_to_reopen(instance), AT_ONCE, "the end of the timer")


@pytest.mark.parametrize("flags", [[], ["--runtime"]])
def test_sockets_of_a_masked_service_stay_closed(
    machine: Machine, instance: Instance, flags: list[str]
) -> None:
    instance.configure()
    machine.systemctl("start", instance.socket)
    machine.systemctl("mask", *flags, instance.service)
    try:
        fail_the_sockets(instance)
        assert not is_to_reopen(instance)
    finally:
        machine.systemctl("unmask", *flags, instance.service)
    missing_path(instance)
    machine.systemctl("start", instance.socket)
    fail_the_sockets(instance)
    assert is_to_reopen(instance)


def fail_the_sockets(instance: Instance) -> None:
    """Let a client connect to the sockets, so that they fail."""
    with instance.machine.connect(instance.path) as client:
        assert answer(client) == b""
    assert has_failed(instance)


def is_to_reopen(instance: Instance) -> bool:
    return instance.machine.show(reopening(instance), "ActiveState") == "active"


def reopening(instance: Instance) -> str:
    """The timer that opens the instance's sockets again."""
    return f"pounce-reopen@{instance.name}.timer"


def has_failed(instance: Instance) -> bool:
    return instance.machine.show(instance.socket, "ActiveState") == "failed"
