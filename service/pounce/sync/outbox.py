"""What threads have for the event loop: one wake-up of the loop takes all that has gathered."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class Outbox:
    """Calls that threads want made on *loop*, in the order of each thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._told = False

    def post(self, call: Callable[[], object]) -> None:
        """Have the loop call it soon. Callable from any thread; dropped once the loop is closed."""
        # First the call, then the look at the flag; `deliver` does it the other way round. So
        # either it finds the call, or the flag is found cleared and the loop is told again.
        self._calls.append(call)
        if not self._told:
            self._told = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.deliver)

    def expect(self) -> None:
        """Need not be told of anything more before `deliver`, which must be called now."""
        self._told = True

    def deliver(self) -> None:
        """Make the calls that are there, on the loop."""
        self._told = False
        calls = self._calls
        count = len(calls)  # what comes meanwhile has told the loop again
        try:
            while count:
                count -= 1
                calls.popleft()()
        finally:
            if count:  # a call has failed, as the loop will say; the others must not wait for it
                self._loop.call_soon(self.deliver)
