"""The tests' own service: what they wait for."""

import subprocess
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.service import Service, running


def test_nobody_waits_for_what_a_service_that_has_ended_would_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(["sh", "-c", "echo first; exit 3"], log) as process:
        service = Service(process, Address.parse(":1"), log)
        assert process.wait() == 3
        assert service.expect("first", timeout=600)
        with pytest.raises(EOFError, match=r"second: not before the end, with status 3\nfirst"):
            service.expect("second", timeout=600)


def test_what_is_not_logged_in_time_is_told_with_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(["sh", "-c", "echo first; exec sleep 600"], log) as process:
        service = Service(process, Address.parse(":1"), log)
        service.expect("first")
        with pytest.raises(TimeoutError, match=r"second: not within 0\.1 s\nfirst"):
            service.expect("second", timeout=0.1)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0)
