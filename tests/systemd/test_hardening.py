"""The units as systemd judges them, and what the application cannot do."""

import re

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine

# Tries what an intruder would, and answers what came of it.
PROBE = """
import errno, mmap, os, socket, subprocess

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "allowed"

ATTEMPTS = {
    "write to /etc": lambda: open("/etc/intruder", "w"),
    "write to the application": lambda: open(__file__, "a"),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "namespace": lambda: os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else os.kill(1, 0),
    "signal to init": lambda: os.kill(1, 0),
    "list homes": lambda: os.listdir("/root"),
    "state": lambda: open(os.environ["STATE_DIRECTORY"] + "/file", "w"),
    "cache": lambda: open(os.environ["CACHE_DIRECTORY"] + "/file", "w"),
    "runtime": lambda: open(os.environ["RUNTIME_DIRECTORY"] + "/file", "w"),
    "temporary": lambda: open("/tmp/file", "w"),
    "subprocess": lambda: subprocess.run(["/bin/true"], check=True),
    "uid": lambda: os.setuid(0),
}

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = "\\n".join(f"{name}: {attempt(action)}" for name, action in ATTEMPTS.items())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})
"""


def test_verify_has_nothing_to_say(machine: Machine) -> None:
    units = ("pounce.service", "pounce@x.service", "pounce@x.socket")
    # The manual comes with the package.
    verified = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert verified.stdout + verified.stderr == ""


def test_exposure(machine: Machine) -> None:
    table = machine.run("systemd-analyze", "security", "--no-pager", "pounce@x.service").stdout
    [exposure] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", table)
    assert float(exposure) <= 1.5


def test_the_sandbox_holds_and_leaves_room_to_work(machine: Machine, instance: Instance) -> None:
    machine.write(f"/srv/{instance.name}/probe.py", PROBE)
    instance.configure("probe:app", directory=f"/srv/{instance.name}")
    instance.start()
    outcome = dict(line.split(": ") for line in instance.curl("/").stdout.splitlines())
    allowed = {name for name, result in outcome.items() if result == "allowed"}
    assert allowed == {"state", "cache", "runtime", "temporary", "subprocess"}, outcome


def test_each_instance_is_a_user_of_its_own(machine: Machine, instance: Instance) -> None:
    instance.configure()
    instance.start()
    user = machine.run("ps", "-o", "user=", "-p", instance.show("MainPID")).stdout.strip()
    assert user not in ("root", "nobody")
