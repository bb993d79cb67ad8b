"""The supervisor's loop: descriptors and deadlines, one thread, nothing that blocks."""

import heapq
import itertools
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pounce.errors import is_shortage
from pounce.events.loggers import get_logger
from pounce.events.seldom import Seldom

logger = get_logger("pounce.supervisor")

Callback = Callable[[], object]


def _nothing() -> None:
    """What a cancelled timer calls."""


@dataclass(order=True, slots=True)
class Timer:
    """A callback due at *when* (seconds of CLOCK_MONOTONIC)."""

    when: float
    number: int
    callback: Callback = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        """Make sure that the callback is not called, and let go of what it refers to."""
        self.cancelled = True
        self.callback = _nothing


class Loop:
    """Waits for descriptors, deadlines and calls from other threads; runs what is due."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._numbers = itertools.count()
        self._posted: deque[Callback] = deque()
        self._shortage = Seldom()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self.watch(self._wake_reader.fileno(), self._drain_wakes)

    @property
    def now(self) -> float:
        """Seconds of CLOCK_MONOTONIC, the clock of every deadline here."""
        return time.monotonic()

    def watch(self, descriptor: int, callback: Callback) -> None:
        """Call *callback* whenever *descriptor* is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def watch_writable(self, descriptor: int, callback: Callback) -> None:
        """Call *callback* whenever *descriptor* is writable."""
        self._selector.register(descriptor, selectors.EVENT_WRITE, callback)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching; call it before *descriptor* is closed."""
        self._selector.unregister(descriptor)

    def call_later(self, delay: float, callback: Callback) -> Timer:
        """Call *callback* once, *delay* seconds from now."""
        timer = Timer(self.now + delay, next(self._numbers), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def post(self, callback: Callback) -> None:
        """Call *callback* on the loop's thread; may be called from any thread."""
        self._posted.append(callback)
        try:
            self._wake_writer.send(b"\0")
        except OSError as error:
            # It is full of wakes already, or the kernel has no memory: then any later turn,
            # of which there are two a second, finds the callback.
            if not is_shortage(error):
                raise

    def run(self, finished: Callable[[], bool]) -> None:
        """Turn until *finished* says so."""
        while not finished():
            self._turn()

    def close(self) -> None:
        """Give back every descriptor of the loop's own; a forked child calls it too."""
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            # A callback earlier in this turn may have unwatched (and closed) a later one's.
            if self._selector.get_map().get(key.fd) is key:
                self._call(key.data)
        while self._posted:
            self._call(self._posted.popleft())
        self._run_timers()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].when - self.now) if self._timers else None

    def _run_timers(self) -> None:
        # Timers set by these callbacks wait for the next turn, so descriptors get theirs.
        due = self.now
        while self._timers and self._timers[0].when <= due:
            timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._call(timer.callback)

    def _call(self, callback: Callback) -> None:
        """Run *callback*; whatever the system is short of, the service goes on."""
        try:
            callback()
        except OSError as error:
            if not is_shortage(error):
                raise
            if self._shortage.is_due():
                logger.warning("the supervisor goes on, but: %s", error, exc_info=True)

    def _drain_wakes(self) -> None:
        try:
            while self._wake_reader.recv(4096):
                pass
        except BlockingIOError:
            return
