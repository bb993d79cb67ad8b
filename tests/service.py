"""A `pounce serve` of its own for a test to talk to, watch and hurt."""

import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from pounce.net.address import Address
from tests.load import Background, Plan
from tests.load.response import Response, ResponseReader

PYTHON = Path(sys.executable)
APPS = Path(__file__).parent / "apps"
PATIENCE = 25.0
"""Seconds that anything may take which is awaited here, on a machine that is busy with more than
this. Most of what a service does not wait for by default, it would wait for longer: 30 seconds."""
START = 30.0
"""Seconds in which a service starts or reloads: importing an application takes CPU time, and the
tests of other files take theirs meanwhile."""


def wait_until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Wait until *condition* is true, and return what it says; TimeoutError names *what*."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.01)
    return value


def comes_true(condition: Callable[[], Any], timeout: float) -> bool:
    """Whether *condition* is true within *timeout* seconds."""
    with suppress(TimeoutError):
        wait_until(condition, "", timeout)
        return True
    return False


class Wire:
    """One blocking client connection."""

    def __init__(
        self,
        address: Address,
        trust: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        if address.kind == "unix":
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(address.sun_path)
            except OSError:
                self.sock.close()
                raise
        else:
            self.sock = socket.create_connection((address.host, address.port))
        self.sock.settimeout(PATIENCE)
        if trust is not None:
            self.sock = trust.wrap_socket(self.sock, server_hostname=address.host, session=session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, target: str) -> None:
        """Send a GET request."""
        self.sock.sendall(b"GET %b HTTP/1.1\r\nHost: test\r\n\r\n" % target.encode())

    def receive(self) -> Response | None:
        """The response; None if the connection ended first."""
        reader = ResponseReader()
        while data := self._read():
            response = reader.feed(data)
            if response is not None:
                return response
        return None

    def get(self, target: str) -> Response:
        """Send a GET request; the response."""
        self.send(target)
        response = self.receive()
        assert response is not None, "no answer"
        return response

    def slot(self) -> str:
        """The slot of the worker that this connection is with."""
        return self.get("/").headers[b"x-served-by"].split()[1].decode()

    def _read(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError):
            return b""


class Service:
    """A running service; *address* is where it listens.

    With *authority*, the PEM file of one, clients speak TLS.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        address: Address,
        log: Path,
        authority: Path | None = None,
    ) -> None:
        self.process = process
        self.address = address
        self.trust = ssl.create_default_context(cafile=authority) if authority else None
        self._authority = authority
        self._log = log

    @property
    def log(self) -> str:
        """All it has logged."""
        return self._log.read_text()

    @property
    def workers(self) -> dict[str, int]:
        """The process or thread id of each slot's worker that became ready last."""
        found = re.findall(r"worker (\S+) \((\d+)\) is ready", self.log)
        return {slot: int(target) for slot, target in found}

    def expect(self, pattern: str, timeout: float = PATIENCE) -> re.Match[str]:
        """Wait for *pattern* in the log, but not for what a service that has ended cannot log."""

        def logged_or_over() -> tuple[re.Match[str] | None] | None:
            # Asked first: what it logged before it ended is in the log then.
            is_over = self.process.poll() is not None
            match = re.search(pattern, self.log, re.MULTILINE)
            return (match,) if match or is_over else None

        try:
            [match] = wait_until(logged_or_over, pattern, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log}") from None
        if match is None:
            status = self.process.returncode
            raise EOFError(f"{pattern}: not before the end, with status {status}\n{self.log}")
        found: re.Match[str] = match
        return found

    def expect_worker(self, slot: str, other_than: int) -> int:
        """Wait until *slot* has a ready worker *other_than* that one; its id."""

        def changed() -> int:
            found = self.workers.get(slot, other_than)
            return 0 if found == other_than else found

        return int(wait_until(changed, f"another worker in slot {slot}"))

    def connect(self) -> Wire:
        """A new connection."""
        return Wire(self.address, self.trust)

    def connect_to(self, slot: str) -> Wire:
        """A connection with the worker in *slot*."""

        def attempt() -> Wire | None:
            wire = self.connect()
            # It may be another worker's that hangs, as some tests have workers do.
            wire.sock.settimeout(PATIENCE / 5)
            with suppress(TimeoutError):
                if wire.slot() == slot:
                    wire.sock.settimeout(PATIENCE)
                    return wire
            wire.sock.close()
            return None

        wire: Wire = wait_until(attempt, f"a connection with worker {slot}")
        return wire

    def wait_for_slots(self, *slots: str) -> None:
        """Return once the worker in each of *slots* accepts connections.

        On a busy machine one may begin much later than others, which have taken all clients then.
        """
        for slot in slots:
            self.connect_to(slot).sock.close()

    def load(self, **plan: Any) -> Background:
        """Put load on it."""
        tls = str(self._authority or "")
        return Background(Plan(address=self.address, tls=tls, **{"duration": 60.0, **plan}))

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the supervisor."""
        self.process.send_signal(number)

    def wait_for_start(self) -> None:
        """Return once it serves."""
        self.expect("generation 1 serves", START)

    def reload(self, generation: int) -> None:
        """Reload, and wait until *generation* has taken over."""
        self.send_signal(signal.SIGHUP)
        self.expect(f"generation {generation} has taken over", START)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; the exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{error}\n{self.log}") from None


@contextmanager
def launched(
    directory: Path,
    *flags: str,
    app: str = "load:app",
    apps: Path = APPS,
    unix: bool = False,
    entry: str = "",
    python: Path = PYTHON,
    authority: Path | None = None,
) -> Iterator[Service]:
    """Start a service, on a listener that stays open in this process, as systemd's would.

    *directory* is for its log, socket and configuration file, *apps* has its application.
    *entry* is what else the file's [[listen]] entry says; *authority* has issued its certificate,
    if it has one. *python* has pounce.
    """
    with _listener(directory / "s" if unix else None) as listener:
        descriptor = listener.fileno()
        file = directory / "service.toml"
        file.write_text(f'[[listen]]\naddress = "fd:{descriptor}"\n{entry}\n')
        arguments = ["serve", app, "--directory", str(apps), "--config", str(file), *flags]
        command = [str(python), "-m", "pounce", *arguments]
        with running(command, directory / "log", descriptor) as process:
            yield Service(process, _address(listener), directory / "log", authority)


@contextmanager
def serving(directory: Path, *flags: str, **how: Any) -> Iterator[Service]:
    """As `launched`, and wait until it serves."""
    with launched(directory, *flags, **how) as service:
        service.wait_for_start()
        yield service


@contextmanager
def binding(
    directory: Path,
    *flags: str,
    app: str = "load:app",
    apps: Path = APPS,
    authority: Path | None = None,
) -> Iterator[Service]:
    """As `serving`, on a port that the service opens itself, for whatever protocols."""
    address = f"127.0.0.1:{free_port()}"
    arguments = ["serve", app, "--directory", str(apps), "--bind", address, *flags]
    log = directory / "log"
    with running([str(PYTHON), "-m", "pounce", *arguments], log) as process:
        service = Service(process, Address.parse(address), log, authority)
        service.wait_for_start()
        yield service


def free_port() -> int:
    """A port that nobody has now, for those that cannot be given a socket.

    Connections and listeners of others do not take it either: the kernel gives them ports from
    32768 on (ip_local_port_range, ip(7)).
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def running(command: list[str], log: Path, *descriptors: int) -> Iterator[subprocess.Popen[bytes]]:
    """The process of *command*, which inherits *descriptors*; its output is in *log*."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, pass_fds=descriptors, process_group=0
        )
    try:
        yield process
    finally:
        # Its workers are in its group: none may be left, whatever a test has proved.
        _kill_group(process.pid)
        process.wait()


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


def _listener(path: Path | None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(2048)
    return listener


def _address(listener: socket.socket) -> Address:
    name = listener.getsockname()
    return Address.parse(f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}")
