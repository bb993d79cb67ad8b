"""The project's own tests, on Debian's Python and with Debian's h11, uvloop, click and tomli."""

import shutil

import pytest

from tests.systemd.machine import REPOSITORY, Machine
from tests.systemd.rootfs import VIRTUALENV

COPY = "/root/pounce"


@pytest.mark.timeout(660)
def test_the_suites_pass_on_the_distributions_packages(machine: Machine) -> None:
    for room in ("packaging", "tests"):
        shutil.copytree(REPOSITORY / room, machine.path(f"{COPY}/{room}"), dirs_exist_ok=True)
    shutil.copy(REPOSITORY / "pyproject.toml", machine.path(COPY))
    # Random mutations of requests take a minute and a half; the corpus itself is what counts.
    suites = "tests/unit tests/conformance --ignore=tests/conformance/test_mutations.py"
    pytest_command = f"{VIRTUALENV}/bin/python -m pytest -q -p no:cacheprovider {suites}"
    machine.run("sh", "-c", f"cd {COPY} && exec {pytest_command}", timeout=600)
