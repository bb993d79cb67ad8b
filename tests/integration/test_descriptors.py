"""Descriptors: how many a service may open, and what happens when there are no more."""

import re
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.modes import both_modes
from tests.service import APPS, PATIENCE, PYTHON, Service, free_port, running, serving, wait_until

NOFILE = resource.RLIMIT_NOFILE
LIMITED = "import os, resource, sys; soft, hard, *rest = sys.argv[1:]; "
LIMITED += "resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), int(hard))); "
LIMITED += "os.execv(rest[0], rest)"


@contextmanager
def limited(directory: Path, soft: int, hard: int, *flags: str) -> Iterator[Service]:
    """A service that is started with these limits."""
    address = f"127.0.0.1:{free_port()}"
    limits = [sys.executable, "-c", LIMITED, str(soft), str(hard)]
    serve = ["serve", "load:app", "--directory", str(APPS), "--bind", address, *flags]
    log = directory / "log"
    with running([*limits, str(PYTHON), "-m", "pounce", *serve], log) as process:
        service = Service(process, Address.parse(address), log)
        service.wait_for_start()
        yield service


def limits_of(pid: int) -> tuple[int, int]:
    """The soft and the hard limit of a process."""
    text = Path(f"/proc/{pid}/limits").read_text()
    found = re.search(r"Max open files +(\d+) +(\d+)", text)
    assert found is not None
    return int(found[1]), int(found[2])


@both_modes
def test_the_soft_limit_is_raised_and_connections_fit_it(tmp_path: Path, mode: str) -> None:
    with limited(tmp_path, 200, 300, "--worker-mode", mode, "--workers", "2") as service:
        pids = {service.process.pid}
        if mode == "process":
            pids |= set(service.workers.values())
        assert {limits_of(pid) for pid in pids} == {(300, 300)}
        [most] = re.findall(r"max_connections is lowered from 10000 to (\d+):", service.log)
        workers = 2 if mode == "thread" else 1
        assert 10 < int(most) * workers < 150
        with ExitStack() as stack:
            address = (service.address.host, service.address.port)
            for _ in range(400):
                stack.enter_context(socket.create_connection(address, timeout=PATIENCE))
            with service.connect() as wire:
                assert wire.get("/").status == 200
        service.reload(2)
        assert service.log.count("max_connections is lowered") == 1  # a reload changes nothing


def test_connections_that_fit_the_limit_are_not_lowered(tmp_path: Path) -> None:
    with limited(tmp_path, 200, 400, "--max-connections", "100") as service:
        assert "max_connections" not in service.log


@contextmanager
def exhausted(service: Service, left: int) -> Iterator[None]:
    """Leave the worker only a few descriptors."""
    pid = service.workers["0"]
    most = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()) + 1 + left
    before = resource.prlimit(pid, NOFILE, (most, limits_of(pid)[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, NOFILE, before)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_without_descriptors_connections_without_a_request_make_room(
    tmp_path: Path, loop: str
) -> None:
    with (
        serving(tmp_path, "--worker-mode", "process", "--loop", loop) as service,
        exhausted(service, left=10),
        ExitStack() as stack,
    ):
        for _ in range(40):
            stack.enter_context(service.connect())
        for _ in range(4):
            with service.connect() as wire:
                assert wire.get("/").status == 200
        service.expect("accepted: Too many open files; connections without a request make room")
        service.expect("closed without a request")
        assert service.log.count("Too many open files") == 1


def test_without_descriptors_a_new_client_waits_for_those_that_are_served(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--worker-mode", "process") as service,
        exhausted(service, left=4),
        ExitStack() as stack,
    ):
        wires = []
        for _ in range(8):
            wires.append(stack.enter_context(service.connect()))
            wires[-1].send("/slow?ms=300")
        for wire in wires:
            answer = wire.receive()
            assert answer is not None
            assert answer.status == 200
            wire.sock.close()
        assert service.log.count("Too many open files") <= 1
        assert "Traceback" not in service.log


def test_after_descriptors_ran_out_nothing_is_left_of_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--worker-mode", "process") as service:
        folder = Path(f"/proc/{service.workers['0']}/fd")
        with service.connect() as wire:
            wire.get("/")
        before = len(list(folder.iterdir()))
        with exhausted(service, left=10), ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(service.connect())
            service.expect("Too many open files")
        wait_until(lambda: len(list(folder.iterdir())) <= before, "descriptors closed")
