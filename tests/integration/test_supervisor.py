"""The supervisor at work: a real `pounce serve`, seen by its clients and hurt on purpose."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from pounce.config.service import ServerConfig
from pounce.events.lifecycle import (
    GenerationReady,
    GenerationRetired,
    HealthChecked,
    Kind,
    LifecycleEvent,
    Slot,
    Stopped,
    Stopping,
    WorkerEvent,
    WorkerReady,
    WorkerStarted,
    WorkerStopped,
)
from pounce.net.address import Address
from pounce.supervisor import Supervisor
from tests.apps.load import app
from tests.load import Plan, Result, Slow, run
from tests.modes import both_modes
from tests.service import PATIENCE, Service, Wire, launched, serving, wait_until
from tests.supervised import supervised

TWO = ("--workers", "2")
TWO_PROCESSES = ("--worker-mode", "process", *TWO)


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@contextmanager
def requests_in_flight(service: Service, target: str) -> Iterator[dict[str, Wire]]:
    """A request for *target* that each of two workers is busy with, by slot."""
    wires = {slot: service.connect_to(slot) for slot in ("0", "1")}
    try:
        for wire in wires.values():
            wire.send(target)
        # A loop that has answered this has read what was sent to it before.
        for slot in wires:
            service.connect_to(slot).sock.close()
        yield wires
    finally:
        for wire in wires.values():
            wire.sock.close()


# Starting and stopping


@both_modes
def test_all_workers_serve_until_it_is_told_to_stop(tmp_path: Path, mode: str) -> None:
    with serving(tmp_path, "--worker-mode", mode, *TWO) as service:
        service.wait_for_slots("0", "1")
        with service.load() as load:
            load.wait_until(lambda result: result.workers == {"0", "1"})
            load.stop()
            load.result().assert_nothing_lost()
        assert load.result().generations == {"1"}
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert service.log.endswith("stopped\n")


@both_modes
def test_requests_in_flight_are_answered_before_it_stops(tmp_path: Path, mode: str) -> None:
    with serving(tmp_path, "--worker-mode", mode, *TWO) as service:
        with requests_in_flight(service, "/slow?ms=700") as wires:
            service.send_signal(signal.SIGTERM)
            answers = [wire.receive() for wire in wires.values()]
        assert [answer and answer.status for answer in answers] == [200, 200]
        assert all(answer and answer.closes for answer in answers)
        assert service.wait() == 0


@both_modes
def test_each_worker_has_the_whole_shutdown_timeout(tmp_path: Path, mode: str) -> None:
    flags = ("--worker-mode", mode, *TWO, "--shutdown-timeout", "1")
    with serving(tmp_path, *flags) as service:
        with requests_in_flight(service, "/slow?ms=60000") as wires:
            began = time.monotonic()
            service.send_signal(signal.SIGTERM)
            ended = {}
            for slot, wire in wires.items():
                assert wire.receive() is None
                ended[slot] = time.monotonic() - began
        assert service.wait() == 0
        assert all(seconds > 0.9 for seconds in ended.values()), ended


@both_modes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_stops_at_once(tmp_path: Path, mode: str, number: signal.Signals) -> None:
    with (
        serving(tmp_path, "--worker-mode", mode, *TWO) as service,
        requests_in_flight(service, "/slow?ms=60000"),
    ):
        service.send_signal(number)
        service.expect("stopping")
        service.send_signal(number)
        # Sooner than shutdown_timeout by far.
        assert service.wait() == 0


@pytest.mark.parametrize(
    ("mode", "target"),
    [("process", "/hang?how=sleep"), ("process", "/stubborn"), ("thread", "/hang?how=sleep")],
)
def test_a_worker_that_ignores_everything_is_ended_all_the_same(
    tmp_path: Path, mode: str, target: str
) -> None:
    flags = ("--worker-mode", mode, *TWO, "--shutdown-timeout", "0.5")
    with serving(tmp_path, *flags) as service, service.connect_to("0") as wire:
        wire.send(target)
        service.connect_to("1").sock.close()
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        end = {"process": "was killed by SIGKILL", "thread": "still runs, as nothing ends a thread"}
        service.expect(rf"worker 0 \(\d+\) took too long to end: it {end[mode]}")


# Signals that other servers know


def opened_by(service: Service, path: Path) -> bool:
    """Whether any process of *service* has the file at *path* open."""
    pids = (service.process.pid, *service.workers.values())
    opened = (each for pid in pids for each in Path(f"/proc/{pid}/fd").glob("*"))
    return any(os.path.realpath(each) == str(path) for each in opened)


@pytest.mark.parametrize(("mode", "execution"), [("process", "async"), ("thread", "sync")])
def test_usr1_opens_the_access_log_anew(tmp_path: Path, mode: str, execution: str) -> None:
    log, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    flags = ("--worker-mode", mode, "--execution", execution, *TWO, "--access-log", str(log))
    with serving(tmp_path, *flags) as service, service.connect() as wire:
        wire.get("/before")
        wait_until(lambda: "/before" in log.read_text(), "the line")
        log.rename(moved)
        # As `systemctl kill` does, which sends it to every process of the service.
        os.killpg(service.process.pid, signal.SIGUSR1)
        service.expect("SIGUSR1: the access log, if it is a file, is opened anew")
        wait_until(lambda: not opened_by(service, moved), "nobody to have the old file open")
        assert log.exists()
        wire.get("/after")
        wait_until(lambda: "/after" in log.read_text(), "the line")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
    assert "/after" not in moved.read_text()


def test_usr1_where_the_access_log_cannot_be_opened_anew(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    log = directory / "access.log"
    directory.mkdir()
    with serving(tmp_path, "--access-log", str(log)) as service:
        directory.rename(tmp_path / "moved")
        service.send_signal(signal.SIGUSR1)
        service.expect("the access log cannot be opened anew: .* No such file or directory")
        directory.mkdir()
        with service.connect() as wire:
            wire.get("/after")
        wait_until(lambda: log.exists() and "/after" in log.read_text(), "the line")


@both_modes
def test_usr2_does_nothing_but_says_what_does(tmp_path: Path, mode: str) -> None:
    with serving(tmp_path, "--worker-mode", mode) as service:
        os.killpg(service.process.pid, signal.SIGUSR2)
        service.expect("SIGUSR2 is ignored: `systemctl reload`")
        with service.connect() as wire:
            assert wire.get("/").status == 200
        assert "ended unasked" not in service.log


# Starting badly

BAD_APPLICATIONS = {
    "import": "raise LookupError('no such database')",
    "lifespan": (
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no such database'})\n"
    ),
    "lifespan exception": (
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    raise LookupError('no such database')\n"
    ),
}


@both_modes
@pytest.mark.parametrize("how", BAD_APPLICATIONS)
def test_an_application_that_does_not_start(tmp_path: Path, mode: str, how: str) -> None:
    (tmp_path / "bad.py").write_text(BAD_APPLICATIONS[how])
    flags = ("--worker-mode", mode, *TWO, "--lifespan", "on")
    with launched(tmp_path, *flags, app="bad:app", apps=tmp_path) as service:
        assert service.wait() == 70
        assert "no such database" in service.log
        assert service.log.count("Traceback") == (how != "lifespan"), service.log


@both_modes
def test_an_application_that_takes_too_long_to_start(tmp_path: Path, mode: str) -> None:
    (tmp_path / "late.py").write_text("import time\ntime.sleep(60)\n")
    flags = ("--worker-mode", mode, "--startup-timeout", "1")
    with launched(tmp_path, *flags, app="late:app", apps=tmp_path) as service:
        assert service.wait() == 70
        assert "late.py" in service.log
        assert "did not become ready: it was not ready within 1 s" in service.log


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        bind = f"127.0.0.1:{other.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "pounce", "serve", "load:app", "--bind", bind],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 71
    assert bind in done.stderr


# Crashes


def lost_in_flight_only(result: Result) -> None:
    """What a crash may cost: the requests in flight, and the connections they were on."""
    assert (result.refused, result.timed_out, result.wrong) == (0, 0, 0), result.table()
    assert result.reconnects == result.dropped + result.closed_idle, result.table()
    assert result.polite_closes == 0, result.table()


@pytest.mark.parametrize("how", ["SIGKILL", "abort"])
def test_a_crash_loses_the_requests_in_flight_and_no_others(tmp_path: Path, how: str) -> None:
    with serving(tmp_path, *TWO_PROCESSES) as service:
        first = service.workers
        service.wait_for_slots("0", "1")
        with service.load(work=Slow(50), connections=16) as load:
            load.wait_until(lambda result: result.workers == {"0", "1"})
            if how == "SIGKILL":
                os.kill(first["0"], signal.SIGKILL)
            else:
                with service.connect_to("0") as wire:
                    wire.send("/crash")
            service.expect_worker("0", first["0"])
            with service.connect_to("0"):
                load.wait_for_more(100)
        result = load.result()
        lost_in_flight_only(result)
        assert 0 < result.dropped < 16
        assert service.workers["1"] == first["1"]


def test_twenty_crashes_in_a_row(tmp_path: Path) -> None:
    with serving(tmp_path, *TWO_PROCESSES) as service, service.load(connections=16) as load:
        other = service.workers["1"]
        for _ in range(20):
            victim = service.workers["0"]
            os.kill(victim, signal.SIGKILL)
            successor = service.expect_worker("0", victim)
            with service.connect_to("0"):  # which may need some tries: workers take turns
                assert service.workers["0"] == successor
        load.wait_for_more(100)
        load.stop()
        lost_in_flight_only(load.result())
        assert service.workers["1"] == other
        assert service.log.count("was killed by SIGKILL; next one in 0 s") == 20


def test_a_spent_restart_budget_degrades_the_service_and_at_last_ends_it(tmp_path: Path) -> None:
    with serving(tmp_path, *TWO_PROCESSES, "--max-restarts", "2") as service:
        for _ in range(2):
            victim = service.workers["0"]
            os.kill(victim, signal.SIGKILL)
            service.expect_worker("0", victim)
        os.kill(service.workers["0"], signal.SIGKILL)
        service.expect("2 worker restarts in 60 s: no more")
        result = run(Plan(address=service.address, requests=500))
        result.assert_nothing_lost()
        assert result.workers == {"1"}
        os.kill(service.workers["1"], signal.SIGKILL)
        assert service.wait() == 1
        assert "the restart budget" in service.log


def test_a_worker_ends_under_a_launcher_that_ignores_its_children(tmp_path: Path) -> None:
    """An ignored SIGCHLD is inherited (execve(2)), and then nobody learns how a child ended."""
    with ExitStack() as stack:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            service = stack.enter_context(launched(tmp_path, *TWO_PROCESSES))
        finally:
            signal.signal(signal.SIGCHLD, before)
        service.wait_for_start()
        victim = service.workers["0"]
        os.kill(victim, signal.SIGKILL)
        service.expect_worker("0", victim)
        service.expect("was killed by SIGKILL")


def test_no_worker_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    with serving(tmp_path, *TWO_PROCESSES, "--shutdown-timeout", "1") as service:
        workers = service.workers
        with requests_in_flight(service, "/slow?ms=60000"):
            service.send_signal(signal.SIGKILL)
            service.wait()
            for pid in workers.values():
                wait_until(partial(ended, pid), f"the end of {pid}")


# Hangs

HANGS = [
    ("process", "busy", "spin"),
    ("process", "sleep", "hang"),
    ("process", "deadlock", "hang"),
    ("process", "native", "deadlock_in_c"),
    ("thread", "busy", "spin"),
    ("thread", "sleep", "hang"),
]

# Where no line of Python can run any more, others have to say it.
SAID = {"native": r"Request begun last: /hang$"}


@pytest.mark.parametrize(("mode", "how", "function"), HANGS)
def test_a_hung_worker_is_replaced_while_others_serve(
    tmp_path: Path, mode: str, how: str, function: str
) -> None:
    flags = ("--worker-mode", mode, *TWO, "--worker-timeout", "1")
    with serving(tmp_path, *flags) as service:
        first = service.workers
        service.wait_for_slots("0", "1")
        with ExitStack() as stack:
            load = stack.enter_context(service.load(connections=8, timeout=2, think=0.01))
            # One worker may have all of these clients; the other one is to hang then.
            slot, other = "01" if "1" in load.wait_for_more(50).workers else "10"
            wire = stack.enter_context(service.connect_to(slot))
            # Threads of an interpreter with a global lock would share it with a busy one for ever.
            wire.send(f"/hang?how={how}&ms=2500" if mode == "thread" else f"/hang?how={how}")
            load.wait_for_more(100)
            service.expect(rf"worker {slot} \({first[slot]}\) was silent for")
            service.expect(rf"line \d+,? in {function}")
            service.expect(SAID.get(how, r"GET /hang from 127\.0\.0\.1:\d+, for .* <- running"))
            service.expect(r"ended unasked: it hung; next one in 0 s")
            service.expect_worker(slot, first[slot])
            with service.connect_to(slot):
                load.wait_for_more(100)
        result = load.result()
        assert (result.refused, result.wrong) == (0, 0), result.table()
        assert service.workers[other] == first[other]


@both_modes
def test_a_request_that_waits_is_no_hang(tmp_path: Path, mode: str) -> None:
    flags = ("--worker-mode", mode, "--worker-timeout", "1")
    with serving(tmp_path, *flags) as service, service.connect() as wire:
        assert wire.get("/slow?ms=2000").status == 200
        assert "silent" not in service.log


def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    with serving(tmp_path, "--worker-mode", "process", "--worker-timeout", "1") as service:
        stopped = service.workers["0"]
        os.kill(stopped, signal.SIGSTOP)
        service.expect("was silent for")
        service.expect_worker("0", stopped)
        with service.connect() as wire:
            assert wire.get("/").status == 200
        wait_until(partial(ended, stopped), "its end")


def test_too_many_hung_threads_end_the_process(tmp_path: Path) -> None:
    flags = ("--worker-mode", "thread", "--worker-timeout", "1")
    with serving(tmp_path, *flags) as service:
        for _ in range(2):
            hung = service.workers["0"]
            with service.connect() as wire:
                wire.send("/hang?how=sleep")
                if service.process.poll() is None:
                    service.expect(rf"\({hung}\) was silent")
            if service.log.count("was silent") == 1:
                service.expect_worker("0", hung)
        assert service.wait() == 1
        assert "more threads hang" in service.log


# Embedded in another program


class Listing:
    """A collector that remembers."""

    def __init__(self) -> None:
        self.events: list[LifecycleEvent] = []

    def collect(self, event: LifecycleEvent) -> None:
        if not isinstance(event, HealthChecked):
            self.events.append(event)

    def has(self, kind: type[LifecycleEvent]) -> bool:
        return any(isinstance(event, kind) for event in self.events)


def test_a_supervisor_in_a_thread_of_another_program() -> None:
    listing = Listing()
    config = ServerConfig(workers=2)
    supervisor = Supervisor(config, app, mode="thread", lifecycle_collector=listing)
    assert (supervisor.mode, supervisor.worker_count) == ("thread", 2)
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as listener, supervised(supervisor, listener):
        wait_until(lambda: listing.has(GenerationReady), "ready")
        address = Address.parse("{}:{}".format(*listener.getsockname()))
        run(Plan(address=address, requests=200)).assert_nothing_lost()
    assert signal.getsignal(signal.SIGTERM) is before
    for slot in (0, 1):
        life = [type(event) for event in listing.events if is_about(slot, event)]
        assert life == [WorkerStarted, WorkerReady, WorkerStopped]
    story = [type(event) for event in listing.events if not isinstance(event, WorkerEvent)]
    assert story == [GenerationReady, Stopping, GenerationRetired, Stopped]


class Saboteur(Listing):
    """A collector that has the supervisor's loop raise."""

    supervisor: Supervisor

    def collect(self, event: LifecycleEvent) -> None:
        super().collect(event)
        if isinstance(event, GenerationReady):
            self.supervisor._loop.post(lambda: 1 / 0)


@both_modes
def test_no_worker_outlives_a_supervisor_that_fails(mode: Literal["process", "thread"]) -> None:
    saboteur = Saboteur()
    config = ServerConfig(workers=2)
    supervisor = Supervisor(config, app, mode=mode, lifecycle_collector=saboteur)
    saboteur.supervisor = supervisor
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ZeroDivisionError):
        supervisor.run([listener])
    started = [event for event in saboteur.events if isinstance(event, WorkerStarted)]
    assert len(started) == (2 if mode == "process" else 3)
    # A thread that has been joined may still be about to end.
    tasks = [
        Path(f"/proc/{pid}/task/{event.target_id}")
        for event in started
        for pid in ("self", event.target_id)
    ]
    wait_until(lambda: not any(task.exists() for task in tasks), "the workers' ends", 1.0)


def is_about(slot: int, event: LifecycleEvent) -> bool:
    return isinstance(event, WorkerEvent) and event.slot == Slot(Kind.HTTP, slot)
