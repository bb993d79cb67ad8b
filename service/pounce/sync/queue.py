"""The queue from which the threads of a worker take requests."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Seat:
    """A thread's place at the queue: where it sleeps while there is nothing to do."""

    __slots__ = ("ring", "sleep")

    def __init__(self) -> None:
        # A lock would do, but for a free-threaded interpreter's: whoever waits for one first
        # yields the processor 40 times, which costs more than falling asleep.
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.ring: Callable[[None], None] = bell.put
        """Wake the thread, or keep it from falling asleep; once for each `sleep`."""
        self.sleep: Callable[[], None] = bell.get
        """Return when `ring` is called."""


class RequestQueue(Generic[T]):
    """First in, first out; whoever is free takes the next.

    Whoever puts something in says when another thread shall wake. The thread that fell asleep
    last is woken first: its caches are warm.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[T] = deque()
        self._asleep: list[Seat] = []

    def put(self, items: Iterable[T]) -> None:
        """Add *items*. Never blocks for long."""
        self._waiting.extend(items)

    def wake(self) -> bool:
        """Wake one thread, if there is something for it; whether another call may wake one more."""
        with self._lock:
            if not (self._waiting and self._asleep):
                return False
            seat = self._asleep.pop()
        seat.ring(None)
        return True

    def take(self, seat: Seat) -> T:
        """The next item, for the thread that sits on *seat*; blocks until there is one."""
        waiting = self._waiting
        while True:
            try:
                return waiting.popleft()
            except IndexError:
                self._sleep(seat)

    def _sleep(self, seat: Seat) -> None:
        with self._lock:
            # Looked at again under the lock: `wake` comes after `put`, and finds either nothing
            # left or whoever fell asleep before.
            if self._waiting:
                return
            self._asleep.append(seat)
        seat.sleep()
