"""What the service writes to the journal."""

from tests.systemd.instance import Instance


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
