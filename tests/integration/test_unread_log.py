"""A service goes on when nobody reads its log: the reader hangs, has left, or the disk is full."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.modes import MODES, both_modes
from tests.service import APPS, PATIENCE, PYTHON, Wire, free_port, running, wait_until

LONG_PATH = "/" + "x" * 200


def pipe() -> tuple[int, int]:
    return os.pipe()


def terminal() -> tuple[int, int]:
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)  # as Ctrl-S does
    return ours, theirs


def stream_socket() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def broken_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.close(reader)
    return os.open(os.devnull, os.O_RDONLY), writer


def full_disk() -> tuple[int, int]:
    return os.open(os.devnull, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)


class Service:
    """A `pounce serve` whose standard error is *stderr*."""

    def __init__(self, process: subprocess.Popen[bytes], address: Address) -> None:
        self.process = process
        self.address = address

    def connect(self) -> Wire:
        """A connection, once somebody listens."""

        def attempt() -> Wire | None:
            with suppress(ConnectionError):
                return Wire(self.address)
            return None

        wire: Wire = wait_until(attempt, "a connection")
        return wire

    def stop(self) -> int:
        """Stop it; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def launched(stderr: int, app: str, *flags: str, **variables: str) -> Iterator[Service]:
    """Start *app*, with the access log in the service's own."""
    address = f"127.0.0.1:{free_port()}"
    command = [str(PYTHON), "-m", "pounce", "serve", app, "--directory", str(APPS)]
    command += ["--bind", address, "--access-log", "on", *flags]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={**os.environ, **variables},
        process_group=0,
    )
    os.close(stderr)
    try:
        yield Service(process, Address.parse(address))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def load(service: Service, requests: int) -> None:
    """More lines than anything holds that is between the service and its reader."""
    with service.connect() as wire:
        for _ in range(requests):
            assert wire.get(LONG_PATH).status == 200


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [pipe, terminal, stream_socket, broken_pipe, full_disk])
def test_a_log_that_nobody_reads(
    kind: Callable[[], tuple[int, int]], mode: str, tmp_path: Path
) -> None:
    ours, theirs = kind()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"}
        flags = ("--workers", "2", "--worker-mode", mode)
        with launched(theirs, "logs:asgi_none", *flags, **environment) as service:
            load(service, 1000)
            for _ in range(2):  # the supervisor's loop turns
                while b"WATCHDOG=1" not in manager.recv(4096):
                    pass
            service.process.send_signal(signal.SIGHUP)
            while b"generation 2" not in manager.recv(4096):
                pass
            load(service, 100)
            assert service.stop() == 0
    os.close(ours)


def test_a_worker_that_is_killed_meanwhile_is_replaced() -> None:
    reader, writer = pipe()
    with launched(writer, "load:app", "--workers", "1", "--worker-mode", "process") as service:
        load(service, 1000)
        with service.connect() as wire:
            first = int(wire.get("/").headers[b"x-served-by"].split()[2])
        os.kill(first, signal.SIGKILL)
        with service.connect() as wire:
            assert int(wire.get("/").headers[b"x-served-by"].split()[2]) != first
        assert service.stop() == 0
    os.close(reader)


def reading(descriptor: int) -> bytes:
    with suppress(BlockingIOError):
        return os.read(descriptor, 65_536)
    return b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_lost_with_a_worker_is_told(number: signal.Signals) -> None:
    reader, writer = pipe()
    with launched(writer, "load:app", "--workers", "1", "--worker-mode", "process") as service:
        load(service, 2000)
        # A worker that is killed has noted its losses twice a second.
        noted = time.monotonic() + 1.5
        while time.monotonic() < noted:
            load(service, 100)
        with service.connect() as wire:
            first = int(wire.get("/").headers[b"x-served-by"].split()[2])
        os.kill(first, number)

        def replaced() -> bool:
            with service.connect() as wire:
                return int(wire.get("/").headers[b"x-served-by"].split()[2]) != first

        wait_until(replaced, "another worker")
        wait_until(lambda: not Path(f"/proc/{first}").exists(), "the first worker's end")
        os.set_blocking(reader, False)
        found = bytearray()

        def told() -> re.Match[bytes] | None:
            found.extend(reading(reader))
            return re.search(rb"worker 0 \(%d\) has ended; its records lost: (\d+)" % first, found)

        assert int(wait_until(told, "the number of lost records")[1]) > 500
        assert service.stop() == 0
    os.close(reader)


@both_modes
def test_a_reader_that_comes_back(mode: str) -> None:
    """It gets whole lines, and the number of those that it missed."""
    reader, writer = pipe()
    flags = ("--workers", "2", "--worker-mode", mode, "--log-format", "json")
    found: list[bytes] = []

    def read() -> None:
        while piece := os.read(reader, 4096):
            found.append(piece)

    def told() -> bool:
        return any(b"records lost" in piece for piece in found)

    with launched(writer, "logs:asgi_none", *flags) as service:
        connections = [service.connect() for _ in range(4)]
        for number in range(600):
            for wire in connections:
                # More than a pipe writes at once, of each worker.
                assert wire.get(LONG_PATH if number % 50 else "/long").status in (200, 500)
        thread = threading.Thread(target=read)
        thread.start()
        wait_until(told, "how many lines were lost")
        for wire in connections:
            assert wire.get("/at-last").status == 200
            wire.sock.close()
        assert service.stop() == 0
    thread.join(PATIENCE)
    os.close(reader)
    records = [json.loads(line) for line in b"".join(found).splitlines()]
    messages = [record["message"] for record in records]
    assert sum('"GET /at-last HTTP/1.1"' in each for each in messages) == 4
    assert any(each.startswith("the log can be written again; records lost: ") for each in messages)
    assert any("nothing is there either" in each for each in messages)
    assert messages[-1] == "stopped"


@both_modes
def test_a_full_disk_is_told_in_the_services_log(mode: str, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    command = [str(PYTHON), "-m", "pounce", "serve", "logs:asgi_none", "--directory", str(APPS)]
    command += ["--bind", address, "--access-log", "/dev/full", "--worker-mode", mode]
    log = tmp_path / "log"
    with running([*command, "--workers", "1", "--lifespan", "off"], log) as process:
        service = Service(process, Address.parse(address))
        load(service, 500)
        text = "the access log /dev/full cannot be written: No space left on device"
        wait_until(lambda: text in log.read_text(), "the trouble")
        assert service.stop() == 0
    # The end of the process says it once more, with the number.
    assert 1 <= log.read_text().count(text) <= 4
    assert "Traceback" not in log.read_text()
