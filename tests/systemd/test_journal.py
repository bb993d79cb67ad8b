"""What the service writes to the journal."""

import pytest

from tests.apps.logs import OWN
from tests.systemd.instance import Instance
from tests.systemd.machine import APPLICATIONS


def test_entries_tell_worker_and_generation(instance: Instance) -> None:
    instance.configure(workers=2)
    instance.start()
    for slot in ("0", "1"):
        entries = instance.journal(f"POUNCE_WORKER={slot}", "POUNCE_GENERATION=1")
        assert entries, f"no entry of worker {slot}"
        assert {entry["SYSLOG_IDENTIFIER"] for entry in entries} == {"pounce"}


def test_an_applications_error_is_one_entry_with_the_request(instance: Instance) -> None:
    instance.configure()
    instance.start()
    assert instance.curl("/fail", "--include").stdout.startswith("HTTP/1.1 500 ")
    # The client may read the response before the worker has written the entry.
    [entry] = instance.machine.wait_until(
        lambda: instance.journal("PRIORITY=3"), 10, "the error in the journal"
    )
    assert entry["MESSAGE"].splitlines()[-1].endswith("LookupError: nothing is there")
    assert "Traceback (most recent call last):" in entry["MESSAGE"]
    assert "/fail" in entry["MESSAGE"]
    assert entry["POUNCE_WORKER"] == "0"
    assert entry["LOGGER"] == "pounce.error"


def test_an_access_log_in_the_journal(instance: Instance) -> None:
    instance.configure(access_log="on")
    instance.start()
    instance.curl("/items")
    [entry] = instance.machine.wait_until(
        lambda: instance.journal("LOGGER=pounce.access"), 10, "the request in the journal"
    )
    assert "/items" in entry["MESSAGE"]


def test_a_stop_is_told(instance: Instance) -> None:
    instance.configure()
    instance.start()
    instance.stop()
    messages = " ".join(entry["MESSAGE"] for entry in instance.journal("_COMM=pounce"))
    assert "stopping" in messages


@pytest.mark.parametrize("way", ["dict_default", "file"])
def test_an_application_that_configures_logging(instance: Instance, way: str) -> None:
    instance.configure(app=f"logs:asgi_{way}", workers=1, access_log="on")
    instance.start()
    for path in ("/tell", "/again", "/fail"):
        instance.curl(path)
    [error] = instance.machine.wait_until(
        lambda: instance.journal("LOGGER=pounce.error", "PRIORITY=3"), 10, "the traceback"
    )
    assert error["MESSAGE"].splitlines()[-1] == "LookupError: nothing is there"
    requests = [entry["MESSAGE"] for entry in instance.journal("LOGGER=pounce.access")]
    assert [text.split()[2] for text in requests] == ["/tell", "/again", "/fail"]
    messages = [str(entry["MESSAGE"]) for entry in instance.journal()]
    assert f"OWN INFO {OWN}" in messages
    assert not [text for text in messages if "Logging error" in text]


def test_a_journal_that_is_stopped(instance: Instance) -> None:
    instance.configure(workers=2, access_log="on")
    instance.start()
    machine = instance.machine
    supervisor = instance.show("MainPID")
    journal = machine.show("systemd-journald.service", "MainPID")
    machine.run("kill", "-STOP", journal)
    try:
        with instance.client() as client:
            for _ in range(3000):
                assert client.get("/items").status_code == 200
        machine.systemctl("reload", instance.service)
        assert (instance.show("MainPID"), instance.show("NRestarts")) == (supervisor, "0")
    finally:
        machine.run("kill", "-CONT", journal)

    def told() -> bool:
        entries = instance.journal("PRIORITY=4")
        return any("records lost: " in str(entry["MESSAGE"]) for entry in entries)

    machine.wait_until(told, 30, "how many entries were lost")


def test_a_failed_import_is_one_traceback(instance: Instance) -> None:
    directory = f"/srv/{instance.name}"
    instance.machine.write(f"{directory}/shop.py", "from fastapi_app import app\n")
    instance.configure("shop:app", directory=directory, workers=2)
    instance.amend(
        instance.service, f"[Service]\nEnvironment=PYTHONPATH={APPLICATIONS}\nRestart=no\n"
    )
    instance.start()
    instance.machine.write(f"{directory}/shop.py", "import no_such_module\n")
    assert instance.machine.systemctl("reload", instance.service, check=False).returncode
    assert tracebacks(instance) == 1
    instance.stop()
    instance.machine.systemctl("stop", instance.socket)
    assert instance.machine.systemctl("start", instance.service, check=False).returncode
    assert tracebacks(instance) == 2
    instance.machine.path(f"{directory}/shop.py").unlink()


def tracebacks(instance: Instance) -> int:
    return sum(entry["MESSAGE"].count("Traceback (most") for entry in instance.journal())
