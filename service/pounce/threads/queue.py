"""The queue from which the threads of a worker take requests."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class Seat:
    """A thread's place at the queue: where it sleeps while there is nothing to do."""

    __slots__ = ("_bell", "left", "ring", "sleep")

    def __init__(self) -> None:
        self.left = False
        # An eventfd(2), and not a lock: while it is written to, the interpreter's global lock is
        # free. Who is woken then need not fall asleep again at once, for want of that.
        self._bell = os.eventfd(0)
        self.ring: Callable[[], None] = partial(os.eventfd_write, self._bell, 1)
        """Wake the thread, or keep it from falling asleep; once for each `sleep`."""
        self.sleep: Callable[[], object] = partial(os.eventfd_read, self._bell)
        """Return when `ring` is called."""

    def close(self) -> None:
        """Nobody will sleep here any more."""
        os.close(self._bell)


class Left(Exception):
    """The thread has to leave the queue, and nothing waits."""


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
        seat.ring()
        return bool(self._waiting and self._asleep)

    def leave(self, seat: Seat) -> None:
        """Have the thread on *seat* sleep no more."""
        with self._lock:
            seat.left = True
            asleep = seat in self._asleep
            if asleep:
                self._asleep.remove(seat)
        # Only then is the bell certain to be open still: the thread waits for it.
        if asleep:
            seat.ring()

    def take(self, seat: Seat) -> T:
        """The next item, for the thread that sits on *seat*; blocks until there is one.

        Raises Left where none waits and *seat* was told to `leave`.
        """
        waiting = self._waiting
        while True:
            try:
                return waiting.popleft()
            except IndexError:
                if seat.left:
                    raise Left from None
                self._sleep(seat)

    def _sleep(self, seat: Seat) -> None:
        with self._lock:
            # Looked at again under the lock: `wake` comes after `put`, and finds either nothing
            # left or whoever fell asleep before. `leave` finds the seat, or is seen here.
            if self._waiting or seat.left:
                return
            self._asleep.append(seat)
        seat.sleep()
