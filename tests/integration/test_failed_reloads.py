"""After a reload that fails each option has its old effect: on what serves, and what replaces it.

A release is deployed whose import fails, with a configuration that changes every option. What each
option does is looked at before, after the failure, in a worker that has replaced one of the old
generation, and after a reload that succeeds: there it must be something else, or the look proves
nothing.
"""

import json
import re
import shutil
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pounce.config.service import Listen, ServerConfig
from pounce.net.address import Address
from tests.certificates import Authority
from tests.control import Controlled
from tests.load.response import Response, ResponseReader
from tests.modes import both_modes
from tests.service import (
    APPS,
    PATIENCE,
    PYTHON,
    Service,
    Wire,
    comes_true,
    free_port,
    running,
    wait_until,
)
from tests.websocket import HANDSHAKE, TEXT, frame

BROKEN = "raise ValueError('a broken deploy')\n"
# Seconds that a look takes to say that something does not happen.
NEVER = 3.0


@dataclass(frozen=True)
class Looked:
    """A service to look at, by its address for everything, and one for each of some options."""

    service: Service
    doors: Mapping[str, Address]
    folder: Path
    trust: ssl.SSLContext
    patience: float
    """Seconds that a look waits for what an old option does; a new one does it never."""

    def end_worker(self) -> str:
        """End worker 0, as a crash does, and wait for the next; what was logged meanwhile."""
        began, victim = len(self.service.log), self.service.workers["0"]

        def is_another() -> bool:
            with Wire(self.service.address) as wire:
                wire.send("/end")  # there may be others
                return comes_true(lambda: self.service.workers["0"] != victim, NEVER)

        wait_until(is_another, "another worker")
        return self.service.log[began:]

    def ask(self, target: str = "/", *fields: str, content: str = "") -> Response:
        """The answer to a request on a connection of its own."""
        with Wire(self.service.address) as wire:
            lines = "".join(f"{each}\r\n" for each in fields)
            wire.sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n{content}".encode())
            response = wire.receive()
            assert response is not None, target
            return response

    def report(self, *fields: str) -> Any:
        """What the application reports."""
        return json.loads(self.ask("/", *fields).body)


Look = Callable[[Looked], Any]


@dataclass(frozen=True)
class Change:
    """An option of the service or, with a *door*, of a listener of its own.

    *old* and *new* are TOML; {folder} and {port} in it are filled in. Options with the same *base*,
    lines that all of them need, share a service.
    """

    old: str
    new: str
    look: Look
    base: str = ""
    processes_only: bool = False


def reported(name: str, *fields: str) -> Look:
    return lambda looked: looked.report(*fields)[name]


def own(name: str) -> Look:
    """The worker's own value: the option acts later, or over a time that no test waits for."""
    return lambda looked: looked.report()["config"][name]


def status_of(target: str, *fields: str) -> Look:
    return lambda looked: looked.ask(target, *fields).status


def _uploads(looked: Looked) -> int:
    return looked.ask("/", "content-length: 200", content="a" * 200).status


def has_field(name: bytes) -> Look:
    return lambda looked: name in looked.ask().headers


def ends(door: str, *sent: str) -> Look:
    """Whether the service closes a connection on which a client has sent that much."""

    def look(looked: Looked) -> bool:
        with Wire(looked.doors.get(door, looked.service.address)) as wire:
            for part in sent:
                wire.sock.sendall(part.encode())
            wire.sock.setblocking(False)
            return comes_true(partial(_has_ended, wire.sock), looked.patience)

    return look


def _has_ended(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    return True


def _answers_in_a_row(looked: Looked) -> int:
    """How many requests one connection takes, of at most five."""
    with Wire(looked.service.address) as wire:
        for number in range(1, 6):
            if wire.get("/").headers.get(b"connection") == b"close":
                return number
    return 5


def _shake_hands(looked: Looked, *fields: str) -> tuple[Wire, bytes]:
    wire = Wire(looked.service.address)
    lines = "\r\n".join(["GET /ws HTTP/1.1", "host: a", *HANDSHAKE, *fields, "", ""])
    wire.sock.sendall(lines.encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += wire.sock.recv(1)
    return wire, head


def _echoes(looked: Looked) -> bool:
    """Whether a WebSocket takes a message of 1,000 bytes."""
    wire, _ = _shake_hands(looked)
    with wire:
        wire.sock.sendall(frame(TEXT, b"a" * 1000))
        return wire.sock.recv(1) == b"\x81"


def _compresses(looked: Looked) -> bool:
    wire, head = _shake_hands(looked, "sec-websocket-extensions: permessage-deflate")
    with wire:
        return b"permessage-deflate" in head


def _pings(looked: Looked) -> bool:
    wire, _ = _shake_hands(looked)
    with wire:
        wire.sock.settimeout(looked.patience)
        try:
            return wire.sock.recv(1) == b"\x89"
        except TimeoutError:
            return False


def _gives_up_silent_websockets(looked: Looked) -> bool:
    wire, _ = _shake_hands(looked)
    with wire:
        wire.sock.setblocking(False)
        return comes_true(partial(_has_ended, wire.sock), looked.patience)


def _logged_to(looked: Looked) -> str:
    """The access log that a request is told in."""
    mark = f"/mark-{time.monotonic_ns()}"
    looked.ask(mark)

    def found() -> str:
        logs = [each for each in looked.folder.glob("access-*") if mark in each.read_text()]
        return logs[0].name if logs else ""

    return str(wait_until(found, "a line in an access log"))


def _told_by(looked: Looked) -> str:
    """What was called when the last worker had ended."""
    path = looked.folder / "told"
    looked.end_worker()
    said = str(wait_until(lambda: path.exists() and path.read_text(), "the call"))
    path.unlink()
    return said


def _is_hung_after(looked: Looked) -> str:
    """How many seconds a worker may hang: as its end is told."""
    began, victim = len(looked.service.log), looked.service.workers["0"]
    with Wire(looked.service.address) as wire:
        wire.send("/hang")
        looked.service.expect_worker("0", victim)
    found = re.search(r"was silent for (\d+)", looked.service.log[began:])
    assert found is not None
    return found[1]


def _is_recycled(looked: Looked) -> bool:
    """Whether a worker is replaced soon after ten requests."""
    before = looked.service.workers["0"]
    for _ in range(10):
        looked.ask()
    return comes_true(lambda: looked.service.workers["0"] != before, looked.patience)


def _meets(looked: Looked) -> int:
    """How many requests are with the application at once, of five."""
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(looked.service.address)) for _ in range(5)]
        for wire in wires:
            wire.send("/meet")
        return max(int(json.loads(_body(wire))["most"]) for wire in wires)


def _body(wire: Wire) -> bytes:
    response = wire.receive()
    assert response is not None
    return response.body


def _certificate_of(looked: Looked) -> str:
    with _secured(looked, "certificate") as sock:
        found = sock.getpeercert()
        assert found is not None
        return str(found["serialNumber"])


def _lets_strangers_in(door: str) -> Look:
    """Whether a client without a certificate is served."""

    def look(looked: Looked) -> bool:
        try:
            with _secured(looked, door) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                return bool(sock.recv(1))
        except (ssl.SSLError, ConnectionError):
            return False

    return look


def _announces_http3(looked: Looked) -> bool:
    with _secured(looked, "http3") as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        reader = ResponseReader()
        while (response := reader.feed(sock.recv(65536))) is None:
            pass
        return b"alt-svc" in response.headers


def _secured(looked: Looked, door: str) -> ssl.SSLSocket:
    address = looked.doors[door]
    plain = socket.create_connection((address.host, address.port), timeout=10.0)
    return looked.trust.wrap_socket(plain, server_hostname="a.example")


def _is_plain(looked: Looked) -> bool:
    """Whether a client that sends no PROXY header is served."""
    with Wire(looked.doors["proxy_protocol"]) as wire:
        wire.send("/")
        return wire.receive() is not None


FORWARDED = ("X-Forwarded-For: 192.0.2.1", 'Forwarded: for="192.0.2.2"')
SYNC = 'execution = "sync"\nloop = "asyncio"'
WSGI = 'app = "reporting:both"\nlifespan = "off"'

SERVICE = {
    "app": Change('"reporting:app"', '"reporting:other"', reported("app")),
    "interface": Change(
        '"asgi"', '"wsgi"', lambda looked: looked.ask().headers[b"x-interface"], base=WSGI
    ),
    "directory": Change('"{folder}/current"', '"{folder}/current/."', reported("release")),
    "environment": Change('{ SHOP = "a" }', '{ SHOP = "b" }', reported("environment")),
    "workers": Change("1", "2", lambda looked: len(_status(looked)["generations"][-1]["workers"])),
    "worker_ended": Change(
        '"reporting:told_of"', '"reporting:also_told_of"', _told_by, processes_only=True
    ),
    "loop": Change('"asyncio"', '"uvloop"', reported("loop")),
    "execution": Change('"async"', '"sync"', reported("thread")),
    "threads": Change("2", "4", _meets, base=SYNC),
    "lifespan": Change('"on"', '"off"', reported("lifespan")),
    "max_requests": Change("5", "0", _is_recycled, base="max_draining = 9"),
    "max_memory": Change("900000000", "900000001", own("max_memory")),
    "keep_alive_timeout": Change("0.5", "60", ends("", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
    "header_timeout": Change("0.5", "60", ends("", "GET / HTTP/1.1\r\nHost: a\r\n")),
    "body_timeout": Change(
        "0.5", "60", ends("", "PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
    ),
    "idle_exit": Change("600", "601", lambda looked: _status(looked)["idle_exit"]),
    "write_timeout": Change("40", "41", own("write_timeout")),
    "startup_timeout": Change("40", "41", own("startup_timeout")),
    "event_stream_timeout": Change("4", "5", own("event_stream_timeout")),
    "worker_timeout": Change(
        "1", "3", _is_hung_after, base="max_draining = 8", processes_only=True
    ),
    "max_request_line": Change("500", "2000", status_of("/" + "a" * 1000)),
    "max_header_count": Change("20", "60", status_of("/", *[f"x-{n}: a" for n in range(40)])),
    "max_header_size": Change("2000", "9000", status_of("/", *["x: " + "a" * 4000])),
    "max_body_size": Change("100", "0", _uploads),
    "max_stored_size": Change("4000000", "5000000", own("max_stored_size")),
    "max_connections": Change("400", "401", own("max_connections")),
    "max_requests_per_connection": Change("2", "4", _answers_in_a_row),
    "root_path": Change('"/a"', '"/b"', reported("root_path")),
    "forwarded_allow": Change('["127.0.0.1"]', "[]", reported("client", *FORWARDED)),
    "forwarded_fields": Change(
        '"x-forwarded"', '"forwarded"', reported("client", *FORWARDED), base="max_draining = 7"
    ),
    "server_header": Change("true", "false", has_field(b"server")),
    "date_header": Change("true", "false", has_field(b"date")),
    "websocket_max_size": Change("100", "2000", _echoes),
    "websocket_max_memory": Change("40000000", "50000000", own("websocket_max_memory")),
    "websocket_ping_interval": Change("0.5", "60", _pings),
    "websocket_ping_timeout": Change(
        "0.5", "60", _gives_up_silent_websockets, base="websocket_ping_interval = 0.5"
    ),
    "websocket_compression": Change("true", "false", _compresses),
    "access_log": Change('"{folder}/access-one"', '"{folder}/access-two"', _logged_to),
    "log_level": Change('"info"', '"debug"', lambda looked: ") started" in looked.end_worker()),
    "log_format": Change('"text"', '"json"', lambda looked: '{"' in looked.end_worker()),
}
LISTENER = {
    "proxy_protocol": Change("proxy_protocol = false", "proxy_protocol = true", _is_plain),
    "certificate": Change("{pair:one}", "{pair:two}", _certificate_of),
    "client_certificates": Change(
        '{pair:one}\nclient_ca = "{folder}/authority.pem"\nclient_certificates = "optional"',
        '{pair:one}\nclient_ca = "{folder}/authority.pem"\nclient_certificates = "required"',
        _lets_strangers_in("client_certificates"),
    ),
    "http3": Change(
        "{pair:one}\nhttp3 = true", "{pair:one}", _announces_http3, base="max_draining = 6"
    ),
}
WITH_ANOTHER = {"key": "certificate", "client_ca": "client_certificates"}
# What a reload cannot change, which the log says.
FIXED = {"listen", "worker_mode", "control", "max_restarts", "restart_window"}
# It acts at a stop, and has a test of its own.
AT_AN_END = {"shutdown_timeout"}
# These act at a reload, which takes them from its own plan: nothing has an old effect.
AT_A_RELOAD = {"deploy", "reload_timeout", "max_draining"}
# An interpreter belongs to the process until each generation has its own.
OF_THE_INTERPRETER = {"virtualenv"}


def _status(looked: Looked) -> Any:
    return Controlled(looked.service, looked.folder / "control").status()


def test_every_option_is_in_one_of_the_tables() -> None:
    known = {*SERVICE, *FIXED, *AT_AN_END, *AT_A_RELOAD, *OF_THE_INTERPRETER}
    assert known == {each.name for each in fields(ServerConfig)}
    known = {*LISTENER, *WITH_ANOTHER, "address", "name"}
    assert known == {each.name for each in fields(Listen)}


GROUPS = sorted({each.base for each in (*SERVICE.values(), *LISTENER.values())})


class Deployment:
    """The releases and the configuration of a service with options of one group."""

    def __init__(self, folder: Path, mode: str, base: str) -> None:
        self.folder = folder
        self.mode = mode
        self.base = base
        self.authority = Authority()
        self.authority.write(folder)
        for name in ("one", "two"):
            self.authority.issue("a.example").write(folder, name)
        for name in ("one", "two", "three"):
            (folder / name).mkdir()
            shutil.copy(APPS / "reporting.py", folder / name)
            (folder / name / "release.txt").write_text(name)
        (folder / "two" / "reporting.py").write_text(BROKEN)

    def changes(self, table: Mapping[str, Change]) -> dict[str, Change]:
        """Those of this group and mode."""
        return {
            name: each
            for name, each in table.items()
            if each.base == self.base and (self.mode == "process" or not each.processes_only)
        }

    def deploy(self, release: str, *, new: bool, doors: Mapping[str, str]) -> None:
        """Have the next generation made of *release*, with the *new* options or the old ones."""
        link = self.folder / "next"
        link.symlink_to(release)
        link.rename(self.folder / "current")
        lines = [f"{name} = {self._value(each, new=new)}" for name, each in self._service.items()]
        for name, address in doors.items():
            lines += ["[[listen]]", f'address = "{address}"']
            if name in LISTENER:
                lines.append(self._value(LISTENER[name], new=new))
        (self.folder / "service.toml").write_text("\n".join([*self._base(), *lines, ""]))

    @property
    def _service(self) -> dict[str, Change]:
        return self.changes(SERVICE)

    def _base(self) -> list[str]:
        common = {
            "app": '"reporting:app"',
            "directory": '"{folder}/current"',
            "worker_mode": f'"{self.mode}"',
            "control": '"{folder}/control"',
        }
        named = {*self._service, *(line.partition(" ")[0] for line in self.base.splitlines())}
        lines = [f"{name} = {value}" for name, value in common.items() if name not in named]
        return [self._filled(line) for line in (*self.base.splitlines(), *lines)]

    def _value(self, change: Change, *, new: bool) -> str:
        return self._filled(change.new if new else change.old)

    def _filled(self, text: str) -> str:
        for name in ("one", "two"):
            pair = f'certificate = "{self.folder}/{name}.pem"\nkey = "{self.folder}/{name}.key"'
            text = text.replace(f"{{pair:{name}}}", pair)
        return text.replace("{folder}", str(self.folder))


@contextmanager
def deployed(deployment: Deployment) -> Iterator[tuple[Looked, Mapping[str, str]]]:
    """Start it with the old options; the addresses that are in its configuration, too."""
    with ExitStack() as stack:
        doors, addresses, passed = {}, {}, []
        for name in ("", *deployment.changes(LISTENER)):
            if name == "http3":
                doors[name] = f"127.0.0.1:{free_port()}"
                addresses[name] = Address.parse(doors[name])
                continue
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            passed.append(listener.fileno())
            doors[name] = f"fd:{listener.fileno()}"
            addresses[name] = Address.parse("{}:{}".format(*listener.getsockname()))
        deployment.deploy("one", new=False, doors=doors)
        folder = deployment.folder
        command = [str(PYTHON), "-m", "pounce", "serve", "--config", str(folder / "service.toml")]
        process = stack.enter_context(running(command, folder / "log", *passed))
        service = Service(process, addresses[""], folder / "log")
        service.wait_for_start()
        trust = ssl.create_default_context(cafile=folder / "authority.pem")
        yield Looked(service, addresses, folder, trust, PATIENCE), doors


@both_modes
@pytest.mark.parametrize("base", GROUPS, ids=lambda base: base.partition("\n")[0] or "most")
def test_a_failed_reload_changes_no_option(
    base: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    deployment = Deployment(tmp_path, mode, base)
    changes = deployment.changes(SERVICE) | deployment.changes(LISTENER)
    if "http3" in changes:
        pytest.importorskip("aioquic")
    if not changes:
        pytest.skip("these options are for processes")
    with deployed(deployment) as (looked, doors):
        before = _look(looked, changes)
        deployment.deploy("two", new=True, doors=doors)
        looked.service.send_signal(signal.SIGHUP)
        looked.service.expect("reload failed, the old code still serves")
        failed = _look(looked, changes)
        looked.end_worker()
        respawned = _look(looked, changes)
        deployment.deploy("three", new=True, doors=doors)
        looked.service.reload(3)
        renewed = _look(replace(looked, patience=NEVER), changes)
    _tell(mode, before, failed, respawned, renewed)
    assert failed == before
    assert respawned == before
    unchanged = [name for name in changes if renewed[name] == before[name]]
    assert not unchanged, "a reload that succeeds changes nothing: the look proves nothing"


def _look(looked: Looked, changes: Mapping[str, Change]) -> dict[str, Any]:
    return {name: change.look(looked) for name, change in changes.items()}


def _tell(mode: str, *looks: Mapping[str, Any]) -> None:
    """Print the table: pytest shows it with -rP."""
    lines = ["| option | mode | before | after the failure | in a new worker | after a good one |"]
    for name in looks[0]:
        told = " | ".join(str(each[name]).strip()[:24] for each in looks)
        lines.append(f"| {name} | {mode} | {told} |")
    sys.stdout.write("\n".join([*lines, ""]))


@both_modes
@pytest.mark.parametrize(("release", "seconds"), [("two", 7), ("three", 8)])
def test_a_stop_takes_as_long_as_the_generation_that_serves_may(
    release: str, seconds: int, mode: str, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, mode, "shutdown_timeout = 7")
    with deployed(deployment) as (looked, doors):
        deployment.base = "shutdown_timeout = 8"
        deployment.deploy(release, new=True, doors=doors)
        looked.service.send_signal(signal.SIGHUP)
        looked.service.expect("reload failed|generation 2 has taken over")
        looked.service.send_signal(signal.SIGTERM)
        looked.service.expect(f"stopping, as asked; at most {seconds} s to drain")
        assert looked.service.wait() == 0
