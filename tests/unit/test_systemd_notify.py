"""What systemd is told, message by message, through a real datagram socket."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pounce.events.lifecycle import (
    BudgetSpent,
    GenerationReady,
    HealthChecked,
    Kind,
    LifecycleEvent,
    Phase,
    ReloadCompleted,
    ReloadFailed,
    ReloadStarted,
    Slot,
    Stopped,
    Stopping,
    WorkerFailed,
    WorkerReady,
)
from pounce.systemd.notify import SystemdNotifier

READY = GenerationReady(generation=1, workers=4)
STOPPING = Stopping(reason="SIGTERM", timeout=30)
FAILED = WorkerFailed(
    generation=1, slot=Slot(Kind.HTTP), target_id=7, reason="No module named 'shop'\nTrace…"
)
Tell = Callable[[LifecycleEvent], list[str]]


def health(
    phase: Phase = Phase.SERVING,
    *,
    generation: int = 1,
    ready: int = 4,
    connections: int = 0,
    draining: int = 0,
    elapsed: float = 0,
    timeout: float = 0,
    silent: float = 0,
    command: str = "",
) -> HealthChecked:
    return HealthChecked(
        phase=phase,
        generation=generation,
        ready_workers=ready,
        workers=4,
        connections=connections,
        draining_connections=draining,
        can_serve=ready > 0,
        phase_elapsed=elapsed,
        phase_timeout=timeout,
        silent_for=silent,
        command=command,
    )


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The service manager's end of NOTIFY_SOCKET."""
    abstract = f"@pounce-test-{os.getpid()}"
    address = str(tmp_path / "notify") if request.param == "path" else abstract
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "1")
        yield sock


@pytest.fixture
def tell(manager: socket.socket) -> Iterator[Tell]:
    """Give the notifier an event and get the variables it sent, one message at most."""
    notifier = SystemdNotifier()

    def tell(event: LifecycleEvent) -> list[str]:
        notifier.collect(event)
        try:
            message = manager.recv(4096).decode()
        except BlockingIOError:
            return []
        with pytest.raises(BlockingIOError):
            manager.recv(1)
        return message.split("\n")

    yield tell
    notifier.close()


def test_ready_is_sent_once_with_the_status(tell: Tell) -> None:
    assert tell(WorkerReady(generation=1, slot=Slot(Kind.HTTP), target_id=7)) == []
    assert tell(READY) == ["READY=1", "STATUS=Serving generation 1, 4 workers"]
    assert tell(GenerationReady(generation=2, workers=4)) == []


def test_the_variable_is_removed_so_that_children_stay_silent(tell: Tell) -> None:
    assert "NOTIFY_SOCKET" not in os.environ


def test_the_watchdog_is_fed_only_while_requests_can_be_served(tell: Tell) -> None:
    tell(READY)
    assert tell(health(ready=4)) == ["WATCHDOG=1"]
    assert tell(health(ready=0)) == ["STATUS=Cannot serve: no worker of generation 1 is ready"]
    assert tell(health(ready=0)) == []


@pytest.mark.parametrize(("silent", "fed"), [(0.9, True), (1.1, False)])
def test_the_watchdog_is_not_fed_when_no_worker_has_beaten_for_half_its_time(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, silent: float, fed: bool
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    notifier = SystemdNotifier()
    notifier.collect(health(silent=silent))
    notifier.close()
    sent = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += manager.recv(4096)
    assert (b"WATCHDOG=1" in sent) == fed


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (health(draining=1), "Serving generation 1, 4 workers, 1 connection draining"),
        (
            health(generation=3, draining=2),
            "Serving generation 3, 4 workers, 2 connections draining",
        ),
        (health(ready=2), "Degraded: serving generation 1, 2 of 4 workers"),
        (health(Phase.STARTING, ready=3), "Starting generation 1, 3 of 4 workers ready"),
        (
            health(Phase.STARTING, ready=0, command="manage.py\nmigrate"),
            "Starting generation 1, running 'manage.py\\nmigrate'",
        ),
        (health(Phase.STOPPING, connections=3, draining=2), "Stopping, 3 connections left"),
    ],
)
def test_status(tell: Tell, event: LifecycleEvent, status: str) -> None:
    tell(READY)
    assert tell(event)[-1] == f"STATUS={status}"


def test_the_status_names_the_command_that_a_reload_runs(tell: Tell) -> None:
    tell(READY)
    tell(ReloadStarted(2))
    serving = "STATUS=Serving generation 1, 4 workers"
    running = tell(health(Phase.RELOADING, timeout=60, command="x" * 300))[-1]
    assert running == f"{serving}; starting generation 2, running '{'x' * 199}…"
    assert tell(health(Phase.RELOADING, timeout=60))[-1] == f"{serving}; starting generation 2"
    tell(health(Phase.RELOADING, timeout=60, command="migrate"))
    assert tell(ReloadCompleted(2))[-1] == "STATUS=Serving generation 2, 4 workers"


def test_a_spent_budget_is_told_until_every_worker_is_back(tell: Tell) -> None:
    tell(READY)
    assert tell(BudgetSpent(restarts=30, window=60)) == []
    assert tell(health(ready=1))[-1].endswith("; 30 restarts in 60 s, no more for now")
    assert tell(health(ready=4))[-1] == "STATUS=Serving generation 1, 4 workers"


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STOPPING])
def test_a_start_or_stop_is_extended_until_its_own_deadline(tell: Tell, phase: Phase) -> None:
    extension = "EXTEND_TIMEOUT_USEC=30000000"
    assert extension in tell(health(phase, elapsed=1, timeout=600))
    assert extension in tell(health(phase, elapsed=599, timeout=600))
    assert extension not in tell(health(phase, elapsed=600, timeout=600))


def test_serving_is_never_extended(tell: Tell) -> None:
    assert not any(state.startswith("EXTEND") for state in tell(health(elapsed=1, timeout=600)))


def test_a_failed_start_is_told_in_one_line(tell: Tell) -> None:
    assert tell(FAILED) == ["STATUS=Start failed: No module named 'shop'"]


def test_a_worker_that_fails_later_is_no_failed_start(tell: Tell) -> None:
    tell(READY)
    assert tell(FAILED) == []


def test_a_status_is_utf_8_and_bounded(tell: Tell) -> None:
    message = "配置\udcff" + "x" * 5000
    [status] = tell(WorkerFailed(generation=1, slot=Slot(Kind.HTTP), target_id=7, reason=message))
    assert status.startswith("STATUS=Start failed: 配置\\udcffx")
    assert len(status) < 300


def test_a_reload(tell: Tell) -> None:
    tell(READY)
    before = time.monotonic_ns() // 1000
    reloading, clock, status = tell(ReloadStarted(generation=2))
    assert reloading == "RELOADING=1"
    assert status == "STATUS=Serving generation 1, 4 workers; starting generation 2"
    assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert tell(GenerationReady(generation=2, workers=3)) == []
    assert tell(ReloadCompleted(generation=2)) == [
        "READY=1",
        "STATUS=Serving generation 2, 3 workers",
    ]


def test_a_failed_reload_is_told_until_the_next_one(tell: Tell) -> None:
    failure = "Serving generation 1, 4 workers; reload failed: SyntaxError: invalid syntax"
    tell(READY)
    tell(ReloadStarted(generation=2))
    failed = ReloadFailed(generation=2, reason="SyntaxError: invalid syntax\nTraceback")
    assert tell(failed) == ["READY=1", f"STATUS={failure}"]
    assert tell(health()) == ["WATCHDOG=1"]
    tell(ReloadStarted(generation=3))
    assert tell(ReloadCompleted(generation=3))[-1] == "STATUS=Serving generation 3, 4 workers"


def test_stopping_is_final(tell: Tell) -> None:
    tell(READY)
    tell(ReloadStarted(generation=2))
    assert tell(STOPPING) == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=30000000",
        "STATUS=Stopping: SIGTERM",
    ]
    assert tell(ReloadFailed(generation=2, reason="stopped")) == []


def test_the_last_status_says_why_the_service_does_not_run(tell: Tell) -> None:
    tell(READY)
    tell(STOPPING)
    tell(health(Phase.STOPPING))
    assert tell(Stopped()) == ["STATUS=Stopped: SIGTERM"]


def test_after_a_failed_start_it_says_that(tell: Tell) -> None:
    tell(FAILED)
    tell(STOPPING)
    assert tell(Stopped()) == ["STATUS=Start failed: No module named 'shop'"]


def flood(manager: socket.socket) -> None:
    """Fill the queue of *manager*."""
    for _ in range(8):  # a sender's own buffer may fill before the receiver's queue does
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.sendto(b"x", manager.getsockname())


def read_flood(manager: socket.socket) -> list[bytes]:
    """Empty the queue of *manager*; what else was in it."""
    messages = []
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(manager.recv(4096))
    return [each for each in messages if each != b"x"]


def test_what_a_full_queue_does_not_take_is_sent_later(manager: socket.socket) -> None:
    notifier = SystemdNotifier()
    flood(manager)
    start = time.monotonic()
    notifier.collect(READY)
    for _ in range(2000):
        notifier.send("STATUS=busy")
    assert time.monotonic() - start < 25  # one that waited would have taken a second each
    assert read_flood(manager) == []
    notifier.collect(health(ready=4))
    first, *others = read_flood(manager)
    assert first.startswith(b"READY=1\n")
    assert len(others) < 2000
    notifier.close()


def test_a_full_queue_loses_no_descriptor(manager: socket.socket) -> None:
    notifier = SystemdNotifier()
    flood(manager)
    ours, theirs = socket.socketpair()
    notifier.send("FDSTORE=1", [theirs.fileno()])
    theirs.close()
    read_flood(manager)
    notifier.finish(10)
    data, [descriptor], _, _ = socket.recv_fds(manager, 4096, 1)
    assert data == b"FDSTORE=1"
    with ours, socket.socket(fileno=descriptor) as stored:
        ours.send(b"still there")
        assert stored.recv(100) == b"still there"
    notifier.close()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, ""),
        ("", ""),
        ("/nonexistent/notify", "No such file or directory"),
        ("vsock:2:1", "is no unix socket"),
    ],
)
def test_without_a_listening_manager_it_is_silent(
    address: str | None,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notifier = SystemdNotifier()
    notifier.collect(READY)
    notifier.collect(STOPPING)
    notifier.close()
    assert len(caplog.messages) == bool(why)
    assert why in caplog.text
    assert f"NOTIFY_SOCKET={address}" in caplog.text or not why


def test_a_manager_that_is_gone_is_warned_of_once(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = SystemdNotifier()
    notifier.collect(READY)
    manager.close()
    notifier.collect(health(ready=3))
    notifier.collect(STOPPING)
    notifier.close()
    [message] = caplog.messages
    assert message.startswith("the service manager cannot be told how the service fares: ")


@pytest.mark.parametrize(
    ("microseconds", "pid", "pings"),
    [
        ("1", None, 2),  # each health check is due
        ("1", "mine", 2),
        ("3600000000", None, 1),
        ("1", "1", 0),
        ("soon", None, 0),
        (None, None, 0),
    ],
)
def test_the_watchdog_is_fed_as_often_as_it_asks(
    microseconds: str | None,
    pid: str | None,
    pings: int,
    manager: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "mine" else value)
    notifier = SystemdNotifier()
    for _ in range(2):
        notifier.collect(health())
    notifier.close()
    sent = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += manager.recv(4096)
    assert sent.count(b"WATCHDOG=1") == pings
    assert not {"WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
