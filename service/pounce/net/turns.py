"""A fair share of the loop for everybody, however much one client sends.

What comes from a client is divided into units, as frames and records are, whose number says how
long it takes, which their size does not. A connection handles as many as make a turn; the rest
waits, and so does what the client still sends, until `Turns` calls again.
"""

import asyncio
import contextvars
import time
from collections.abc import Callable

SHARE = 0.002
"""How long, in seconds, connections that have more than a turn's work keep the loop at a time."""


class Turns:
    """Connections that have more to do than one turn allows; each gets another, in order.

    Between two turns, or a few if they are short, the loop serves everybody else. What all of
    them take together is bounded, so that it does not matter how many there are.
    """

    __slots__ = ("_context", "_scheduled", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # Nobody's turn runs in the context of the request that happened to ask for one first.
        self._context = contextvars.copy_context()
        # A dictionary for its order: who asks twice waits once.
        self._waiting: dict[Callable[[], None], None] = {}
        self._scheduled = False

    def later(self, go_on: Callable[[], None]) -> None:
        """Call *go_on* after the loop has seen to others; where it waits already, only once."""
        self._waiting[go_on] = None
        self._schedule()

    @staticmethod
    def end() -> float:
        """When a turn ends that begins now, by time.monotonic()."""
        return time.monotonic() + SHARE  # the loop's own time stands still meanwhile

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._run, context=self._context)

    def _run(self) -> None:
        self._scheduled = False
        end = self.end()
        try:
            # Of a copy: those who are not done at the end of their turn wait behind all others.
            for go_on in list(self._waiting):
                del self._waiting[go_on]
                go_on()
                if time.monotonic() >= end:
                    break
        finally:
            self._schedule()


class Units:
    """Where the units end that a client sends.

    *size_of* takes a unit's beginning, of *longest* bytes or fewer, and returns the size of the
    whole, or 0 where the beginning is too short to tell.
    """

    __slots__ = ("_head", "_longest", "_missing", "_size_of")

    def __init__(self, size_of: Callable[[bytes], int], longest: int) -> None:
        self._size_of = size_of
        self._longest = longest
        self._head = b""
        self._missing = 0

    def pass_one(self, data: bytes | bytearray, start: int) -> int:
        """Where the unit ends that is under way or begins at *start*, or else *data* does."""
        if not self._missing:
            head = self._head + data[start : start + self._longest - len(self._head)]
            size = self._size_of(head)
            if not size:
                self._head = bytes(head)
                return len(data)
            self._missing = size - len(self._head)
            self._head = b""
        end = min(start + self._missing, len(data))
        self._missing -= end - start
        return end

    def pass_some(self, data: bytes | bytearray, most: int) -> int:
        """Where the last of *most* units ends, or else *data* does."""
        end = 0
        while most and end < len(data):
            end = self.pass_one(data, end)
            most -= 1
        return end
