"""Processes and threads as the supervisor sees them: real ones, started, ended, stuck."""

import multiprocessing
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from pounce.supervisor.targets import (
    ProcessTarget,
    Target,
    ThreadTarget,
    force_stop,
    join_all,
    target_id,
)
from tests.apps.load import deadlock_in_c
from tests.ordinary_user import as_ordinary_user
from tests.service import wait_until

PATIENCE = 25.0
Start = Callable[..., ProcessTarget]


@pytest.fixture
def fork(stack: ExitStack) -> Start:
    def start(
        main: Callable[[], int],
        undo: Callable[[], None] = lambda: None,
        **told: Callable[[], str],
    ) -> ProcessTarget:
        target = ProcessTarget(main, name="pounce-test", undo=undo, **told)
        stack.callback(close_process, target)
        return target

    return start


def close_process(target: ProcessTarget) -> None:
    target.kill()
    target.join(PATIENCE)
    target.close()


def wait_for_end(target: Target) -> None:
    assert select.select([target.sentinel], [], [], PATIENCE)[0], "it did not end"


def has_ended(target: Target) -> bool:
    return bool(select.select([target.sentinel], [], [], 0)[0])


class Signpost:
    """A pipe by which a worker says that it has come somewhere."""

    def __init__(self, stack: ExitStack) -> None:
        self._reader, self._writer = os.pipe()
        stack.callback(os.close, self._reader)
        stack.callback(os.close, self._writer)

    def reach(self, text: bytes = b"!") -> None:
        os.write(self._writer, text)

    def wait(self) -> bytes:
        assert select.select([self._reader], [], [], PATIENCE)[0], "it did not come so far"
        return os.read(self._reader, 4096)


def for_ever() -> int:
    while True:
        signal.pause()


def until_stacks(target: Target, text: str) -> str:
    """Ask for stacks until they have *text*: the first may come while it is on its way there."""
    deadline = time.monotonic() + PATIENCE
    while text not in target.stacks():
        assert time.monotonic() < deadline, target.stacks()
        target.request_stacks()
        select.select([target.sentinel], [], [], 0.02)
    return target.stacks()


# Processes


def test_a_process_has_its_pid_for_id(fork: Start, stack: ExitStack) -> None:
    signpost = Signpost(stack)

    def main() -> int:
        signpost.reach(str(os.getpid()).encode())
        return for_ever()

    target = fork(main)
    assert target_id(target) == str(target.id) == signpost.wait().decode() != str(os.getpid())


@pytest.mark.parametrize("status", [0, 1, 70, 78])
def test_a_process_tells_its_exit_status(fork: Start, status: int) -> None:
    target = fork(lambda: status)
    wait_for_end(target)
    assert target.outcome() == f"exited with status {status}"
    assert not target.is_alive()


def test_a_process_that_raises(fork: Start, capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise ValueError("out of luck")

    target = fork(main)
    wait_for_end(target)
    assert target.outcome() == "exited with status 1"
    assert "out of luck" in capfd.readouterr().err


def test_a_process_runs_until_it_ends(fork: Start) -> None:
    target = fork(for_ever)
    assert target.is_alive()
    assert not has_ended(target)
    assert target.kill()
    wait_for_end(target)
    assert target.outcome() == "was killed by SIGKILL"


@pytest.mark.parametrize("number", [signal.SIGRTMIN, signal.SIGRTMIN + 3])
def test_a_process_tells_the_signal_that_killed_it(fork: Start, number: int) -> None:
    """Also one of the real-time signals, of which most have no name."""
    target = fork(for_ever)
    os.kill(target.id, number)
    wait_for_end(target)
    name = "SIGRTMIN" if number == signal.SIGRTMIN else f"signal {number}"
    assert target.outcome() == f"was killed by {name}"


def test_a_process_that_somebody_else_has_reaped(fork: Start) -> None:
    """As a program does that waits for any child of its own."""
    target = fork(for_ever)
    target.kill()
    os.waitpid(target.id, 0)
    wait_for_end(target)
    assert target.outcome() == "ended, and somebody else has taken its exit status (wait(2))"


def test_the_sentinel_tells_the_process_end_though_its_own_child_lives(
    fork: Start, stack: ExitStack
) -> None:
    signpost = Signpost(stack)

    def main() -> int:
        if (grandchild := os.fork()) == 0:
            for_ever()
        signpost.reach(str(grandchild).encode())
        return 0

    target = fork(main)
    grandchild = int(signpost.wait())
    stack.callback(os.kill, grandchild, signal.SIGKILL)
    wait_for_end(target)
    assert Path(f"/proc/{grandchild}").exists()


def test_terminating_a_process_before_its_loop_runs_ends_it(fork: Start) -> None:
    target = fork(for_ever)
    target.terminate()
    wait_for_end(target)
    assert target.outcome() == "was killed by SIGTERM"


EVERYBODYS = ["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH"]


@pytest.mark.parametrize("name", EVERYBODYS)
def test_a_process_leaves_what_all_processes_get_to_the_supervisor(
    fork: Start, stack: ExitStack, name: str
) -> None:
    """A terminal signals a process group, systemctl kill a control group."""
    signpost = Signpost(stack)

    def main() -> int:
        signpost.reach()
        return for_ever()

    target = fork(main)
    signpost.wait()
    os.kill(target.id, signal.Signals[name])
    target.terminate()
    wait_for_end(target)
    assert target.outcome() == "was killed by SIGTERM"


def test_a_signal_to_a_newborn_process_is_its_own(fork: Start, stack: ExitStack) -> None:
    """It must neither get lost nor appear at the parent, whose wakeup descriptor is inherited."""
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    theirs.setblocking(False)
    stack.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(theirs.fileno()))
    signal.signal(signal.SIGTERM, lambda *_: None)
    target = fork(for_ever, undo=lambda: os.kill(os.getpid(), signal.SIGTERM))
    wait_for_end(target)
    assert target.outcome() == "was killed by SIGTERM"
    assert not select.select([ours], [], [], 0)[0]


def test_starting_a_process_leaves_the_parents_signals_unblocked(fork: Start) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    fork(for_ever)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_what_must_not_be_shared_is_dropped_first(fork: Start, stack: ExitStack) -> None:
    signpost = Signpost(stack)

    def main() -> int:
        signpost.reach(b" main")
        return 0

    target = fork(main, undo=lambda: signpost.reach(b"undo"))
    wait_for_end(target)
    assert signpost.wait() == b"undo main"


def test_an_application_may_start_processes(fork: Start) -> None:
    def main() -> int:
        child = multiprocessing.get_context("fork").Process(target=time.monotonic)
        child.start()
        child.join()
        return child.exitcode or 0

    target = fork(main)
    wait_for_end(target)
    assert target.outcome() == "exited with status 0"


def test_where_a_busy_process_stands(fork: Start) -> None:
    def spin_for_ever() -> int:
        while True:
            pass

    target = fork(spin_for_ever)
    assert "spin_for_ever" in until_stacks(target, "spin_for_ever")
    assert target.is_alive()


def test_where_a_process_stuck_in_c_stands(fork: Start, stack: ExitStack) -> None:
    """Python's own signal handlers would wait for the C code to return."""
    signpost = Signpost(stack)

    def blocked_in_c() -> int:
        signpost.reach()
        time.sleep(3600)
        return 0

    target = fork(blocked_in_c)
    signpost.wait()
    assert "blocked_in_c" in until_stacks(target, "blocked_in_c")
    target.kill()
    wait_for_end(target)
    assert "blocked_in_c" in target.stacks(), "they outlive the process"


def test_the_stacks_are_those_of_every_thread(fork: Start) -> None:
    def waits_in_a_thread() -> None:
        threading.Event().wait()

    def main() -> int:
        threading.Thread(target=waits_in_a_thread, daemon=True).start()
        return for_ever()

    target = fork(main)
    # Each asks again until its thread has arrived there.
    assert "waits_in_a_thread" in until_stacks(target, "waits_in_a_thread")
    assert "for_ever" in until_stacks(target, "for_ever")


@pytest.mark.parametrize("how", ["busy", "asleep", "deadlocked"])
def test_the_requests_follow_the_stacks(fork: Start, stack: ExitStack, how: str) -> None:
    signpost = Signpost(stack)

    def main() -> int:
        lock = threading.Lock()
        lock.acquire()
        signpost.reach()
        if how == "deadlocked":
            lock.acquire()
        while True:
            time.sleep(3600 if how == "asleep" else 0)

    target = fork(main, in_flight=lambda: "GET /\n")
    signpost.wait()
    stacks = until_stacks(target, "GET /\n")
    assert stacks.index(" in main") < stacks.index("\nRequests in flight:\nGET /\n")


def test_what_was_noted_follows_where_the_process_cannot_say(fork: Start, stack: ExitStack) -> None:
    signpost = Signpost(stack)

    def main() -> int:
        signpost.reach()
        deadlock_in_c()
        return 0

    target = fork(main, in_flight=lambda: "GET /\n", noted=lambda: "GET / it was\n")
    signpost.wait()
    stat = Path(f"/proc/{target.id}/stat")
    wait_until(lambda: stat.read_text().split()[2] == "S", "the child to be stuck")
    assert "GET / it was" in until_stacks(target, "in deadlock_in_c")


def test_signalling_a_process_that_has_ended(fork: Start) -> None:
    target = fork(lambda: 0)
    wait_for_end(target)
    target.outcome()
    target.terminate()
    target.request_stacks()
    assert target.kill()
    assert target.outcome() == "exited with status 0"


def test_a_fork_that_fails_leaves_nothing_open(fork: Start) -> None:
    def opened() -> list[str]:
        return sorted(each.name for each in Path("/proc/self/fd").iterdir())

    def main() -> None:
        before = opened()
        for _ in range(3):
            with pytest.raises(BlockingIOError):  # EAGAIN, fork(2)
                ProcessTarget(lambda: 0, name="pounce-test", undo=lambda: None)
        assert opened() == before

    # The modules that it takes are then there: an ordinary user might not be let read them.
    wait_for_end(fork(lambda: 0))
    as_ordinary_user(main, resource.RLIMIT_NPROC, 0)


def test_closing_reaps_the_process() -> None:
    target = ProcessTarget(lambda: 0, name="pounce-test", undo=lambda: None)
    wait_for_end(target)
    pid = target.id
    target.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


# Threads


@pytest.fixture
def thread(stack: ExitStack) -> Callable[[Callable[[], int]], ThreadTarget]:
    def start(
        main: Callable[[], int],
        stop: Callable[[], None] = lambda: None,
        in_flight: Callable[[], str] = lambda: "",
    ) -> ThreadTarget:
        target = ThreadTarget(main, name="pounce-test", stop=stop, in_flight=in_flight)
        stack.callback(target.close)
        return target

    return start


@pytest.fixture
def gate(stack: ExitStack) -> threading.Event:
    """What a thread may wait for; opened at the test's end, so that no thread is left."""
    gate = threading.Event()
    stack.callback(gate.set)
    return gate


Threads = Callable[..., ThreadTarget]


def test_a_thread_has_its_kernel_id(thread: Threads, gate: threading.Event) -> None:
    target = thread(lambda: int(gate.wait(PATIENCE)))
    assert target_id(target) == str(target.id)
    assert Path(f"/proc/self/task/{target.id}").exists()
    gate.set()
    target.join(PATIENCE)


def test_a_thread_tells_its_result(thread: Threads) -> None:
    target = thread(lambda: 70)
    wait_for_end(target)
    assert target.outcome() == "ended with status 70"
    target.join(PATIENCE)
    assert not target.is_alive()


def test_a_thread_that_raises(thread: Threads) -> None:
    def main() -> int:
        raise ValueError("out of luck")

    target = thread(main)
    wait_for_end(target)
    assert target.outcome().startswith("ended with an exception:\n")
    assert target.outcome().endswith("ValueError: out of luck\n")
    target.join(PATIENCE)


def test_a_thread_runs_until_it_ends_as_told(thread: Threads, gate: threading.Event) -> None:
    target = thread(lambda: int(gate.wait(PATIENCE)), stop=gate.set)
    assert target.is_alive()
    assert not has_ended(target)
    target.terminate()
    wait_for_end(target)
    assert target.outcome() == "ended with status 1"
    target.join(PATIENCE)


def test_a_thread_cannot_be_killed(thread: Threads, gate: threading.Event) -> None:
    target = thread(lambda: int(gate.wait(PATIENCE)))
    assert target.kill() is False
    assert target.is_alive()
    gate.set()
    target.join(PATIENCE)


def test_where_a_thread_stands(thread: Threads, gate: threading.Event) -> None:
    def waits_at_the_gate() -> int:
        return int(gate.wait(PATIENCE))

    target = thread(waits_at_the_gate)
    assert "waits_at_the_gate" in until_stacks(target, "waits_at_the_gate")
    gate.set()
    target.join(PATIENCE)
    target.request_stacks()
    assert target.stacks() == "", "one that has ended stands nowhere"


def test_which_requests_a_thread_is_on(thread: Threads, gate: threading.Event) -> None:
    target = thread(lambda: int(gate.wait(PATIENCE)), in_flight=lambda: "GET /\n")
    target.request_stacks()
    assert target.stacks().endswith("\nRequests in flight:\nGET /\n")
    gate.set()
    target.join(PATIENCE)


# Stopping by force


def test_a_process_that_heeds_sigterm_is_not_killed(fork: Start) -> None:
    target = fork(lambda: signal.pause() or 0)  # type: ignore[func-returns-value]
    assert force_stop(target, PATIENCE)
    assert target.outcome() == "was killed by SIGTERM"


def test_a_process_that_ignores_sigterm_is_killed(fork: Start, stack: ExitStack) -> None:
    signpost = Signpost(stack)

    def is_deaf() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signpost.reach()
        while True:
            signal.pause()

    target = fork(is_deaf)
    signpost.wait()
    assert force_stop(target, 0.2)
    assert target.outcome() == "was killed by SIGKILL"


def test_a_thread_is_asked_to_stop_and_no_more(thread: Threads, gate: threading.Event) -> None:
    heeds = thread(lambda: int(gate.wait(PATIENCE)), stop=gate.set)
    assert force_stop(heeds, PATIENCE)
    gate.clear()
    is_deaf = thread(lambda: int(gate.wait(PATIENCE)))
    assert not force_stop(is_deaf, 0.1)
    gate.set()
    is_deaf.join(PATIENCE)


# Joining


def test_joining_side_by_side_takes_no_longer_than_one(
    thread: Threads, gate: threading.Event
) -> None:
    targets = [thread(lambda: int(gate.wait(PATIENCE))) for _ in range(30)]
    began = time.monotonic()
    assert join_all(targets, 0.2) == targets
    taken = time.monotonic() - began
    gate.set()
    assert 0.2 <= taken < 3, "one after the other they would have taken 6 s"
    assert join_all(targets, PATIENCE) == []


def test_each_has_its_own_full_timeout(
    fork: Start, thread: Threads, gate: threading.Event, stack: ExitStack
) -> None:
    """A stuck one before it takes nothing from the time of one that ends late."""
    signpost = Signpost(stack)

    def ends_late() -> int:
        signpost.wait()
        return 0

    late, stuck = fork(ends_late), thread(lambda: int(gate.wait(PATIENCE)))
    timer = threading.Timer(0.3, signpost.reach)
    timer.start()
    assert join_all([stuck, late], 1.0) == [stuck]
    timer.join()
    gate.set()
    stuck.join(PATIENCE)


def test_joining_those_that_end_does_not_wait(fork: Start) -> None:
    began = time.monotonic()
    assert join_all([fork(lambda: 0), fork(lambda: 0)], PATIENCE) == []
    assert time.monotonic() - began < PATIENCE / 2
