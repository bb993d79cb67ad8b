"""What threads have for the event loop: one wake-up of the loop takes all that has gathered."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol


class Delivery(Protocol):
    """What a thread has for the loop."""

    def deliver(self) -> object:
        """Do with it what is to be done on the loop."""


class Call:
    """The delivery of a *call*."""

    __slots__ = ("deliver",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.deliver = call


class Outbox:
    """Deliveries of threads for *loop*, in the order of each thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Delivery] = deque()
        self._told = False

    def post(self, delivery: Delivery) -> None:
        """Have the loop take it soon. Callable from any thread; dropped once the loop is closed."""
        # First the delivery, then the look at the flag; `deliver` does it the other way round. So
        # either it finds the delivery, or the flag is found cleared and the loop is told again.
        self._waiting.append(delivery)
        if not self._told:
            self._told = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.deliver)

    def expect(self) -> None:
        """Need not be told of anything more before `deliver`, which must be called now."""
        self._told = True

    def deliver(self) -> None:
        """Take the deliveries that are there, on the loop."""
        self._told = False
        waiting = self._waiting
        count = len(waiting)  # what comes meanwhile has told the loop again
        try:
            while count:
                count -= 1
                waiting.popleft().deliver()
        finally:
            if count:  # one has failed, as the loop will say; the others must not wait for it
                self._loop.call_soon(self.deliver)
