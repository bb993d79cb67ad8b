"""pounce.service: what is done to it is done to every instance, and its outcome is theirs."""

import json
from collections.abc import Iterator

import pytest

from tests.systemd.instance import Instance
from tests.systemd.machine import Machine

ALL = "pounce.service"


@pytest.fixture
def two(machine: Machine, instance: Instance) -> Iterator[list[Instance]]:
    """Two enabled instances, as many as run."""
    other = Instance(machine, f"{instance.name}b")
    both = [instance, other]
    for each in both:
        each.configure("load:app")
        machine.systemctl("enable", "--now", each.service)
    machine.systemctl("start", ALL)
    yield both
    machine.systemctl("disable", *(each.service for each in both))
    machine.systemctl("stop", ALL)
    other.remove()


def states(instances: list[Instance]) -> list[str]:
    return [each.show("ActiveState") for each in instances]


def is_busy(instance: Instance) -> bool:
    told = instance.machine.run("pounce", "status", instance.name, "--json").stdout
    [worker] = json.loads(told)["generations"][0]["workers"]
    return bool(worker["busy"])


def test_a_reload_of_all_waits_for_each(machine: Machine, two: list[Instance]) -> None:
    machine.systemctl("reload", ALL)
    for each in two:
        assert each.show("StatusText").startswith("Serving generation 2")


def test_a_reload_of_all_fails_as_any_does_and_says_why(
    machine: Machine, two: list[Instance]
) -> None:
    good, bad = two
    bad.configure("load:nothing")
    assert machine.systemctl("reload", ALL, check=False).returncode == 1
    assert good.show("StatusText").startswith("Serving generation 2")
    assert bad.show("StatusText").startswith("Serving generation 1")
    told = machine.systemctl("status", "--lines=20", "--full", "--no-pager", ALL).stdout
    assert "1 of 2 reloads failed" in told
    assert f"{bad.service}: " in told
    assert "'load:nothing'" in told
    assert good.service not in told
    assert machine.show(ALL, "ActiveState") == "active"
    bad.configure("load:app")
    machine.systemctl("reload", ALL)


def test_what_does_not_run_is_not_reloaded(machine: Machine, two: list[Instance]) -> None:
    running, stopped = two
    stopped.stop()
    machine.systemctl("reload", ALL)
    assert running.show("StatusText").startswith("Serving generation 2")
    assert stopped.show("ActiveState") == "inactive"


def test_a_stop_of_all_waits_for_each(machine: Machine, two: list[Instance]) -> None:
    slow = two[0]
    url = ("--unix-socket", slow.path, "http://localhost/slow?ms=3000")
    client = machine.start("curl", "-sS", "--fail", "--output", "/dev/null", *url)
    machine.wait_until(lambda: is_busy(slow), 10, "the request")
    machine.systemctl("stop", ALL)
    assert states(two) == ["inactive", "inactive"]
    assert client.communicate(timeout=30) == ("", "")
    assert client.returncode == 0
    machine.systemctl("start", ALL)
    assert states(two) == ["active", "active"]


def test_a_restart_of_all_waits_for_each(machine: Machine, two: list[Instance]) -> None:
    before = [each.show("MainPID") for each in two]
    machine.systemctl("disable", two[1].service)  # it runs, so it is restarted all the same
    machine.systemctl("restart", ALL)
    assert states(two) == ["active", "active"]
    after = [each.show("MainPID") for each in two]
    assert not set(before) & set(after)


def test_a_stop_during_a_reload_of_all_is_a_clean_one(
    machine: Machine, two: list[Instance]
) -> None:
    slow = two[0]
    slow.configure("load:app", deploy={"before": ["sleep 1000"]})
    machine.systemctl("reload", "--no-block", ALL)
    machine.wait_until(lambda: "running 'sleep" in slow.show("StatusText"), 20, "the command")
    machine.systemctl("stop", ALL)
    machine.wait_until(lambda: states(two) == ["inactive", "inactive"], 20, "the end of both")
    assert [each.show("Result") for each in two] == ["success", "success"]
    assert machine.show(ALL, "Result") == "success"


def test_they_are_stopped_with_their_sockets(machine: Machine, two: list[Instance]) -> None:
    machine.systemctl("stop", "pounce@*.socket", "pounce@*.service", ALL)
    assert states(two) == ["inactive", "inactive"]
    assert [machine.show(each.socket, "ActiveState") for each in two] == ["inactive", "inactive"]
    assert all(each.curl("/", check=False).returncode == 7 for each in two)  # curl(1): refused
    machine.systemctl("start", ALL)
    assert states(two) == ["active", "active"]
