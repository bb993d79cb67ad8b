"""Signals as callbacks of the supervisor's loop."""

import signal
import socket
import threading
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Self

from pounce.application import forks
from pounce.loop import Loop


class Signals:
    """While entered, each signal of *callbacks* is a call on the loop, not an interruption.

    The interpreter writes each signal's number into a wakeup descriptor
    (signal.set_wakeup_fd), so nothing is lost between looking and waiting. Only the main
    thread may install handlers; in another thread this does nothing. An ignored SIGCHLD gets its
    default meaning back, so that it can be told how workers end.
    """

    def __init__(self, loop: Loop, callbacks: Mapping[int, Callable[[], None]]) -> None:
        self._loop = loop
        self._callbacks = callbacks
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._loop.watch(self._reader.fileno(), self._dispatch)
            self._previous_wakeup = signal.set_wakeup_fd(self._writer.fileno())
            for number in self._callbacks:
                self._previous[number] = signal.signal(number, _noted_by_the_wakeup_descriptor)
                forks.keep_handler(number)
            if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
                # Inherited (execve(2)): the kernel would keep no exit status (wait(2)).
                self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._previous_wakeup)
            self._loop.unwatch(self._reader.fileno())
        self._close()

    def close_in_child(self) -> None:
        """Undo what a forked child has inherited of this."""
        signal.set_wakeup_fd(-1)
        self._close()

    def _close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _dispatch(self) -> None:
        for number in self._reader.recv(4096):
            # Others may have handlers for signals of their own.
            callback = self._callbacks.get(number)
            if callback is not None:
                callback()


def _noted_by_the_wakeup_descriptor(_number: int, _frame: FrameType | None) -> None:
    """A handler must exist for the interpreter to write to the wakeup descriptor."""
