"""What runs a worker: a forked process or a thread.

The two differ in how they are started, how it is known that they ended, and how they are
forced to stop. Nothing else in the supervisor knows which it has.
"""

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import IO, Protocol

from pounce.application import forks

Main = Callable[[], int]
InFlight = Callable[[], str]
"""Which requests a worker is on, one a line; called while it is stuck."""

_REQUESTS = "\nRequests in flight:"

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

# The worker's faulthandler answers this signal with the stacks of all of its threads.
# Those with names of their own are sent by people, and used by applications.
STACKS_SIGNAL = signal.SIGRTMAX

# The supervisor acts upon these, though all processes of a service may get them: the terminal's
# Ctrl-C and a session's HUP reach the process group, and systemctl kill the control group.
_THE_SUPERVISORS = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Target(Protocol):
    """A running worker, from outside."""

    @property
    def id(self) -> int:
        """The pid, or the thread's kernel id."""

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the worker has ended."""

    def terminate(self) -> None:
        """Ask it to end: a serving worker drains, a draining one stops."""

    def kill(self) -> bool:
        """End it by force; false if that is impossible (a thread)."""

    def request_stacks(self) -> None:
        """Ask for where each of its threads stands, and which requests it is on."""

    def stacks(self) -> str:
        """Where each of its threads stood when `request_stacks` was called, and its requests."""

    def outcome(self) -> str:
        """How it ended, for a person; call it once the sentinel is readable."""

    def join(self, timeout: float) -> None:
        """Wait for it for at most *timeout* seconds."""

    def is_alive(self) -> bool:
        """Whether it still runs."""

    def close(self) -> None:
        """Give back its descriptors."""


class ProcessTarget:
    """A worker in a forked process.

    *undo* is run first in the child, to drop what it must not share with its parent; *in_flight*
    is called there. *noted* is called in the parent, for what the child has noted of its requests
    where everybody can read it.
    """

    def __init__(
        self,
        main: Main,
        *,
        name: str,
        undo: Callable[[], None],
        in_flight: InFlight = lambda: "",
        noted: InFlight = lambda: "",
    ) -> None:
        self._noted = noted
        # A memfd, not a pipe: nobody has to read it for the dump to get out, and it survives
        # the process that is about to be killed.
        self._dump: IO[bytes] = os.fdopen(os.memfd_create("pounce-stacks"), "w+b", buffering=0)

        parent = os.getpid()

        def child() -> None:
            _die_with(parent)
            undo()
            _take_over_signals(self._dump, in_flight)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            # A daemonic process may not start processes of its own, but an application may.
            multiprocessing.current_process().daemon = False
            sys.exit(main())

        self._process: BaseProcess = multiprocessing.get_context("fork").Process(
            target=child, name=name, daemon=True
        )
        # Until the child has undone what it inherits, a signal to it would be written into the
        # supervisor's wakeup descriptor, and be lost to the child.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            with warnings.catch_warnings():
                # The supervisor has said so, better and once.
                warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)
                self._process.start()
        except OSError as error:
            self._dump.close()
            _close_pipes(error)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Unlike Process.sentinel (a pipe), a pidfd is not kept open by the worker's own children.
        try:
            self._pidfd = os.pidfd_open(self.id)
        except OSError:  # no descriptor is left, and nobody would see it end
            self._process.kill()
            self._process.join()
            self._process.close()
            self._dump.close()
            raise

    @property
    def id(self) -> int:
        """The pid."""
        assert self._process.pid is not None  # noqa: S101 - set by start()
        return self._process.pid

    @property
    def sentinel(self) -> int:
        """The pidfd (pidfd_open(2))."""
        return self._pidfd

    def terminate(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> bool:
        """SIGKILL."""
        self._send(signal.SIGKILL)
        return True

    def request_stacks(self) -> None:
        """Have the faulthandler write; it works while the interpreter itself is stuck."""
        self._send(STACKS_SIGNAL)

    def stacks(self) -> str:
        """What the faulthandler wrote, and the requests as far as they are known."""
        self._dump.seek(0)
        told = self._dump.read().decode(errors="replace")
        # A call that never returns keeps the interpreter from adding them itself.
        return told if _REQUESTS in told else f"{told}\n{self._noted()}"

    def outcome(self) -> str:
        """Exit status or signal name."""
        return ended_how(self._process.exitcode)

    def join(self, timeout: float) -> None:
        """Wait for the process; unlike Process.join, without a descriptor of its own."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(timeout * 1000)

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def close(self) -> None:
        """Reap the process, which has ended, and close all that was kept for it."""
        with contextlib.suppress(ValueError):  # somebody else has reaped it
            self._process.close()
        os.close(self._pidfd)
        self._dump.close()

    def _send(self, number: signal.Signals) -> None:
        # Through the pidfd, so that a reused pid is never hit (pidfd_send_signal(2)).
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


def _close_pipes(error: OSError) -> None:
    """Close the pipes that multiprocessing had made for a child when fork(2) failed.

    It leaves them open, and a respawn that fails at TasksMax= is tried again and again. Only its
    own frame knows them.
    """
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    for name in ("parent_r", "child_w", "child_r", "parent_w"):
        if name in frame.f_locals:
            os.close(frame.f_locals[name])


def ended_how(code: int | None) -> str:
    """Put an exit status into words: negative for a signal, None where it is not known."""
    if code is None:
        return "ended, and somebody else has taken its exit status (wait(2))"
    if code >= 0:
        return f"exited with status {code}"
    return f"was killed by {_signal_name(-code)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal: only the first and the last have names
        return f"signal {number}"


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its supervisor ends (PR_SET_PDEATHSIG, prctl(2)).

    Nothing else would reach a worker that hangs, and holds the listeners of a service that has
    started anew.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), signal.SIGKILL)


def _take_over_signals(dump: IO[bytes], in_flight: InFlight) -> None:
    # Programs that the application executes would ignore what is ignored here (execve(2)). They get
    # the default for what is handled, and so do children that it only forks.
    for number in _THE_SUPERVISORS:
        signal.signal(number, lambda *_: None)
        forks.keep_handler(number)
    # Until its loop runs there is nothing to drain.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # First the stacks, which need no interpreter. Then, chained, Python's own handler: it runs
    # when the main thread comes to its next instruction, or is woken from a lock or a sleep.
    signal.signal(STACKS_SIGNAL, lambda *_: dump.write(_requests(in_flight)))
    faulthandler.register(STACKS_SIGNAL, file=dump, all_threads=True, chain=True)
    forks.keep_handler(STACKS_SIGNAL)


def _requests(in_flight: InFlight) -> bytes:
    return f"{_REQUESTS}\n{in_flight() or 'none'}".encode()


class ThreadTarget:
    """A worker in a thread of this process.

    *stop* is what terminates it; it and *in_flight* are callable from any thread.
    """

    def __init__(
        self,
        main: Main,
        *,
        name: str,
        stop: Callable[[], None],
        in_flight: InFlight = lambda: "",
    ) -> None:
        self._main = main
        self._stop = stop
        self._in_flight = in_flight
        self._outcome = "still runs, as nothing ends a thread by force"
        self._stacks = ""
        # Not a pipe whose end is closed: a child that the application forks would keep it open.
        self._ended = os.eventfd(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            os.close(self._ended)
            raise

    @property
    def id(self) -> int:
        """The kernel's thread id (gettid(2))."""
        return self._thread.native_id or 0

    @property
    def sentinel(self) -> int:
        """An eventfd(2) to which the thread writes last."""
        return self._ended

    def terminate(self) -> None:
        """Tell the worker to stop."""
        self._stop()

    def kill(self) -> bool:
        """A thread cannot be killed."""
        return False

    def request_stacks(self) -> None:
        """Take the thread's stack and its requests now."""
        # What threading itself offers no public way to.
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        if frame is None:  # it has ended
            self._stacks = ""
        else:
            stack = "".join(traceback.format_stack(frame))
            self._stacks = stack + _requests(self._in_flight).decode()

    def stacks(self) -> str:
        """The stack and the requests taken."""
        return self._stacks

    def outcome(self) -> str:
        """Its main function's result, or the exception that ended it."""
        return self._outcome

    def join(self, timeout: float) -> None:
        """Wait for the thread."""
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Close the descriptor, which the thread has written to: it has ended."""
        os.close(self._ended)
        # Who still refers to this, the thread on its last steps above all, keeps no worker alive.
        del self._main, self._stop, self._in_flight

    def _run(self) -> None:
        try:
            self._outcome = f"ended with status {self._main()}"
        except BaseException:
            self._outcome = f"ended with an exception:\n{traceback.format_exc()}"
        finally:
            os.eventfd_write(self._ended, 1)


def target_id(target: Target) -> str:
    """The pid of a process, or the kernel's id of a thread, for the log."""
    return str(target.id)


def join_all(targets: Sequence[Target], timeout_per: float) -> list[Target]:
    """Join *targets* side by side, each for at most *timeout_per* seconds.

    All of them run down their time at once, so the whole call takes no longer than one.
    Returns those that still run.
    """
    deadline = time.monotonic() + timeout_per
    for target in targets:
        target.join(max(0.0, deadline - time.monotonic()))
    return [target for target in targets if target.is_alive()]


def force_stop(target: Target, grace: float = 1.0) -> bool:
    """End *target*: by SIGTERM, and after *grace* seconds by SIGKILL; false if it still runs.

    A thread is asked to stop, and cannot be killed.
    """
    target.terminate()
    target.join(grace)
    if target.is_alive() and target.kill():
        target.join(grace)
    return not target.is_alive()
