"""A stop: of a service that has opened its addresses itself, and of one that was given them."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.certificates import Authority
from tests.modes import both_modes
from tests.service import (
    APPS,
    PATIENCE,
    PYTHON,
    Service,
    Wire,
    binding,
    free_port,
    running,
    serving,
    wait_until,
)

LONG = "/slow?ms=1500"


@contextmanager
def own_unix(directory: Path, *flags: str, address: str = "") -> Iterator[Service]:
    """A service on a unix socket that it opens itself, in *directory* or at *address*."""
    address = address or f"unix:{directory / 's'}"
    arguments = ["serve", "load:app", "--directory", str(APPS), "--bind", address, *flags]
    with running([str(PYTHON), "-m", "pounce", *arguments], directory / "log") as process:
        service = Service(process, Address.parse(address), directory / "log")
        service.wait_for_start()
        yield service


@contextmanager
def own_tls(directory: Path, *flags: str) -> Iterator[Service]:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(directory, "server")
    files = ("--certificate", str(certificate), "--key", str(key))
    with binding(directory, *files, *flags, authority=authority.write(directory)) as service:
        yield service


def own_abstract(directory: Path, *flags: str) -> AbstractContextManager[Service]:
    """A service on an abstract socket that it opens itself."""
    return own_unix(directory, *flags, address=f"unix:@{directory}")


LISTENERS = {"tcp": binding, "tls": own_tls, "unix": own_unix, "abstract": own_abstract}
all_listeners = pytest.mark.parametrize("listener", LISTENERS)


@contextmanager
def busy(service: Service, target: str = LONG) -> Iterator[Wire]:
    """A client whose request is in flight, so that the stop lasts a while."""
    with service.connect() as wire:
        wire.send(target)
        # Another connection's answer: the worker's loop has turned since, where there is one.
        with service.connect() as other:
            other.get("/")
        yield wire


def refused(service: Service) -> bool:
    try:
        with service.connect():
            return False
    except ConnectionRefusedError:
        return True


@all_listeners
@both_modes
def test_new_clients_are_refused_and_the_others_answered(
    tmp_path: Path, mode: str, listener: str
) -> None:
    flags = ("--worker-mode", mode, "--workers", "2")
    with LISTENERS[listener](tmp_path, *flags) as service, busy(service) as wire:
        service.send_signal(signal.SIGTERM)
        service.expect("stopping")
        wait_until(lambda: refused(service), "the listener's end")
        response = wire.receive()
        assert response is not None
        assert response.closes
        assert service.wait() == 0


class Clients:
    """Clients that run in threads until each of them has met its end."""

    def __init__(self, count: int, client: Callable[["Clients"], str]) -> None:
        self.answered = 0
        self.ends: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=[client], daemon=True) for _ in range(count)
        ]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(20)

    def _run(self, client: Callable[["Clients"], str]) -> None:
        try:
            self.ends.append(client(self))
        except Exception as error:
            self.ends.append(repr(error))


@all_listeners
@both_modes
def test_busy_clients_are_told_to_close(tmp_path: Path, mode: str, listener: str) -> None:
    flags = ("--worker-mode", mode, "--workers", "2")
    with LISTENERS[listener](tmp_path, *flags) as service:
        connected = threading.Barrier(8)

        def client(clients: Clients) -> str:
            with service.connect() as wire:
                connected.wait(PATIENCE)
                while not (response := wire.get("/")).closes:
                    clients.answered += response.status == 200
            return "told to close"

        with Clients(8, client) as clients:
            wait_until(lambda: clients.answered > 100, "answers")
            service.send_signal(signal.SIGTERM)
        assert clients.ends == ["told to close"] * 8
        assert service.wait() == 0


@all_listeners
@both_modes
def test_whom_the_kernel_has_accepted_is_answered(tmp_path: Path, mode: str, listener: str) -> None:
    """Each client connects anew for each request: many wait in the listener's queue."""
    flags = ("--worker-mode", mode, "--workers", "2")
    with LISTENERS[listener](tmp_path, *flags) as service:

        def client(clients: Clients) -> str:
            while True:
                try:
                    wire = service.connect()
                except ConnectionRefusedError:
                    return "refused"
                with wire:
                    clients.answered += wire.get("/").status == 200

        with Clients(16, client) as clients:
            wait_until(lambda: clients.answered > 100, "answers")
            service.send_signal(signal.SIGTERM)
        assert clients.ends == ["refused"] * 16
        assert service.wait() == 0


def test_what_waits_for_a_busy_loop_is_answered(tmp_path: Path) -> None:
    """The queue is emptied by workers, which may come to it late."""
    with binding(tmp_path, "--worker-mode", "process") as service:
        with service.connect() as hung, service.connect() as waiting:
            hung.get("/")
            hung.send("/hang?how=sleep&ms=400")
            waiting.send("/")
            service.send_signal(signal.SIGTERM)
            assert waiting.receive() is not None
        assert service.wait() == 0


@both_modes
def test_a_stuck_worker_does_not_keep_new_clients_waiting(tmp_path: Path, mode: str) -> None:
    """It does not empty the queue, in which one waits."""
    forever = ("--shutdown-timeout", "60", "--worker-timeout", "60")
    flags = ("--worker-mode", mode, "--workers", "1", *forever)
    with binding(tmp_path, *flags) as service:
        with service.connect() as hung:
            hung.get("/")
            hung.send("/hang?how=sleep&ms=60000")
            with service.connect():
                service.send_signal(signal.SIGTERM)
                service.expect("stopping")
                wait_until(lambda: refused(service), "the listener's end")
                assert service.process.poll() is None
        service.send_signal(signal.SIGTERM)
        service.wait()


FORKING = """
import os, time

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError
    if scope["path"] == "/fork" and not os.fork():
        try:
            time.sleep(20)
        finally:
            os._exit(0)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def test_a_child_of_the_application_does_not_keep_a_listener_open(tmp_path: Path) -> None:
    (tmp_path / "forking.py").write_text(FORKING)
    flags = ("--worker-mode", "process", "--directory", str(tmp_path))
    address = f"127.0.0.1:{free_port()}"
    command = [str(PYTHON), "-m", "pounce", "serve", "forking:app", "--bind", address, *flags]
    with running(command, tmp_path / "log") as process:
        service = Service(process, Address.parse(address), tmp_path / "log")
        service.wait_for_start()
        with service.connect() as wire:
            wire.get("/fork")
        service.send_signal(signal.SIGTERM)
        wait_until(lambda: refused(service), "the listener's end")
        assert service.wait() == 0
        assert refused(service)


# Where somebody else holds the listener


@both_modes
def test_a_given_listener_stays_open_for_the_next_run(tmp_path: Path, mode: str) -> None:
    with serving(tmp_path, "--worker-mode", mode) as service, busy(service) as wire:
        service.send_signal(signal.SIGTERM)
        service.expect("stopping")
        with service.connect() as late:
            late.send("/")
            assert wire.receive() is not None
            assert service.wait() == 0
            late.sock.settimeout(0.1)
            with pytest.raises(TimeoutError), suppress(socket.herror):
                late.sock.recv(1)
