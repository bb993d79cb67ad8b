"""HTTP/3 on sockets that systemd opened."""

from pathlib import Path

from tests.certificates import Authority
from tests.systemd.instance import Instance

PORT = 8453
CLIENT = Path(__file__).with_name("http3_client.py")


def test_a_crash_of_all_is_told_to_clients_at_once(instance: Instance) -> None:
    """What connection ids are made with is in the descriptor store."""
    machine, address = instance.machine, f"127.0.0.1:{PORT}"
    issued = Authority().issue("localhost")
    machine.write("/etc/h3.pem", issued.pem.decode() + issued.key_pem.decode())
    machine.run("chmod", "644", "/etc/h3.pem")
    sockets = f"ListenStream=\nListenStream={address}\n" + f"ListenDatagram={address}\n" * 2
    instance.amend(instance.socket, f"[Socket]\n{sockets}ReusePort=yes\n")
    listen = {"address": address, "certificate": "/etc/h3.pem", "http3": True}
    instance.configure(workers=2, listen=[listen])
    instance.start()
    machine.write("/root/http3_client.py", CLIENT.read_text())
    told = machine.run("/usr/bin/python3", "/root/http3_client.py", str(PORT), instance.service)
    assert told.stdout == "reset\n"
