"""The service's life, as systemd sees it."""

import json
import time

from tests.modes import both_modes
from tests.systemd.instance import Instance
from tests.systemd.machine import Machine

SERVING = "Serving generation 1, {}"


def test_ready_means_that_the_lifespan_has_started(machine: Machine, instance: Instance) -> None:
    instance.configure(environment={"STARTUP_DELAY": "2"})
    machine.systemctl("start", "--no-block", instance.service)
    machine.wait_until(lambda: instance.show("StatusText"), 10, "a first status")
    assert instance.show("ActiveState") == "activating"
    assert instance.show("StatusText") == "Starting generation 1, 0 of 1 worker ready"
    machine.systemctl("start", instance.service)
    assert instance.show("StatusText") == SERVING.format("1 worker")
    assert instance.curl("/items", "--max-time", "1").stdout == "[]"


def test_a_start_may_take_longer_than_the_unit_says(instance: Instance) -> None:
    instance.configure(environment={"STARTUP_DELAY": "5"}, startup_timeout=30)
    instance.amend(instance.service, "[Service]\nTimeoutStartSec=2s\n")
    start = time.monotonic()
    instance.start()
    assert time.monotonic() - start > 5


def test_a_start_is_given_up_at_the_configured_timeout(
    machine: Machine, instance: Instance
) -> None:
    instance.configure(environment={"STARTUP_DELAY": "60"}, startup_timeout=1)
    instance.amend(instance.service, "[Service]\nRestart=no\n")
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("Result") == "exit-code"


@both_modes
def test_status(instance: Instance, mode: str) -> None:
    instance.configure(workers=3, worker_mode=mode)
    instance.start()
    assert instance.show("StatusText") == SERVING.format("3 workers")


def test_a_killed_worker_is_back_without_systemd(machine: Machine, instance: Instance) -> None:
    instance.configure(workers=2)
    instance.start()
    supervisor = instance.show("MainPID")
    victim, survivor = instance.workers()
    machine.run("kill", "-KILL", str(victim))
    status = SERVING.format("2 workers")
    machine.wait_until(
        lambda: victim not in instance.workers() and instance.show("StatusText") == status,
        30,
        "the worker to be replaced",
    )
    workers = instance.workers()
    assert survivor in workers
    assert len(workers) == 2
    assert json.loads(instance.curl("/who").stdout)["pid"] in workers
    assert instance.show("MainPID") == supervisor
    assert instance.show("NRestarts") == "0"


def test_a_stopped_supervisor_is_restarted_and_no_request_is_lost(
    machine: Machine, instance: Instance
) -> None:
    instance.configure(workers=2)
    instance.amend(instance.service, "[Service]\nWatchdogSec=2s\nRestartSec=1s\n")
    instance.start()
    supervisor = instance.show("MainPID")
    machine.systemctl("kill", "--signal=STOP", instance.service)
    url = ("--unix-socket", instance.path, "http://localhost/items")
    clients = [machine.start("curl", "-sS", "--max-time", "60", *url) for _ in range(8)]
    assert [client.communicate(timeout=60) for client in clients] == [("[]", "")] * 8
    assert instance.show("NRestarts") == "1"
    assert instance.show("MainPID") not in (supervisor, "0")


def test_a_healthy_service_is_left_alone_by_its_watchdog(
    machine: Machine, instance: Instance
) -> None:
    instance.configure()
    instance.amend(instance.service, "[Service]\nWatchdogSec=1s\n")
    instance.start()
    begin = time.monotonic()
    machine.wait_until(lambda: time.monotonic() - begin > 4, 10, "four watchdog periods")
    assert instance.show("ActiveState") == "active"
    assert instance.show("NRestarts") == "0"


@both_modes
def test_a_stop_finishes_the_request_in_flight(
    machine: Machine, instance: Instance, mode: str
) -> None:
    instance.configure(worker_mode=mode, shutdown_timeout=20)
    # Less than the request takes: pounce asks for the time it needs.
    instance.amend(instance.service, "[Service]\nTimeoutStopSec=1s\n")
    instance.start()
    url = ("--unix-socket", instance.path, "http://localhost/wait/4")
    client = machine.start("curl", "-sS", "--max-time", "30", *url)
    machine.wait_until(lambda: instance.curl("/waiting").stdout == "1", 10, "the request")
    instance.stop()
    assert client.communicate(timeout=30) == ('{"waited":4.0}', "")
    assert instance.show("Result") == "success"
    assert instance.show("ActiveState") == "inactive"


def test_a_bad_configuration_is_one_readable_entry(machine: Machine, instance: Instance) -> None:
    instance.configure_text('app = "fastapi_app:app"\nwokers = 2\n')
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("ExecMainStatus") == "78"
    message, *again = [entry["MESSAGE"] for entry in instance.journal("_COMM=pounce")]
    assert f"/etc/pounce/{instance.name}.toml" in message
    assert "workers" in message
    assert set(again) <= {message}


def test_a_failed_import_is_one_readable_entry(machine: Machine, instance: Instance) -> None:
    machine.write(f"/srv/{instance.name}/broken.py", "import os\n\n\nprices = {}['nail']\n")
    instance.configure("broken:app", directory=f"/srv/{instance.name}")
    instance.amend(instance.service, "[Service]\nRestart=no\n")
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("ExecMainStatus") == "70"
    entries = [entry["MESSAGE"] for entry in instance.journal("_COMM=pounce")]
    [message] = [entry for entry in entries if "Traceback" in entry]
    assert f'File "/srv/{instance.name}/broken.py", line 4' in message
    assert "KeyError: 'nail'" in message
