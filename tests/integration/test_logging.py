"""The log of a service whose application configures logging, or whose log nobody reads."""

import os
import signal
from pathlib import Path

import pytest

from tests.apps.logs import OWN, WAYS
from tests.modes import both_modes
from tests.service import Service, serving, wait_until

SYNC = ("--execution", "sync")


def visit(service: Service) -> None:
    """Have the application fail, log, and configure logging once more, and then fail again."""
    with service.connect() as wire:
        for path, status in (("/fail", 500), ("/tell", 200), ("/again", 200), ("/fail", 500)):
            assert wire.get(path).status == status


def check(service: Service, access: Path, visits: int) -> None:
    """So many visits are told in full, and each thing once."""
    for path, times in (("/fail", 2), ("/tell", 1), ("/again", 1)):
        line = f'"GET {path} HTTP/1.1"'
        wait_until(lambda: access.read_text().count(line) >= times * visits, line)  # noqa: B023
        assert access.read_text().count(line) == times * visits
    assert service.log.count("LookupError: nothing is there") == 2 * visits
    assert "Logging error" not in service.log


@both_modes
@pytest.mark.parametrize("way", [way for way in WAYS if way != "none"])
def test_an_application_that_configures_logging(way: str, mode: str, tmp_path: Path) -> None:
    access = tmp_path / "access"
    flags = ("--worker-mode", mode, "--workers", "1", "--access-log", str(access))
    with serving(tmp_path, *flags, app=f"logs:asgi_{way}") as service:
        visit(service)
        check(service, access, 1)
        service.reload(2)
        service.expect("generation 1 is retired")
        visit(service)
        check(service, access, 2)
        if mode == "process":
            worker = service.workers["0"]
            os.kill(worker, signal.SIGKILL)
            service.expect_worker("0", other_than=worker)
            visit(service)
            check(service, access, 3)
        # In threads, a second generation's dictConfig() may disable what the first one has left.
        wait_until(lambda: service.log.count(f"OWN INFO {OWN}"), "the application's own words")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert service.log.splitlines()[-1].endswith("stopped")


@both_modes
@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_threads_tell_who_they_are(interface: str, mode: str, tmp_path: Path) -> None:
    flags = ("--worker-mode", mode, "--workers", "1", "--access-log", "on")
    execution = SYNC if interface == "asgi" else ()
    with serving(tmp_path, *flags, *execution, app=f"logs:{interface}_dict_default") as service:
        visit(service)
        service.expect(r"INFO    \[1\.0\] 127.0.0.1 \"GET /again HTTP/1.1\" 200")
        service.expect(r"ERROR   \[1\.0\] the application failed on GET '/fail' from 127.0.0.1")


@both_modes
@pytest.mark.parametrize("way", ["dict_default", "file", "shutdown"])
def test_logging_is_configured_while_requests_run(way: str, mode: str, tmp_path: Path) -> None:
    flags = ("--worker-mode", mode, "--workers", "1", "--access-log", "on")
    with serving(tmp_path, *flags, app=f"logs:asgi_{way}") as service, service.connect() as wire:
        assert wire.get("/storm").status == 200
        for _ in range(200):
            assert wire.get("/fail").status == 500
        service.expect(r'"GET /storm HTTP/1.1"')
        wait_until(lambda: service.log.count('"GET /fail HTTP/1.1"') >= 200, "every request")
        assert service.log.count("LookupError: nothing is there") == 200
        assert "Logging error" not in service.log


@both_modes
@pytest.mark.parametrize("interface", ["asgi", "sync", "wsgi"])
def test_an_application_that_configures_no_logging(
    interface: str, mode: str, tmp_path: Path
) -> None:
    """What it logs nevertheless is in the service's log."""
    flags = ("--worker-mode", mode, "--workers", "1")
    flags = (*flags, *(SYNC if interface == "sync" else ()))
    app = f"logs:{interface.replace('sync', 'asgi')}_none"
    with serving(tmp_path, *flags, app=app) as service:
        with service.connect() as wire:
            assert wire.get("/warn").status == 200
        service.expect(rf"WARNING \[1\.0\] {OWN}")
