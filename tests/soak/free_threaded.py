"""A Python without a global lock in the machine, and pounce in a virtual environment of it."""

import shutil
import subprocess
from pathlib import Path

from tests import run
from tests.systemd.machine import Machine
from tests.systemd.rootfs import UnpreparedError

VIRTUALENV = "/opt/free-threaded"
_PREFIX = "/opt/python-free-threaded"


def install(machine: Machine, wheel: Path) -> None:
    """Copy the host's free-threaded interpreter, and install *wheel* with what it depends on."""
    interpreter = run.free_threaded()
    if interpreter is None:
        raise UnpreparedError("no free-threaded Python here: see CONTRIBUTING.md")
    prefix = interpreter.resolve().parents[1]
    shutil.copytree(prefix, machine.path(_PREFIX), symlinks=True)
    machine.run(f"{_PREFIX}/bin/python3", "-m", "venv", "--without-pip", VIRTUALENV)
    [packages] = machine.path(VIRTUALENV).glob("lib/python*/site-packages")
    command = (interpreter, "-m", "pip", "install", "-qq", "--target", packages, wheel)
    subprocess.run(command, check=True)
