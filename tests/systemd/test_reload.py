"""Deploys as an administrator makes them, with clients connected all the while."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.modes import both_modes
from tests.systemd.instance import Instance
from tests.systemd.machine import Machine

IDLE = 300


class Client:
    """One keep-alive connection to an instance."""

    def __init__(self, instance: Instance) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(instance.machine.path(instance.path)))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_for_close(self) -> bytes:
        """What the server still sends before it closes the connection."""
        return self._socket.recv(65536)

    def get(self, path: str) -> Any:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            data = self._socket.recv(65536)
            assert data, "the server has closed the connection"
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self._socket.recv(65536)
        return json.loads(body)


@pytest.fixture
def clients(instance: Instance) -> Iterator[Callable[[int], list[Client]]]:
    """Makes clients of the instance, which must be started by then."""
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(Client(instance)) for _ in range(count)]


Clients = Callable[[int], list[Client]]


@both_modes
def test_a_reload_keeps_idle_connections(
    machine: Machine, instance: Instance, clients: Clients, mode: str
) -> None:
    instance.configure(workers=2, worker_mode=mode)
    instance.start()
    used = clients(IDLE)
    assert {client.get("/who")["generation"] for client in used} == {1}
    machine.systemctl("reload", instance.service)
    assert {client.get("/who")["generation"] for client in used} == {2}
    assert instance.show("StatusText").startswith("Serving generation 2, 2 workers")


@pytest.mark.systemd_since(254, "a descriptor store that outlives a restart")
@both_modes
def test_a_restart_keeps_idle_connections(
    machine: Machine, instance: Instance, clients: Clients, mode: str
) -> None:
    instance.configure(workers=2, worker_mode=mode)
    instance.start()
    fresh, *used = clients(1 + IDLE)
    pids = {client.get("/who")["pid"] for client in used}
    for _ in range(2):
        machine.systemctl("restart", instance.service)
        restarted = {client.get("/who")["pid"] for client in used}
        assert not pids & restarted
        pids = restarted
    assert fresh.get("/who")["pid"] in pids
    machine.wait_until(
        lambda: _requests(machine, instance) == 3 * IDLE + 1, 5, f"{_requests(machine, instance)}"
    )
    # The connections that systemd kept it has forgotten, else clients would never see one closed;
    # what is left is the memory that counts requests.
    machine.wait_until(lambda: instance.show("NFileDescriptorStore") == "1", 10, "an empty store")


@pytest.mark.systemd_since(254, "a descriptor store that outlives a restart")
def test_connections_that_a_restart_kept_are_closed_in_the_end(
    machine: Machine, instance: Instance, clients: Clients
) -> None:
    instance.configure(workers=2, keep_alive_timeout=2)
    instance.start()
    used = clients(20)
    for client in used:
        client.get("/who")
    machine.systemctl("restart", instance.service)
    # Each worker must not hold what another serves.
    assert not any(client.wait_for_close() for client in used)


@pytest.mark.systemd_since(254, "a descriptor store that outlives a restart")
def test_requests_are_counted_on_after_a_crash(
    machine: Machine, instance: Instance, clients: Clients
) -> None:
    instance.configure(workers=2)
    instance.start()
    for client in clients(5):
        client.get("/who")
    machine.wait_until(lambda: _requests(machine, instance) == 5, 5, "the requests to be counted")
    supervisor = instance.show("MainPID")
    machine.run("kill", "-KILL", supervisor)
    machine.wait_until(
        lambda: (
            instance.show("MainPID") not in (supervisor, "0")
            and instance.show("ActiveState") == "active"
        ),
        30,
        "the next run",
    )
    assert _requests(machine, instance) == 5


def _requests(machine: Machine, instance: Instance) -> int:
    status = json.loads(machine.run("pounce", "status", instance.name, "--json").stdout)
    return int(status["requests"])


def test_a_failed_reload_changes_nothing(machine: Machine, instance: Instance) -> None:
    instance.configure(workers=2)
    instance.start()
    workers = instance.workers()
    with Client(instance) as client:
        assert client.get("/who")["generation"] == 1
        instance.configure("fastapi_app:nothing", workers=2)
        failed = machine.systemctl("reload", instance.service, check=False)
        assert failed.returncode == 1
        assert instance.show("ActiveState") == "active"
        machine.wait_until(lambda: instance.workers() == workers, 10, "only the old workers")
        assert "reload failed: 'fastapi_app:nothing'" in instance.show("StatusText")
        assert client.get("/who")["generation"] == 1
        instance.configure_text('workers = "many"\n')
        assert machine.systemctl("reload", instance.service, check=False).returncode == 1
        said = [entry["MESSAGE"] for entry in instance.journal()]
        assert any("workers: found" in message for message in said), said
        instance.configure(workers=2)
        machine.systemctl("reload", instance.service)
        assert client.get("/who")["generation"] > 1
