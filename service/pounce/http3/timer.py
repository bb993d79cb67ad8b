"""One timer that is set again and again, at little cost."""

import asyncio
from collections.abc import Callable


class Timer:
    """Calls *callback* on *loop* when it is due, or earlier: the callback looks at the clock."""

    __slots__ = ("_at", "_callback", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, due: float | None, now: float) -> None:
        """Be due at *due* by the loop's time, which is *now*; None is never."""
        if self._handle is not None:
            # One that comes too early costs less than setting it anew with each datagram.
            if due is not None and now < self._at <= due:
                return
            self._handle.cancel()
        self._handle = None
        if due is not None:
            self._at = due
            self._handle = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._handle = None
        self._callback()
