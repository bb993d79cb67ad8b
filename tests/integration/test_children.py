"""What an application's processes have of the service: signals, output, environment."""

import os
import signal
from pathlib import Path

from tests.modes import both_modes
from tests.service import serving

ONE = ("--workers", "1")
NUMBERS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)


@both_modes
def test_children_have_default_actions(tmp_path: Path, mode: str) -> None:
    flags = (*ONE, "--worker-mode", mode)
    with serving(tmp_path, *flags, app="children:app") as service, service.connect() as wire:
        for number in NUMBERS:
            for how in ("exec", "fork"):
                assert wire.get(f"/{how}/{int(number)}").body == b"%d" % -number, how


@both_modes
def test_what_is_printed_is_there_at_once(tmp_path: Path, mode: str) -> None:
    flags = (*ONE, "--worker-mode", mode)
    with serving(tmp_path, *flags, app="children:app") as service, service.connect() as wire:
        wire.get("/print")
        service.expect("^a printed line$")


@both_modes
def test_a_crash_in_c_leaves_stacks(tmp_path: Path, mode: str) -> None:
    flags = (*ONE, "--worker-mode", mode)
    with serving(tmp_path, *flags, app="children:app") as service, service.connect() as wire:
        wire.send("/crash")
        service.expect("Fatal Python error: Segmentation fault")
        service.expect("in _crash")


def test_a_process_knows_which_worker_it_is(tmp_path: Path) -> None:
    with serving(tmp_path, *ONE, "--worker-mode", "process", app="children:app") as service:
        with service.connect() as wire:
            assert wire.get("/").body == b"0 1"
        os.kill(service.workers["0"], signal.SIGKILL)
        service.reload(2)
        with service.connect() as wire:
            assert wire.get("/").body == b"0 2"


def test_threads_share_an_environment_that_names_none_of_them(tmp_path: Path) -> None:
    flags = (*ONE, "--worker-mode", "thread")
    with serving(tmp_path, *flags, app="children:app") as service, service.connect() as wire:
        assert wire.get("/").body == b"none none"
