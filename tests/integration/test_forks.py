"""A child that the application forks answers nobody and ends; an honest one notices nothing."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.modes import both_modes
from tests.service import Service, Wire, serving
from tests.websocket import HANDSHAKE

# What each does, and how the child ends then.
COMES_BACK = {
    "/raises": "1",
    "/exits": "3",
    "/says-why": "1",
    "/execs-nothing": "1",
    "/returns": "70",
}
HONEST = {"/_exit": "7", "/exec": "0", "/subprocess": "0", "/multiprocessing": "own loop -15"}
EVERYTHING = COMES_BACK | HONEST
CLOSED = b"\x88\x02\x03\xe8"
ONE_WORKER = ("--workers", "1", "--threads", "2")


@contextmanager
def forking(directory: Path, *flags: str, app: str = "app") -> Iterator[Service]:
    """A service whose application forks as it is asked to."""
    with serving(directory, *ONE_WORKER, *flags, app=f"forking:{app}") as service:
        yield service
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0


def check(service: Service, expected: dict[str, str], query: str = "") -> None:
    """Have children forked, and see that nobody but the worker answers, and only once."""
    with service.connect() as wire:
        worker = _ask(wire, "/").split()[0]
        for path, status in expected.items():
            assert _ask(wire, path + query) == f"{worker} {status}", service.log
        wire.sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            wire.sock.recv(1)
    for _ in range(8):
        with service.connect() as wire:
            assert _ask(wire, "/") == f"{worker} none"


def _ask(wire: Wire, path: str) -> str:
    return wire.get(path).body.decode()


@both_modes
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_in_the_loop(tmp_path: Path, mode: str, loop: str) -> None:
    with forking(tmp_path, "--worker-mode", mode, "--loop", loop) as service:
        check(service, {**EVERYTHING, "/waits": "70"})
        service.expect("RuntimeError: in the child")
        service.expect(r"process \d+, which the application has forked, called sys\.exit\(\)")
        service.expect("came back to the worker")
        service.expect("went back to the worker's event loop")
        assert "Traceback" not in service.log.partition("went back to")[2]


@pytest.mark.parametrize("kind", ["records", "file"])
def test_no_child_logs_a_request(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "access"
    flags = ("--access-log", "on" if kind == "records" else str(file))
    paths = ["/returns", "/waits", "/raises"]
    with forking(tmp_path, *flags) as service, service.connect() as wire:
        for path in paths:
            _ask(wire, path)
    lines = service.log if kind == "records" else file.read_text()
    assert [lines.count(f"GET {path} ") for path in paths] == [1, 1, 1], lines


@both_modes
@pytest.mark.parametrize("app", ["wsgi", "sync", "app"])
def test_in_a_thread(tmp_path: Path, mode: str, app: str) -> None:
    flags = ("--worker-mode", mode, "--execution", "sync")
    with forking(tmp_path, *flags, app=app) as service:
        check(service, EVERYTHING | ({"/waits": "70"} if app == "app" else {}))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_in_a_thread_of_the_application(tmp_path: Path, loop: str) -> None:
    with forking(tmp_path, "--loop", loop) as service:
        check(service, EVERYTHING, "?asyncio")
        # Of other threads only the end is heard, when they tell the loop of it.
        check(service, dict.fromkeys(COMES_BACK, "70") | HONEST, "?anyio")


def test_over_tls(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue("localhost", "127.0.0.1").write(tmp_path, "a")
    entry = f'certificate = "{certificate}"\nkey = "{key}"'
    pem = authority.write(tmp_path)
    flags = ("--workers", "1")
    with serving(tmp_path, *flags, app="forking:app", entry=entry, authority=pem) as service:
        check(service, {**COMES_BACK, "/waits": "70"})


@pytest.mark.parametrize("execution", ["async", "sync"])
def test_of_a_websocket(tmp_path: Path, execution: str) -> None:
    with forking(tmp_path, "--execution", execution) as service:
        with service.connect() as wire:
            worker = _ask(wire, "/").split()[0]
        for path, status in EVERYTHING.items():
            assert _ask_by_websocket(service, path) == f"{worker} {status}"


def _ask_by_websocket(service: Service, path: str) -> str:
    lines = [f"GET {path} HTTP/1.1", "host: a.example", *HANDSHAKE, "", ""]
    with service.connect() as wire:
        wire.sock.sendall("\r\n".join(lines).encode())
        received = b""
        while CLOSED not in received:
            received += wire.sock.recv(65536)
    # A head; a short text message, whose frame has a head of two bytes; the close frame.
    return received.partition(b"\r\n\r\n")[2].partition(CLOSED)[0][2:].decode()


def test_in_a_lifespan(tmp_path: Path) -> None:
    with forking(tmp_path, app="lifespan") as service:
        check(service, {"/returns": "70"})


@both_modes
def test_at_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    module = "from tests.apps.forking import *\nassert forks('/raises') == '1'"
    (tmp_path / "it.py").write_text(module)
    flags = (*ONE_WORKER, "--worker-mode", mode)
    with serving(tmp_path, *flags, app="it:app", apps=tmp_path) as service:
        check(service, {"/returns": "70"})


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_while_content_waits_to_be_read(tmp_path: Path, loop: str) -> None:
    head = b"POST /returns HTTP/1.1\r\nhost: a.example\r\ncontent-length: 1000000\r\n\r\n"
    with forking(tmp_path, "--loop", loop) as service, service.connect() as wire:
        wire.sock.sendall(head + bytes(500_000))
        wire.sock.shutdown(socket.SHUT_WR)
        received = b""
        while data := wire.sock.recv(65536):
            received += data
        assert received.count(b"HTTP/1.1 ") == 1
        assert received.endswith(b" 70")


@both_modes
def test_a_child_that_lives_on_holds_nobody_up(tmp_path: Path, mode: str) -> None:
    with (
        forking(tmp_path, "--worker-mode", mode) as service,
        service.connect() as idle,
        service.connect() as wire,
    ):
        _ask(idle, "/")
        child = int(_ask(wire, "/lives-on").split()[1])
        service.reload(2)
        service.expect("generation 1 is retired", timeout=9)
        assert _ask(idle, "/").endswith(" none")
        child, last = int(_ask(idle, "/lives-on").split()[1]), child
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert idle.sock.recv(1) == wire.sock.recv(1) == b""
        for each in (child, last):
            os.kill(each, signal.SIGKILL)
