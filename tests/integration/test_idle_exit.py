"""A service that ends where nobody is connected, and what keeps it from that."""

import contextlib
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.control import controlled
from tests.modes import both_modes
from tests.service import APPS, PYTHON, Service, Wire, binding, comes_true, running, serving
from tests.websocket import HANDSHAKE

IDLE = ("--idle-exit", "1 s")
ENDS = "stopping, no connection for 1 s"
# Longer than idle_exit and two looks.
LONG = 2.5


def ended(service: Service) -> bool:
    return service.process.poll() is not None


@contextmanager
def idling(directory: Path, *flags: str, app: str = "load:app") -> Iterator[Service]:
    """A service that ends after a second, on a listener that stays open, as systemd's would."""
    with listening() as (listener, address):
        command = hasty(listener, *IDLE, *flags, app=app)
        with running(command, directory / "log", listener.fileno()) as process:
            service = Service(process, address, directory / "log")
            service.expect("generation 1 serves")
            yield service


@contextmanager
def listening() -> Iterator[tuple[socket.socket, Address]]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        host, port = listener.getsockname()
        yield listener, Address.parse(f"{host}:{port}")


def hasty(listener: socket.socket, *flags: str, app: str = "load:app") -> list[str]:
    bind = ("--bind", f"fd:{listener.fileno()}")
    return [str(PYTHON), "-m", "tests.hasty", "serve", app, "--directory", str(APPS), *bind, *flags]


@both_modes
def test_it_ends_cleanly_once_its_last_client_has_left(tmp_path: Path, mode: str) -> None:
    with idling(tmp_path, "--worker-mode", mode, "--workers", "2") as service:
        with service.connect() as wire:
            wire.get("/")
            assert not comes_true(lambda: ended(service), LONG), service.log
        assert service.wait() == 0
        service.expect(ENDS)


def test_it_ends_though_nobody_has_ever_come(tmp_path: Path) -> None:
    with idling(tmp_path) as service:
        assert service.wait() == 0


def test_by_default_it_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        assert not comes_true(lambda: ended(service), LONG)


def websocket(service: Service) -> socket.socket:
    wire = service.connect()
    lines = ["GET / HTTP/1.1", "host: test", *HANDSHAKE, "", ""]
    wire.sock.sendall("\r\n".join(lines).encode())
    assert b" 101 " in wire.sock.recv(4096)
    return wire.sock


def event_stream(service: Service) -> socket.socket:
    wire = service.connect()
    wire.send("/events")
    assert wire.sock.recv(4096)
    return wire.sock


def slow_request(service: Service) -> socket.socket:
    wire = service.connect()
    wire.send(f"/slow?ms={round(LONG * 2000)}")
    return wire.sock


HOLDERS: dict[str, tuple[str, Callable[[Service], socket.socket]]] = {
    "WebSocket": ("websocket:app", websocket),
    "event stream": ("load:app", event_stream),
    "request": ("load:app", slow_request),
    "nothing sent": ("load:app", lambda service: service.connect().sock),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_connection_holds_it(tmp_path: Path, holder: str) -> None:
    app, hold = HOLDERS[holder]
    with idling(tmp_path, "--lifespan", "off", app=app) as service:
        with hold(service):
            assert not comes_true(lambda: ended(service), LONG), service.log
        assert service.wait() == 0


def test_a_connection_that_drains_after_a_reload_holds_it(tmp_path: Path) -> None:
    with idling(tmp_path, *("--lifespan", "off"), app="websocket:app") as service:
        with websocket(service):
            service.reload(2)
            assert not comes_true(lambda: ended(service), LONG), service.log
        assert service.wait() == 0


def test_a_request_in_a_thread_holds_it(tmp_path: Path) -> None:
    with idling(tmp_path, "--execution", "sync", app="load_wsgi:app") as service:
        with slow_request(service):
            assert not comes_true(lambda: ended(service), LONG), service.log
        assert service.wait() == 0


def test_work_after_a_response_holds_it(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with idling(tmp_path, "--lifespan", "auto", app="afterwards:app") as service:
        with service.connect() as wire:
            wire.get(f"/?{note}")
        service.expect(ENDS)
        assert note.read_text() == "finished"
        assert service.wait() == 0


def test_what_was_answered_between_two_looks_counts(tmp_path: Path) -> None:
    with idling(tmp_path) as service:

        def short_visit() -> bool:
            with service.connect() as wire:
                wire.send("/")
                wire.receive()
            return ended(service)

        assert not comes_true(short_visit, LONG)
        assert service.wait() == 0


def test_a_reload_sets_it_and_takes_it_away(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text("")
    with listening() as (listener, address):
        command = hasty(listener, "--config", str(file))
        with running(command, tmp_path / "log", listener.fileno()) as process:
            service = Service(process, address, tmp_path / "log")
            service.expect("generation 1 serves")
            file.write_text('idle_exit = "1 h"')
            service.reload(2)
            file.write_text("")
            service.reload(3)
            assert not comes_true(lambda: ended(service), LONG)
            file.write_text('idle_exit = "1 s"')
            service.reload(4)
            assert service.wait() == 0


def test_an_address_of_its_own_keeps_it(tmp_path: Path) -> None:
    with binding(tmp_path, "--idle-exit", "10 s") as service:
        service.expect(
            rf"idle_exit has no effect: pounce has opened http://{re.escape(str(service.address))} "
        )
        assert not comes_true(lambda: ended(service), LONG)
        with service.connect() as wire:
            assert wire.get("/").status == 200
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0


def test_status_says_how_long_it_has_been_idle(tmp_path: Path) -> None:
    with controlled(tmp_path, "process", "--idle-exit", "10 min") as it:
        last = it.pounce("status").splitlines()[-1]
        assert last.endswith("the service ends after 10 min of that")
        told = it.status()
        assert told["idle_exit"] == 600
        assert 0 <= told["idle"] < 60
    with controlled(tmp_path, "process") as it:
        assert "idle" not in it.status()


class Runs:
    """One run of a service upon the other on one listener, each started by a waiting connection."""

    def __init__(self, directory: Path, listener: socket.socket, *flags: str) -> None:
        self.listener = listener
        self.count = 0
        self.statuses: list[int] = []
        self._log = directory / "log"
        self._flags = flags
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._start_again)

    def __enter__(self) -> "Runs":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _start_again(self) -> None:
        command = hasty(self.listener, *self._flags)
        while not self._over.is_set():
            with running(command, self._log, self.listener.fileno()) as process:
                self.count += 1
                while process.poll() is None and not self._over.is_set():
                    with contextlib.suppress(Exception):
                        process.wait(0.05)
                if process.returncode is not None:
                    self.statuses.append(process.returncode)


@both_modes
def test_whoever_comes_as_it_ends_is_answered(tmp_path: Path, mode: str) -> None:
    """Each client comes a little later after the one before, so that some meet the end."""
    pause = threading.Event()
    with ExitStack() as stack:
        listener, address = stack.enter_context(listening())
        runs = stack.enter_context(Runs(tmp_path, listener, *IDLE, "--worker-mode", mode))
        for step in range(10):
            with Wire(address) as wire:
                assert wire.get("/").status == 200
            pause.wait(1.2 + step * 0.12)
    assert runs.count > 2
    assert set(runs.statuses) == {0}
