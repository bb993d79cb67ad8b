"""What goes into systemd's descriptor store and comes out, with a real socket as systemd's."""

import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pounce.ipc.handover import Passage
from pounce.systemd.fdstore import ConnectionStore, descriptor_store_is_on
from pounce.systemd.notify import SystemdNotifier

CONNECTION, NOTE = "pounce-store-connection", "pounce-store-note"
PATIENCE = 25.0


class Manager:
    """The service manager: a store that does what sd_notify(3) says."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)
        self.stored: list[tuple[str, int]] = []
        self.removed: list[str] = []
        self.barriers = 0

    def close(self) -> None:
        self._socket.close()
        for _, descriptor in self.stored:
            os.close(descriptor)

    def read_until_barrier(self) -> None:
        barriers = self.barriers
        while self.barriers == barriers:
            self.read()

    def read(self) -> None:
        message, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 10)
        states = dict(line.split("=", 1) for line in message.decode().splitlines())
        if "FDSTORE" in states:
            [descriptor] = descriptors
            self.stored.append((states["FDNAME"], descriptor))
        elif "FDSTOREREMOVE" in states:
            self.removed.append(states["FDNAME"])
            for each in [each for each in self.stored if each[0] == states["FDNAME"]]:
                self.stored.remove(each)
                os.close(each[1])
        elif "BARRIER" in states:
            [descriptor] = descriptors
            os.close(descriptor)
            self.barriers += 1

    def hand_out(self) -> list[tuple[str, int]]:
        """Descriptors for the next run, as LISTEN_FDS has them; the store keeps its own."""
        return [(name, os.dup(descriptor)) for name, descriptor in self.stored]


@pytest.fixture
def manager(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    manager = Manager(tmp_path / "notify")
    stack.callback(manager.close)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return manager


@pytest.fixture
def notifier(stack: ExitStack, manager: Manager) -> SystemdNotifier:
    notifier = SystemdNotifier()
    stack.callback(notifier.close)
    return notifier


def connected(
    stack: ExitStack, family: int = socket.AF_INET
) -> tuple[socket.socket, socket.socket]:
    """A server's end, and its client's."""
    if family == socket.AF_UNIX:
        server, client = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
    client.settimeout(PATIENCE)
    return stack.enter_context(server), stack.enter_context(client)


def finish(store: ConnectionStore, manager: Manager) -> None:
    """Let the store finish while the manager reads."""
    thread = threading.Thread(target=manager.read_until_barrier)
    thread.start()
    store.finish()
    thread.join(PATIENCE)


def test_the_next_run_gets_back_what_was_kept(
    stack: ExitStack, manager: Manager, notifier: SystemdNotifier
) -> None:
    store = ConnectionStore(notifier, [])
    assert store.recover() == []
    passages = {}
    clients = {}
    for number in range(3):
        server, client = connected(stack)
        server_port, client_port = server.getsockname()[1], server.getpeername()[1]
        passage = Passage(
            "http",
            ("127.0.0.1", server_port),
            ("127.0.0.1", client_port),
            number,
            b"GET \xff"[: 2 * number],
        )
        passages[client_port], clients[client_port] = passage, client
        store.keep(server, passage)
        assert server.fileno() == -1
    finish(store, manager)
    assert [name for name, _ in manager.stored] == [CONNECTION] * 3 + [NOTE]

    later = ConnectionStore(notifier, manager.hand_out())
    recovered = later.recover()
    assert len(recovered) == 3
    for connection, passage in recovered:
        port = connection.getpeername()[1]
        assert passage == passages[port]
        with connection:
            connection.sendall(b"still open")
        assert clients[port].recv(100) == b"still open"


def test_the_store_forgets_when_it_is_told(
    stack: ExitStack, manager: Manager, notifier: SystemdNotifier
) -> None:
    store = ConnectionStore(notifier, [])
    server, client = connected(stack)
    store.keep(server, Passage("http", None, None, 1))
    finish(store, manager)
    later = ConnectionStore(notifier, manager.hand_out())
    [(connection, _)] = later.recover()
    later.forget()
    manager.read()
    manager.read()
    assert manager.stored == []
    connection.close()
    assert client.recv(1) == b"", "somebody still holds it"


def test_memory_is_kept_from_when_it_is_told(manager: Manager, notifier: SystemdNotifier) -> None:
    for run in range(3):
        store = ConnectionStore(notifier, manager.hand_out())
        earlier = store.recall("scoreboard")
        assert (earlier is None) == (run == 0)
        if earlier is not None:
            assert os.pread(earlier, 10, 0) == b"%d" % (run - 1)
            os.close(earlier)
        descriptor = os.memfd_create("scoreboard")
        os.write(descriptor, b"%d" % run)
        store.remember("scoreboard", descriptor)
        manager.read()
        manager.read()
        os.close(descriptor)
        assert [name for name, _ in manager.stored] == ["pounce-store-scoreboard"]


def note(text: str) -> tuple[str, int]:
    descriptor = os.memfd_create("note")
    os.write(descriptor, text.encode())
    return NOTE, descriptor


NOTES = ["", '{"passages"', '{"colour": "red"}', '{"passages": {}}']


@pytest.mark.parametrize("text", NOTES)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_without_a_note_the_socket_tells(
    stack: ExitStack, notifier: SystemdNotifier, family: int, text: str
) -> None:
    server, client = connected(stack, family)
    stored = [(CONNECTION, server.detach()), note(text)]
    [(connection, passage)] = ConnectionStore(notifier, stored).recover()
    with connection:
        if family == socket.AF_INET:
            assert passage == Passage("http", client.getpeername(), client.getsockname(), 1)
        else:
            assert passage == Passage("http", ("", None), None, 1)


def test_a_note_of_another_version_is_no_obstacle(
    stack: ExitStack, notifier: SystemdNotifier
) -> None:
    server, client = connected(stack)
    inode = str(os.fstat(server.fileno()).st_ino)
    text = json.dumps({"passages": {inode: {"scheme": "http", "colour": "red"}}})
    stored = [(CONNECTION, server.detach()), note(text)]
    [(connection, passage)] = ConnectionStore(notifier, stored).recover()
    with connection:
        assert passage.client == client.getsockname()


def test_a_client_that_has_left_is_forgotten(stack: ExitStack, notifier: SystemdNotifier) -> None:
    server, client = connected(stack)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()  # with a reset
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    store = ConnectionStore(notifier, [(CONNECTION, server.detach())])
    assert store.recover() == []


def test_without_a_service_manager_nothing_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = SystemdNotifier()
    store = ConnectionStore(notifier, [])
    server, client = connected(stack)
    store.keep(server, Passage("http", None, None, 1))
    store.finish()
    assert client.recv(1) == b""


@pytest.mark.parametrize(("value", "on"), [("16384", True), ("0", False), ("", False)])
def test_systemd_says_whether_there_is_a_store(
    monkeypatch: pytest.MonkeyPatch, value: str, on: bool
) -> None:
    monkeypatch.setenv("FDSTORE", value)
    assert descriptor_store_is_on() == on
    assert "FDSTORE" not in os.environ


# What pounce has not put there


def memory(stack: ExitStack, name: str) -> tuple[str, int]:
    return name, os.memfd_create(name)


def pipe(stack: ExitStack, name: str) -> tuple[str, int]:
    reader, writer = os.pipe()
    stack.callback(os.close, writer)
    return name, reader


def listener(stack: ExitStack, name: str) -> tuple[str, int]:
    return name, socket.create_server(("127.0.0.1", 0)).detach()


def datagram(stack: ExitStack, name: str) -> tuple[str, int]:
    return name, socket.socket(type=socket.SOCK_DGRAM).detach()


def endless(stack: ExitStack, name: str) -> tuple[str, int]:
    return name, os.open("/dev/zero", os.O_RDONLY)


def closed(stack: ExitStack, name: str) -> tuple[str, int]:
    descriptor = os.dup(0)
    os.close(descriptor)
    return name, descriptor


def opened_again(name: str, flags: int) -> tuple[str, int]:
    descriptor = os.memfd_create(name)
    try:
        return name, os.open(f"/proc/self/fd/{descriptor}", flags)
    finally:
        os.close(descriptor)


def path_alone(stack: ExitStack, name: str) -> tuple[str, int]:
    return opened_again(name, os.O_PATH)


def write_only(stack: ExitStack, name: str) -> tuple[str, int]:
    return opened_again(name, os.O_WRONLY)


def path_of_a_socket(stack: ExitStack, name: str) -> tuple[str, int]:
    directory = Path(stack.enter_context(TemporaryDirectory()))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "s"))
        return name, os.open(directory / "s", os.O_PATH)


UNREADABLE = (path_alone, write_only)
STRANGE = [
    *((CONNECTION, make) for make in (memory, pipe, listener, datagram, closed, path_of_a_socket)),
    *((NOTE, make) for make in (pipe, listener, endless, closed, *UNREADABLE)),
    *(("pounce-store-scoreboard", make) for make in (pipe, listener, endless, *UNREADABLE)),
    *(("pounce-store-quic-secret", make) for make in (pipe, *UNREADABLE)),
    *((name, memory) for name in ("pounce-store-", "pounce-store-other", "stored")),
]


@pytest.mark.parametrize(("name", "make"), STRANGE)
def test_what_cannot_be_used_is_dropped(
    stack: ExitStack,
    manager: Manager,
    notifier: SystemdNotifier,
    caplog: pytest.LogCaptureFixture,
    name: str,
    make: Callable[[ExitStack, str], tuple[str, int]],
) -> None:
    server, _client = connected(stack)
    good = (CONNECTION, os.dup(server.fileno()))
    bad = [make(stack, name) for _ in range(3)]
    store = ConnectionStore(notifier, [*bad, good])
    [(connection, _)] = store.recover()
    connection.close()
    assert store.recall("scoreboard") is None
    for _, descriptor in bad:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    [record] = caplog.records
    assert record.getMessage().startswith(f"dropped from the descriptor store: 3 as {name}, ")
    store.forget()
    while name not in manager.removed:
        manager.read()


def test_thousands_of_strange_things_are_one_warning(
    stack: ExitStack, notifier: SystemdNotifier, caplog: pytest.LogCaptureFixture
) -> None:
    ConnectionStore(notifier, [memory(stack, CONNECTION) for _ in range(3000)])
    assert len(caplog.records) == 1


PASSAGE: dict[str, object] = {
    "scheme": "http",
    "server": ["127.0.0.1", 80],
    "client": ["127.0.0.1", 5],
    "requests": 1,
    "received": "",
}
NO_PASSAGES: list[object] = [
    None,
    [],
    "text",
    {},
    *(
        PASSAGE | {name: value}
        for name, value in [
            ("scheme", "gopher"),
            ("scheme", []),
            ("server", ["127.0.0.1"]),
            ("server", [1, 80]),
            ("server", 7),
            ("client", ["127.0.0.1", None]),
            ("client", ["127.0.0.1", "5"]),
            ("requests", -1),
            ("requests", True),
            ("requests", "1"),
            ("received", "?"),
            ("received", 5),
        ]
    ),
]


@pytest.mark.parametrize("about", NO_PASSAGES, ids=repr)
def test_a_note_of_no_passage_is_not_believed(
    stack: ExitStack, notifier: SystemdNotifier, about: object
) -> None:
    server, client = connected(stack)
    inode = str(os.fstat(server.fileno()).st_ino)
    stored = [(CONNECTION, server.detach()), note(json.dumps({"passages": {inode: about}}))]
    [(connection, passage)] = ConnectionStore(notifier, stored).recover()
    with connection:
        assert passage == Passage("http", client.getpeername(), client.getsockname(), 1)


@pytest.mark.parametrize("text", ["[]", "7", '{"passages": []}', "[" * 100_000, "\xff"])
def test_a_note_that_is_no_note(
    stack: ExitStack, notifier: SystemdNotifier, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    server, _client = connected(stack)
    store = ConnectionStore(notifier, [(CONNECTION, server.detach()), note(text)])
    [(connection, _)] = store.recover()
    connection.close()
    assert "note of the connections cannot be read" in caplog.text
