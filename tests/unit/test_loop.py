"""The supervisor's loop and its signals, on real descriptors and the real clock."""

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from pounce.loop import Loop
from pounce.supervisor.signals import Signals

PATIENCE = 25.0


def pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    return stack.enter_context(ours), stack.enter_context(theirs)


def run_until(loop: Loop, condition: Callable[[], bool]) -> None:
    overdue: list[bool] = []
    timer = loop.call_later(PATIENCE, lambda: overdue.append(True))
    loop.run(lambda: bool(overdue) or condition())
    timer.cancel()
    assert not overdue, "it did not happen"


# Descriptors


def test_a_readable_descriptor(loop: Loop, stack: ExitStack) -> None:
    ours, theirs = pair(stack)
    received: list[bytes] = []
    loop.watch(ours.fileno(), lambda: received.append(ours.recv(9)))
    theirs.send(b"one")
    run_until(loop, lambda: received == [b"one"])
    theirs.send(b"two")
    run_until(loop, lambda: received == [b"one", b"two"])


def test_a_writable_descriptor(loop: Loop, stack: ExitStack) -> None:
    ours, _ = pair(stack)
    called: list[bool] = []
    loop.watch_writable(ours.fileno(), lambda: called.append(True))
    run_until(loop, lambda: bool(called))


def test_an_unwatched_descriptor_is_silent(loop: Loop, stack: ExitStack) -> None:
    ours, theirs = pair(stack)
    other, other_end = pair(stack)
    called: list[str] = []
    loop.watch(ours.fileno(), lambda: called.append("unwatched"))
    loop.watch(other.fileno(), lambda: called.append("watched"))
    loop.unwatch(ours.fileno())
    theirs.send(b"!")
    other_end.send(b"!")
    run_until(loop, lambda: bool(called))
    assert called == ["watched"]


def test_one_unwatched_and_closed_by_another_in_the_same_turn(loop: Loop, stack: ExitStack) -> None:
    """As when one worker's report ends another: the second must not be called any more."""
    ends = [pair(stack) for _ in range(2)]
    called: list[int] = []

    def callback(number: int) -> Callable[[], None]:
        def call() -> None:
            called.append(number)
            other = ends[1 - number][0]
            loop.unwatch(other.fileno())
            other.close()

        return call

    for number, (ours, theirs) in enumerate(ends):
        loop.watch(ours.fileno(), callback(number))
        theirs.send(b"!")
    run_until(loop, lambda: bool(called))
    assert len(called) == 1


def test_a_descriptor_number_used_again_in_the_same_turn(loop: Loop, stack: ExitStack) -> None:
    """What was ready was the old descriptor, not the new one that has its number."""
    ends = [pair(stack) for _ in range(2)]
    called: list[str] = []

    def callback(number: int) -> Callable[[], None]:
        def replace_the_other() -> None:
            called.append("old")
            old = ends[1 - number][0]
            reused = old.fileno()
            loop.unwatch(reused)
            old.close()
            new, _ = pair(stack)
            assert reused in (new.fileno(), _.fileno())
            loop.watch(reused, lambda: called.append("new"))
            loop.unwatch(ends[number][0].fileno())

        return replace_the_other

    for number, (ours, theirs) in enumerate(ends):
        loop.watch(ours.fileno(), callback(number))
        theirs.send(b"!")
    run_until(loop, lambda: bool(called))
    assert called == ["old"]


# Deadlines


def test_timers_run_in_the_order_of_their_deadlines(loop: Loop) -> None:
    called: list[str] = []
    began = loop.now
    for delay, name in ((0.03, "c"), (0.01, "a"), (0.02, "b"), (0.02, "b2")):
        loop.call_later(delay, lambda name=name: called.append(name))  # type: ignore[misc]
    run_until(loop, lambda: len(called) == 4)
    assert called == ["a", "b", "b2", "c"]
    assert loop.now - began >= 0.03


def test_a_cancelled_timer_is_not_called_nor_waited_for(loop: Loop) -> None:
    called: list[str] = []
    loop.call_later(0.0, lambda: called.append("cancelled")).cancel()
    loop.call_later(0.01, lambda: called.append("kept"))
    run_until(loop, lambda: "kept" in called)
    assert called == ["kept"]


def test_a_timer_cancelled_by_one_due_with_it(loop: Loop) -> None:
    called: list[str] = []
    loop.call_later(0.0, lambda: second.cancel())
    second = loop.call_later(0.0, lambda: called.append("second"))
    loop.call_later(0.02, lambda: called.append("last"))
    run_until(loop, lambda: "last" in called)
    assert called == ["last"]


def test_timers_that_set_timers_do_not_starve_descriptors(loop: Loop, stack: ExitStack) -> None:
    ours, theirs = pair(stack)
    called: list[bool] = []
    loop.watch(ours.fileno(), lambda: called.append(True))

    def again() -> None:
        loop.call_later(0.0, again)

    again()
    theirs.send(b"!")
    run_until(loop, lambda: bool(called))


# Calls from other threads


def test_a_posted_call_wakes_the_loop_and_runs_on_its_thread(loop: Loop) -> None:
    ran_on: list[threading.Thread] = []
    poster = threading.Thread(
        target=lambda: loop.post(lambda: ran_on.append(threading.current_thread()))
    )
    poster.start()
    began = loop.now
    run_until(loop, lambda: bool(ran_on))
    poster.join()
    assert ran_on == [threading.current_thread()]
    assert loop.now - began < PATIENCE / 2


def test_what_was_posted_before_the_loop_ran(loop: Loop) -> None:
    called: list[int] = []
    for number in range(3):
        loop.post(lambda number=number: called.append(number))  # type: ignore[misc]
    run_until(loop, lambda: len(called) == 3)
    assert called == [0, 1, 2]


def test_more_posts_than_the_wakeup_buffer_holds(loop: Loop) -> None:
    called: list[int] = []
    for _ in range(200_000):
        loop.post(lambda: called.append(1))
    run_until(loop, lambda: len(called) == 200_000)


def test_the_loop_sleeps_when_nothing_happens(loop: Loop) -> None:
    turns: list[float] = []
    ended: list[bool] = []
    loop.call_later(0.2, lambda: ended.append(True))
    before = time.process_time()
    loop.run(lambda: bool(turns.append(loop.now) or ended))  # type: ignore[func-returns-value]
    assert len(turns) <= 5
    assert time.process_time() - before < 0.1


# Signals


def test_signals_are_calls_on_the_loop(loop: Loop) -> None:
    called: list[str] = []
    before = signal.getsignal(signal.SIGHUP)
    callbacks: dict[int, Callable[[], None]] = {
        signal.SIGHUP: lambda: called.append("HUP"),
        signal.SIGTERM: lambda: called.append("TERM"),
    }
    with Signals(loop, callbacks):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert called == []
        run_until(loop, lambda: sorted(called) == ["HUP", "TERM"])
    assert signal.getsignal(signal.SIGHUP) is before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS, errno.EAGAIN])
def test_a_shortage_ends_nothing_and_is_told_once(
    loop: Loop, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    def falls_short() -> None:
        raise OSError(number, os.strerror(number))

    done: list[bool] = []
    for _ in range(3):
        loop.post(falls_short)
        loop.call_later(0.0, falls_short)
    loop.call_later(0.01, lambda: done.append(True))
    run_until(loop, lambda: bool(done))
    [message] = caplog.messages
    assert os.strerror(number) in message


def test_another_error_is_raised(loop: Loop) -> None:
    def fails() -> None:
        raise OSError(errno.EBADF, "no descriptor")

    loop.post(fails)
    with pytest.raises(OSError, match="no descriptor"):
        run_until(loop, lambda: False)


def test_a_signal_of_somebody_else_is_ignored(loop: Loop, stack: ExitStack) -> None:
    called: list[str] = []
    others = (signal.SIGUSR2, signal.SIGRTMIN + 1)
    for number in others:
        stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
    with Signals(loop, {signal.SIGHUP: lambda: called.append("HUP")}):
        for number in (*others, signal.SIGHUP):
            os.kill(os.getpid(), number)
        run_until(loop, lambda: called == ["HUP"])


def test_a_forked_child_does_not_write_to_the_parents_descriptor(
    loop: Loop, stack: ExitStack
) -> None:
    called: list[str] = []
    with Signals(loop, {signal.SIGHUP: lambda: called.append("HUP")}) as signals:
        pid = os.fork()
        if pid == 0:
            signals.close_in_child()
            os.kill(os.getpid(), signal.SIGHUP)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        ended: list[bool] = []
        loop.call_later(0.05, lambda: ended.append(True))
        run_until(loop, lambda: bool(ended))
    assert called == []


def test_outside_the_main_thread_it_does_nothing(loop: Loop) -> None:
    before = signal.getsignal(signal.SIGHUP)
    seen: list[object] = []

    def main() -> None:
        with Signals(loop, {signal.SIGHUP: lambda: None}):
            seen.append(signal.getsignal(signal.SIGHUP))

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    assert seen == [before]
