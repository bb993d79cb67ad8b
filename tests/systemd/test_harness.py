"""The machine itself: what the other tests stand on."""

from pathlib import Path

import pytest

from tests.systemd.instance import toml
from tests.systemd.machine import Machine


def test_commands_tell_status_and_output(machine: Machine) -> None:
    assert machine.run("echo", "hello").stdout == "hello\n"
    with pytest.raises(AssertionError, match="exit status 3\noops"):
        machine.run("sh", "-c", "echo oops; exit 3")


def test_a_failed_start_shows_the_journal(machine: Machine) -> None:
    machine.write(
        "/run/systemd/system/broken.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo this is why; exit 1'\n",
    )
    with pytest.raises(AssertionError, match="this is why"):
        machine.systemctl("start", "broken.service")
    machine.systemctl("reset-failed", "broken.service")


def test_the_machine_has_a_network_of_its_own(machine: Machine) -> None:
    with pytest.raises(ConnectionRefusedError):
        machine.connect(("127.0.0.1", 7))
    machine.run("systemd-run", "--unit=echo", "--socket-property=ListenStream=127.0.0.1:7", "cat")
    machine.connect(("127.0.0.1", 7)).close()
    machine.systemctl("stop", "echo.socket")  # the service has ended with its connection


def test_a_wait_has_a_deadline() -> None:
    with pytest.raises(AssertionError, match="in vain for godot"):
        Machine.wait_until(lambda: False, 0.2, "godot")


def test_the_cached_root_file_system_is_never_written(machine: Machine, tmp_path: Path) -> None:
    machine.write("/etc/written-by-a-test", "text")
    assert machine.run("cat", "/etc/written-by-a-test").stdout == "text"
    assert not Path("/etc/written-by-a-test").exists()


def test_settings_as_toml() -> None:
    settings = {
        "listen": [{"address": ":80"}, {"address": "unix:/s", "name": "admin"}],
        "app": "a:b",
        "workers": 2,
        "date_header": False,
        "environment": {"A": "1"},
    }
    assert toml(settings) == (
        'app = "a:b"\nworkers = 2\ndate_header = false\n'
        '[[listen]]\naddress = ":80"\n[[listen]]\naddress = "unix:/s"\nname = "admin"\n'
        '[environment]\nA = "1"\n'
    )
