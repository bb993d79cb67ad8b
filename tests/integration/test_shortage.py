"""The supervisor out of descriptors: it survives, says so, and does later what it could not do."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.control import controlled
from tests.modes import both_modes
from tests.service import Service, serving, wait_until

NOFILE = resource.RLIMIT_NOFILE


@contextmanager
def left(pid: int, count: int) -> Iterator[None]:
    """Leave the process *count* descriptors: it may be one more for each gap among those it has."""
    used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    lowest = next(number for number in range(4096) if number not in used)
    before = resource.prlimit(pid, NOFILE)
    resource.prlimit(pid, NOFILE, (lowest + count, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, NOFILE, before)


def is_served(service: Service) -> bool:
    with service.connect() as wire:
        wire.send("/")
        answer = wire.receive()
        return answer is not None and answer.status == 200


def fails_to_start(service: Service, worker: int, told: int) -> bool:
    """Whether the one after *worker* fails to start, twice, so that it is seen to be tried again.

    So many failures were *told* before.
    """

    def settled() -> bool:
        failures = service.log.count("could not be started")
        return service.workers["0"] != worker or failures >= told + 2

    wait_until(settled, "a start, or two failures to start")
    return service.workers["0"] == worker


def children(pid: int) -> list[int]:
    """The processes that it has started, zombies included."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def test_a_worker_comes_back_whatever_is_missing_to_start_it(tmp_path: Path) -> None:
    """Each number of descriptors lets the start fail at another place, or succeed."""
    flags = ("--worker-mode", "process", "--max-restarts", "20")
    with serving(tmp_path, *flags) as service:
        supervisor = service.process.pid
        before = len(list(Path(f"/proc/{supervisor}/fd").iterdir()))
        failed = 0
        for count in range(10):
            worker = service.workers["0"]
            told = service.log.count("could not be started")
            with left(supervisor, count):
                os.kill(worker, signal.SIGKILL)
                failed += fails_to_start(service, worker, told)
                assert service.process.poll() is None
            service.expect_worker("0", worker)
            assert is_served(service)
        assert 5 <= failed < 10
        assert service.log.count("Too many open files") >= failed
        assert "Traceback" not in service.log
        assert children(supervisor) == [service.workers["0"]]
        wait_until(
            lambda: len(list(Path(f"/proc/{supervisor}/fd").iterdir())) <= before,
            "descriptors closed",
        )


def test_a_shortage_spends_no_restarts(tmp_path: Path) -> None:
    flags = ("--worker-mode", "process", "--max-restarts", "2")
    with serving(tmp_path, *flags) as service:
        worker = service.workers["0"]
        with left(service.process.pid, 0):
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: service.log.count("could not be started") >= 4, "failed starts")
        service.expect_worker("0", worker)
        assert is_served(service)


@both_modes
def test_a_reload_fails_and_says_why(tmp_path: Path, mode: str) -> None:
    with controlled(tmp_path, mode, "--workers", "2") as run:
        service = run.service
        with left(service.process.pid, 2):
            service.send_signal(signal.SIGHUP)
            service.expect("reload failed, the old code still serves: .*Too many open files")
        assert service.process.poll() is None
        run.reload(3)
        assert is_served(service)


@both_modes
def test_a_worker_more_comes_when_it_can(tmp_path: Path, mode: str) -> None:
    with serving(tmp_path, "--worker-mode", mode) as service:
        with left(service.process.pid, 1):
            service.send_signal(signal.SIGTTIN)
            service.expect("could not be started: .*Too many open files")
        service.expect_worker("1", 0)
        assert is_served(service)


@both_modes
def test_a_stop_needs_no_descriptor(tmp_path: Path, mode: str) -> None:
    with serving(tmp_path, "--worker-mode", mode, "--workers", "2") as service:
        with left(service.process.pid, 0):
            service.send_signal(signal.SIGTERM)
            assert service.wait() == 0
        assert "Traceback" not in service.log
