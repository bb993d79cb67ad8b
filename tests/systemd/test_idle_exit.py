"""Services that end where nobody is connected, and that the next connection starts."""

import pytest

from tests.certificates import Authority
from tests.systemd.instance import Instance
from tests.systemd.machine import Machine
from tests.websocket import HANDSHAKE

PORT = 8454

# Each comes a little later after the one before, so that some meet the service's end.
VISITS = """
set -e
for step in 0 4; do
    sleep 10.$step
    curl --fail --silent --show-error --max-time 30 --output /dev/null "$@"
done
"""


@pytest.fixture
def idling(instance: Instance) -> Instance:
    instance.configure(idle_exit="10 s", workers=2)
    return instance


def wait_for_end(instance: Instance) -> None:
    instance.machine.wait_until(
        lambda: instance.show("ActiveState") == "inactive", 60, "the service's end"
    )


def starts(instance: Instance) -> int:
    return sum("generation 1 serves" in entry["MESSAGE"] for entry in instance.journal())


def test_it_ends_and_the_next_request_starts_it(machine: Machine, idling: Instance) -> None:
    idling.start()
    first = idling.show("MainPID")
    wait_for_end(idling)
    assert idling.show("Result") == "success"
    assert idling.show("StatusText") == "Stopped: no connection for 10 s"
    for command in ("status", "reload"):
        told = machine.run("pounce", command, idling.name, check=False).stderr
        assert "what it told systemd last: Stopped: no connection for 10 s" in told
    assert machine.show(idling.socket, "ActiveState") == "active"
    assert machine.systemctl("reload", idling.service, check=False).returncode == 1
    machine.systemctl("try-reload-or-restart", idling.service)  # a deploy script's
    assert idling.show("ActiveState") == "inactive"
    assert idling.curl("/items").stdout == "[]"
    assert idling.show("MainPID") not in (first, "0")
    assert idling.show("NRestarts") == "0"


def test_a_websocket_holds_it(machine: Machine, idling: Instance) -> None:
    idling.configure("websocket:app", idle_exit="10 s", lifespan="off")
    idling.start()
    supervisor = idling.show("MainPID")
    with machine.connect(idling.path) as sock:
        lines = ["GET / HTTP/1.1", "host: test", *HANDSHAKE, "", ""]
        sock.sendall("\r\n".join(lines).encode())
        assert b" 101 " in sock.recv(4096)
        machine.run("sleep", "12")
        assert idling.show("MainPID") == supervisor
    wait_for_end(idling)


def test_requests_that_meet_its_end_are_answered(machine: Machine, idling: Instance) -> None:
    idling.start()
    visits = ("sh", "-c", VISITS, "visits", "--unix-socket", idling.path, "http://localhost/items")
    machine.run(*visits)
    wait_for_end(idling)  # whichever of them met it
    assert idling.curl("/items").stdout == "[]"
    assert starts(idling) > 1


def test_the_first_datagram_starts_it_again(machine: Machine, idling: Instance) -> None:
    if "HTTP3" not in machine.run("curl", "--version").stdout:
        pytest.skip("the machine's curl does not speak HTTP/3")
    address = f"127.0.0.1:{PORT}"
    issued = Authority().issue("localhost")
    machine.write("/etc/h3.pem", issued.pem.decode() + issued.key_pem.decode())
    machine.run("chmod", "644", "/etc/h3.pem")
    sockets = f"ListenStream=\nListenStream={address}\n" + f"ListenDatagram={address}\n" * 2
    idling.amend(idling.socket, f"[Socket]\n{sockets}ReusePort=yes\n")
    listen = {"address": address, "certificate": "/etc/h3.pem", "http3": True}
    idling.configure(workers=2, idle_exit="10 s", listen=[listen])
    idling.start()
    wait_for_end(idling)
    machine.curl(f"https://{address}/items", "--insecure", "--http3-only", "--fail")
    assert starts(idling) == 2
