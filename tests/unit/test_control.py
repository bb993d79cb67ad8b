"""The control socket: Varlink on a real unix socket, served by the supervisor's loop."""

import json
import os
import pwd
import resource
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pounce.errors import ListenError
from pounce.loop import Loop
from pounce.varlink import server as control
from pounce.varlink.server import CallFailed, ControlServer, Fail, Parameters, Reply

PATIENCE = 25.0
NAME = "org.example.test"
DESCRIPTION = f"""\
# A test's own
interface {NAME}

method Echo(text: string) -> (text: string)
"""
INFORMATION = {"vendor": "v", "product": "p", "version": "1", "url": "u"}
GET_INFO = {"method": "org.varlink.service.GetInfo"}

Finish = Callable[[Parameters], None]


class Methods:
    """Echo answers at once; Wait when `finish` is called, on the loop's thread."""

    def __init__(self) -> None:
        self.waiting: list[Reply] = []
        self.called = threading.Semaphore(0)
        self.noted: list[str] = []

    def all(self) -> dict[str, Callable[[Parameters, Reply, Fail], None]]:
        return {f"{NAME}.Echo": self._echo, f"{NAME}.Wait": self._wait, f"{NAME}.Bad": self._bad}

    def _echo(self, parameters: Parameters, reply: Reply, _: Fail) -> None:
        self.noted.append(str(parameters.get("text")))
        reply({"text": str(parameters.get("text")) * int(parameters.get("times", 1))})

    def _wait(self, _: Parameters, reply: Reply, __: Fail) -> None:
        self.waiting.append(reply)
        self.called.release()

    def _bad(self, _: Parameters, __: Reply, fail: Fail) -> None:
        fail(CallFailed(f"{NAME}.Broken", {"reason": "as asked"}))


class Served:
    """A control socket at *path*, its loop turning in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.methods = Methods()
        self.loop = Loop()
        methods = self.methods.all()
        try:
            self.server = ControlServer(self.loop, path, DESCRIPTION, methods, INFORMATION)
        except ListenError:
            self.loop.close()
            raise
        self._over = False
        self.turns = 0
        self._thread = threading.Thread(target=lambda: self.loop.run(self._is_over))
        self._thread.start()

    def _is_over(self) -> bool:
        self.turns += 1
        return self._over

    def on_loop(self, function: Callable[[], Any]) -> None:
        """Call *function* on the loop's thread, and wait for it."""
        done = threading.Event()

        def call() -> None:
            function()
            done.set()

        self.loop.post(call)
        assert done.wait(PATIENCE)

    def close(self) -> None:
        self.on_loop(self.server.close)
        self._over = True
        self.loop.post(lambda: None)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.loop.close()


class Caller:
    """One connection to a control socket."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(path))
        self._received = b""

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *calls: dict[str, Any]) -> None:
        self.sock.sendall(b"".join(json.dumps(call).encode() + b"\0" for call in calls))

    def receive(self) -> Any:
        while b"\0" not in self._received:
            data = self.sock.recv(65536)
            assert data, "hung up"
            self._received += data
        answer, _, self._received = self._received.partition(b"\0")
        return json.loads(answer)

    def call(self, method: str, **parameters: Any) -> Any:
        self.send({"method": method, "parameters": parameters})
        return self.receive()

    def is_hung_up(self) -> bool:
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "control")
    yield served
    served.close()


@pytest.fixture
def caller(served: Served) -> Iterator[Caller]:
    with Caller(served.path) as caller:
        yield caller


def echo(text: str, **more: Any) -> dict[str, Any]:
    return {"method": f"{NAME}.Echo", "parameters": {"text": text}, **more}


# What every Varlink service answers


def test_it_tells_what_it_is(caller: Caller) -> None:
    assert caller.call("org.varlink.service.GetInfo") == {
        "parameters": {**INFORMATION, "interfaces": ["org.varlink.service", NAME]}
    }


@pytest.mark.parametrize("interface", [NAME, "org.varlink.service"])
def test_it_describes_its_interfaces(caller: Caller, interface: str) -> None:
    answer = caller.call("org.varlink.service.GetInterfaceDescription", interface=interface)
    assert f"\ninterface {interface}\n" in answer["parameters"]["description"]


SERVICE = "org.varlink.service"
ERRORS: dict[str, tuple[bytes, str, dict[str, str]]] = {
    "interface": (b'{"method": "a.b.C"}', "InterfaceNotFound", {"interface": "a.b"}),
    "bare word": (b'{"method": "Reload"}', "InterfaceNotFound", {"interface": ""}),
    "method": (
        b'{"method": "org.example.test.No"}',
        "MethodNotFound",
        {"method": "org.example.test.No"},
    ),
    "description": (
        json.dumps(
            {"method": f"{SERVICE}.GetInterfaceDescription", "parameters": {"interface": "a.b"}}
        ).encode(),
        "InterfaceNotFound",
        {"interface": "a.b"},
    ),
    "description of nothing": (
        b'{"method": "org.varlink.service.GetInterfaceDescription"}',
        "InvalidParameter",
        {"parameter": "interface"},
    ),
    "no JSON": (b"GET / HTTP/1.1\r\n\r\n", "InvalidParameter", {"parameter": "method"}),
    "no UTF-8": (b"\xff\xfe", "InvalidParameter", {"parameter": "method"}),
    "nothing": (b"", "InvalidParameter", {"parameter": "method"}),
    "no object": (b"[1]", "InvalidParameter", {"parameter": "method"}),
    "no method": (b"{}", "InvalidParameter", {"parameter": "method"}),
    "too deep": (b"[" * 60_000, "InvalidParameter", {"parameter": "method"}),
    "method is no string": (b'{"method": 1}', "InvalidParameter", {"parameter": "method"}),
    "parameters are no object": (
        b'{"method": "org.example.test.Echo", "parameters": [1]}',
        "InvalidParameter",
        {"parameter": "parameters"},
    ),
}


@pytest.mark.parametrize("message", ERRORS)
def test_a_call_that_makes_no_sense_gets_an_error(caller: Caller, message: str) -> None:
    sent, name, parameters = ERRORS[message]
    caller.sock.sendall(sent + b"\0")
    assert caller.receive() == {"error": f"{SERVICE}.{name}", "parameters": parameters}
    assert caller.call(f"{NAME}.Echo", text="still there") == {
        "parameters": {"text": "still there"}
    }


def test_a_method_answers_with_its_own_error(caller: Caller) -> None:
    assert caller.call(f"{NAME}.Bad") == {
        "error": f"{NAME}.Broken",
        "parameters": {"reason": "as asked"},
    }


# Messages and their order


def test_calls_in_one_write_are_answered_in_their_order(caller: Caller) -> None:
    texts = [str(number) * 100 for number in range(2000)]
    sender = threading.Thread(target=lambda: caller.send(*map(echo, texts)))
    sender.start()
    assert [caller.receive()["parameters"]["text"] for _ in texts] == texts
    sender.join()


def test_a_call_may_come_in_pieces(served: Served, caller: Caller) -> None:
    for byte in json.dumps(echo("slowly")).encode() + b"\0":
        caller.sock.sendall(bytes([byte]))
        served.on_loop(lambda: None)
    assert caller.receive() == {"parameters": {"text": "slowly"}}


def test_a_oneway_call_gets_no_answer(served: Served, caller: Caller) -> None:
    caller.send(echo("silent", oneway=True), echo("aloud"))
    assert caller.receive() == {"parameters": {"text": "aloud"}}
    assert served.methods.noted == ["silent", "aloud"]


def test_the_next_call_waits_for_the_answer_to_the_one_before(
    served: Served, caller: Caller
) -> None:
    caller.send({"method": f"{NAME}.Wait"}, echo("second"))
    assert served.methods.called.acquire(timeout=PATIENCE)
    with Caller(served.path) as other:
        assert other.call(f"{NAME}.Echo", text="other")  # nobody else waits for it
    assert served.methods.noted == ["other"]
    served.on_loop(lambda: served.methods.waiting.pop()({"at": "last"}))
    assert caller.receive() == {"parameters": {"at": "last"}}
    assert caller.receive() == {"parameters": {"text": "second"}}


def test_an_answer_larger_than_the_buffer_arrives_whole(served: Served, caller: Caller) -> None:
    big = {"method": f"{NAME}.Echo", "parameters": {"text": "x" * 100, "times": 30_000}}
    caller.send(big, echo("after"))
    with Caller(served.path) as other:
        assert other.call(f"{NAME}.Echo", text="meanwhile")
    assert len(caller.receive()["parameters"]["text"]) == 3_000_000
    assert caller.receive() == {"parameters": {"text": "after"}}


# Ends


def test_a_caller_that_hangs_up_before_its_answer_is_forgotten(
    served: Served, caller: Caller
) -> None:
    caller.send({"method": f"{NAME}.Wait"}, echo("never"))
    assert served.methods.called.acquire(timeout=PATIENCE)
    caller.sock.close()
    with Caller(served.path) as other:
        assert other.call(f"{NAME}.Echo", text="still there")
        served.on_loop(lambda: served.methods.waiting.pop()({}))
        assert other.call(f"{NAME}.Echo", text="and now")
    assert served.methods.noted == ["still there", "and now"]


def test_a_caller_that_leaves_amid_a_large_answer_is_forgotten(
    served: Served, caller: Caller
) -> None:
    big = {"method": f"{NAME}.Echo", "parameters": {"text": "x" * 100, "times": 30_000}}
    caller.send(big, GET_INFO)
    caller.sock.recv(10)
    caller.sock.close()
    with Caller(served.path) as other:
        assert other.call(f"{NAME}.Echo", text="still there")


def test_a_call_without_end_is_not_kept(served: Served, caller: Caller) -> None:
    with pytest.raises(ConnectionError):  # noqa: PT012 - any of the writes may be the one
        for _ in range(100):
            caller.sock.sendall(b"x" * 4096)
            served.on_loop(lambda: None)
    with Caller(served.path) as other:
        assert other.call(f"{NAME}.Echo", text="still there")


def test_closing_hangs_up_and_removes_the_path(tmp_path: Path) -> None:
    served = Served(tmp_path / "control")
    with Caller(served.path) as idle, Caller(served.path) as waiting:
        assert idle.call(f"{NAME}.Echo", text="a")
        waiting.send({"method": f"{NAME}.Wait"})
        assert served.methods.called.acquire(timeout=PATIENCE)
        served.close()
        assert idle.is_hung_up()
        assert waiting.is_hung_up()
        served.methods.waiting.pop()({})
    assert not served.path.exists()


def test_short_descriptors_do_not_keep_the_loop_busy(served: Served) -> None:
    with Caller(served.path) as early, socket.socket(socket.AF_UNIX) as late:
        assert early.call(f"{NAME}.Echo", text="a")
        with no_more_descriptors():
            late.connect(str(served.path))
            assert early.call(f"{NAME}.Echo", text="b")
            began = served.turns
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.recv(1)
            assert served.turns - began < 10
        late.settimeout(PATIENCE)
        late.sendall(json.dumps(GET_INFO).encode() + b"\0")
        assert b"interfaces" in late.recv(65536)


def test_of_too_many_callers_the_one_goes_that_was_idle_for_the_longest_time(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "_MOST_CALLERS", 3)
    with Caller(served.path) as waits, Caller(served.path) as idle, Caller(served.path) as active:
        waits.send({"method": f"{NAME}.Wait"})
        assert served.methods.called.acquire(timeout=PATIENCE)
        for each in (idle, active):
            assert each.call(f"{NAME}.Echo", text="a")
        with Caller(served.path) as another:
            assert another.call(f"{NAME}.Echo", text="a")
            assert idle.is_hung_up()
            assert active.call(f"{NAME}.Echo", text="b")
        served.on_loop(lambda: served.methods.waiting[0]({"done": True}))
        assert waits.receive() == {"parameters": {"done": True}}
    assert caplog.messages == ["the control socket has 3 callers: idle ones make room"]


def test_one_too_many_is_hung_up_on_where_all_calls_are_under_way(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_MOST_CALLERS", 1)
    with Caller(served.path) as waits:
        waits.send({"method": f"{NAME}.Wait"})
        assert served.methods.called.acquire(timeout=PATIENCE)
        with Caller(served.path) as late:
            assert late.is_hung_up()
        served.on_loop(lambda: served.methods.waiting[0]({}))
        assert waits.receive() == {"parameters": {}}


def test_a_caller_that_says_nothing_for_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_SWEEP", 0.05)
    monkeypatch.setattr(control, "_MOST_IDLE", 0.3)
    served = Served(tmp_path / "control")
    try:
        with Caller(served.path) as waits, Caller(served.path) as idle:
            waits.send({"method": f"{NAME}.Wait"})
            assert idle.is_hung_up()
            served.on_loop(lambda: served.methods.waiting[0]({}))
            assert waits.receive() == {"parameters": {}}
    finally:
        served.close()


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Who may call


def test_only_its_user_may_connect(served: Served) -> None:
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_not_heard() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    # pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        served = Served(Path(directory) / "control")
        try:
            assert said_to(nobody, served.path) == b"refused"
            # Whatever becomes of the path's mode: the kernel says who calls.
            served.path.chmod(0o666)
            assert said_to(nobody, served.path) == b""
            assert b"interfaces" in said_to(0, served.path)
        finally:
            served.close()


def said_to(uid: int, path: Path) -> bytes:
    """What a process of user *uid* gets for an answer; "refused" if it cannot even connect."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setuid(uid)
        os.write(writer, _ask(path))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    return said


def _ask(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(path))
        except PermissionError:
            return b"refused"
        try:
            sock.sendall(json.dumps(GET_INFO).encode() + b"\0")
            return sock.recv(65536)
        except ConnectionError:
            return b""


# Where it may be


def test_a_stale_path_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "control"))
    served = Served(tmp_path / "control")
    with Caller(served.path) as caller:
        assert caller.call(f"{NAME}.Echo", text="a")
    served.close()


def test_another_service_keeps_its_path(served: Served) -> None:
    with pytest.raises(ListenError, match="in use"):
        Served(served.path)
    with Caller(served.path) as caller:
        assert caller.call(f"{NAME}.Echo", text="still there")


def test_a_file_is_no_control_socket(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("precious")
    with pytest.raises(ListenError, match="a regular file"):
        Served(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "said"), [("no/control", "No such file"), ("x" * 200, "too long")]
)
def test_a_path_that_cannot_be(tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(ListenError, match=said):
        Served(tmp_path / path)
