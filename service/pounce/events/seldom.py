"""Log records about what keeps happening: one now and then, not one each time."""

import time
from collections.abc import Callable


class Seldom:
    """Says whether it is time for another record: the first one at once, then after *seconds*."""

    def __init__(self, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = float("-inf")

    def is_due(self) -> bool:
        """Whether to log; the time until the next record begins if so."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
