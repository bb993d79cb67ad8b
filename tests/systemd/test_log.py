"""`pounce log`: the journal of a service, asked by its fields."""

import re

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine


def log(instance: Instance, *options: str) -> list[str]:
    """The lines that the command prints, once the journal has everything."""
    instance.machine.run("journalctl", "--sync")
    return instance.machine.run("pounce", "log", instance.name, *options).stdout.splitlines()


def test_entries_are_found_by_their_fields(machine: Machine, instance: Instance) -> None:
    instance.configure(workers=2, access_log="on")
    instance.start()
    for path in ("/items?before", "/items?after"):
        instance.curl(path)
        machine.systemctl("reload", instance.service)
    instance.configure("fastapi_app:nothing", workers=2)
    machine.systemctl("reload", instance.service, check=False)
    lines = log(instance)
    # The oldest first, each with its time and its process; what systemd says is among them.
    assert all(re.match(r"\w{3} \d\d \d\d:\d\d:\d\d \S+\[\d+\]|    ", line) for line in lines)
    assert any("Started" in line and " systemd[1]: " in line for line in lines)
    assert number_of(lines, "GET /items?before") < number_of(lines, "GET /items?after")

    of_first = [line for line in lines if " generation 1: " in line]
    assert of_first
    assert log(instance, "--generation", "1") == of_first
    of_worker = [line for line in lines if " worker 1 generation 2: " in line]
    assert log(instance, "--generation", "2", "--worker", "1") == of_worker

    for level in ("err", "3"):
        severe = log(instance, "--priority", level)
        assert number_of(severe, "fastapi_app:nothing") >= 0
        assert not any("GET /items" in line for line in severe)

    assert log(instance, "--since", "10 min ago") == lines
    later = machine.run("pounce", "log", instance.name, "--since", "2099-01-01")
    assert later.stdout == ""
    assert "has no such entries" in later.stderr


def number_of(lines: list[str], text: str) -> int:
    """The first of *lines* that has *text*."""
    return next(number for number, line in enumerate(lines) if text in line)


def test_following(machine: Machine, instance: Instance) -> None:
    instance.configure(access_log="on")
    instance.start()
    with machine.start("pounce", "log", instance.name, "--follow") as command:
        assert command.stdout
        # The test's own deadline ends these waits.
        assert any("generation 1 serves" in line for line in command.stdout)
        instance.curl("/items?followed")
        assert any("GET /items?followed" in line for line in command.stdout)
        machine.run("pkill", "-INT", "-f", f"pounce log {instance.name}")
        assert command.wait(10) == 0


def test_a_reader_that_leaves_is_no_error(machine: Machine, instance: Instance) -> None:
    instance.configure(access_log="on")
    instance.start()
    ended = machine.run("sh", "-c", f"pounce log {instance.name} | head -n 1")
    assert (len(ended.stdout.splitlines()), ended.stderr) == (1, "")
