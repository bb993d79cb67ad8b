"""Instances beside each other: what one may not do to another."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine

# Does what a request asks for, and answers what came of it.
PROBE = """
import errno, json, os, pathlib, socket

def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)

ACTIONS = {
    "read": lambda path: pathlib.Path(path).read_text(),
    "write": lambda path: pathlib.Path(path).write_text("mine"),
    "list": os.listdir,
    "connect": connect,
    "kill": lambda pid: os.kill(int(pid), 0),
    "environment": lambda name: os.environ[name],
    "uid": lambda _: os.getuid(),
}

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    action, _, what = scope["query_string"].decode().partition("=")
    try:
        result = ACTIONS[action](what)
    except OSError as error:
        result = errno.errorcode[error.errno]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(result).encode()})
"""

DIRECTORIES = {
    "STATE_DIRECTORY": "/var/lib/pounce",
    "CACHE_DIRECTORY": "/var/cache/pounce",
    "RUNTIME_DIRECTORY": "/run/pounce",
}
HIDDEN = {"EACCES", "ENOENT"}


def ask(instance: Instance, action: str, what: str = "") -> Any:
    return json.loads(instance.curl(f"/?{action}={what}").stdout)


@pytest.fixture
def neighbour(machine: Machine, instance: Instance) -> Iterator[Instance]:
    """Another instance of the same application; both run, each with a secret of its own."""
    other = Instance(machine, f"{instance.name}-beside")
    machine.write("/srv/probe/probe.py", PROBE)
    for each in (instance, other):
        secret = f"/etc/pounce/{each.name}/secret"
        machine.write(secret, each.name)
        machine.path(secret).chmod(0o600)
        each.configure("probe:app", directory="/srv/probe")
        each.amend(each.service, f"[Service]\nLoadCredential=secret:{secret}\n")
        each.start()
    yield other
    other.remove()


def test_each_is_a_user_of_its_own(instance: Instance, neighbour: Instance) -> None:
    assert ask(instance, "uid") != ask(neighbour, "uid")
    assert instance.show("User") == f"pounce-{instance.name}"


def test_each_has_directories_that_the_other_cannot_enter(
    instance: Instance, neighbour: Instance
) -> None:
    for variable, parent in DIRECTORIES.items():
        mine = ask(instance, "environment", variable)
        assert mine == f"{parent}/{instance.name}"
        assert ask(instance, "write", f"{mine}/file") == len("mine")
        assert ask(neighbour, "read", f"{mine}/file") in HIDDEN
        assert ask(neighbour, "list", mine) in HIDDEN
    assert ask(instance, "write", "/tmp/file") == len("mine")
    assert ask(neighbour, "read", "/tmp/file") in HIDDEN


def test_each_reads_its_own_secret_alone(instance: Instance, neighbour: Instance) -> None:
    mine = ask(instance, "environment", "CREDENTIALS_DIRECTORY")
    assert ask(instance, "read", f"{mine}/secret") == instance.name
    assert ask(neighbour, "read", f"{mine}/secret") in HIDDEN
    for asking in (instance, neighbour):
        assert ask(asking, "read", f"/etc/pounce/{instance.name}/secret") == "EACCES"
        assert ask(asking, "write", f"/etc/pounce/{instance.name}.toml") == "EROFS"
        assert ask(asking, "write", f"/etc/pounce/{instance.name}/more") in {"EACCES", "EROFS"}


def test_neither_controls_the_other(instance: Instance, neighbour: Instance) -> None:
    control = f"/run/pounce/{instance.name}/control"
    assert ask(instance, "connect", control) is None
    assert ask(neighbour, "connect", control) in HIDDEN
    assert ask(neighbour, "kill", instance.show("MainPID")) in {"EPERM", "ESRCH"}
