"""The commands of `[deploy] before` in a service: its sandbox, its journal, systemd's timeouts."""

import time
from typing import Any

from tests.modes import both_modes
from tests.systemd.instance import Instance
from tests.systemd.machine import APPLICATIONS, Machine

WHO = "sh -c 'echo $USER $(pwd) $STATE_DIRECTORY; touch $STATE_DIRECTORY/x; touch /srv/x; true'"


def configure(instance: Instance, *commands: str, mode: str = "process", **settings: Any) -> None:
    instance.configure(worker_mode=mode, deploy={"before": list(commands)}, **settings)


def said(instance: Instance, generation: int) -> list[str]:
    """What the commands have written, for one generation."""
    matches = ("LOGGER=pounce.deploy", "SYSLOG_IDENTIFIER=pounce")
    entries = instance.journal(*matches, f"POUNCE_GENERATION={generation}")
    return [entry["MESSAGE"] for entry in entries]


@both_modes
def test_they_run_as_the_service_and_are_heard_in_its_journal(
    instance: Instance, mode: str
) -> None:
    state = f"/var/lib/pounce/{instance.name}"
    configure(instance, WHO, "printf a\\nb\\n", mode=mode)
    instance.start()
    who, refused, *rest = said(instance, 1)
    assert who == f"pounce-{instance.name} {APPLICATIONS} {state}"
    assert "Read-only file system" in refused
    assert rest == ["a", "b"]


def test_a_failed_command_fails_the_reload_and_says_why(
    machine: Machine, instance: Instance
) -> None:
    instance.configure()
    instance.start()
    configure(instance, "sh -c 'echo relation exists; exit 2'")
    failed = machine.systemctl("reload", instance.service, check=False)
    assert failed.returncode != 0
    assert said(instance, 2) == ["relation exists"]
    [told] = [
        entry["MESSAGE"]
        for entry in instance.journal("POUNCE_EVENT=CommandFailed", "POUNCE_GENERATION=2")
    ]
    assert "exited with status 2\n" in told
    assert "the last line of its output is: relation exists" in told
    assert instance.show("ActiveState") == "active"
    status = instance.show("StatusText")
    assert "reload failed: [deploy] before: 'sh': it exited with status 2" in status
    assert "relation exists" not in status  # everybody may read it
    assert instance.curl("/items").stdout == "[]"


def test_a_failed_command_fails_the_start(machine: Machine, instance: Instance) -> None:
    configure(instance, "false")
    instance.amend(instance.service, "[Service]\nRestart=no\n")
    assert machine.systemctl("start", instance.service, check=False).returncode == 1
    assert instance.show("ExecMainStatus") == "70"
    [told] = [entry["MESSAGE"] for entry in instance.journal("POUNCE_EVENT=CommandFailed")]
    assert told == "[deploy] before: 'false': it exited with status 1"


def test_a_long_command_is_no_reason_to_give_a_start_up(instance: Instance) -> None:
    """Commands and workers have startup_timeout each; pounce asks systemd for both."""
    configure(instance, "sleep 4", startup_timeout=15, environment={"STARTUP_DELAY": "4"})
    instance.amend(instance.service, "[Service]\nTimeoutStartSec=2s\nWatchdogSec=2s\n")
    begun = time.monotonic()
    instance.start()
    assert time.monotonic() - begun > 8
    instance.machine.systemctl("reload", instance.service)
    assert instance.show("NRestarts") == "0"


@both_modes
def test_a_stop_during_a_command_ends_it(machine: Machine, instance: Instance, mode: str) -> None:
    configure(instance, "sh -c 'echo begun; exec sleep 1000'", mode=mode)
    machine.systemctl("start", "--no-block", instance.service)
    machine.wait_until(lambda: said(instance, 1) == ["begun"], 20, "the command")
    instance.stop()
    assert instance.show("Result") == "success"
    assert machine.run("pgrep", "-x", "sleep", check=False).stdout == ""


def test_a_stop_during_a_command_of_a_reload_is_a_clean_one(
    machine: Machine, instance: Instance
) -> None:
    """systemd ends the command of ExecReload= as well, and its end decides about the unit's."""
    instance.configure()
    instance.start()
    configure(instance, "sh -c 'echo begun; exec sleep 1000'")
    machine.systemctl("reload", "--no-block", instance.service)
    machine.wait_until(lambda: said(instance, 2) == ["begun"], 20, "the command")
    running = "starting generation 2, running 'sh'"
    machine.wait_until(lambda: running in instance.show("StatusText"), 10, "the status")
    instance.stop()
    assert (instance.show("ActiveState"), instance.show("Result")) == ("inactive", "success")
    [told] = instance.journal("POUNCE_EVENT=CommandStopped", "POUNCE_GENERATION=2")
    assert "the service is stopping; it was killed by SIGTERM" in told["MESSAGE"]


def test_a_start_after_a_crash_runs_them_again(machine: Machine, instance: Instance) -> None:
    configure(instance, "sh -c 'echo again'")
    instance.start()
    machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", instance.service)
    machine.wait_until(lambda: said(instance, 1) == ["again"] * 2, 30, "the next start")
