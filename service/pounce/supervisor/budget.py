"""How often workers may be restarted, and how long to wait before the next try."""

from collections import deque
from collections.abc import Hashable

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 10.0


class RestartBudget:
    """At most *restarts* restarts in any *window* seconds, over all slots.

    A worker that had become ready is replaced at once. One that dies before it is ready is
    tried again after 0.1 s, 0.2 s, 0.4 s ... up to 10 s, until one becomes ready.
    """

    def __init__(self, restarts: int, window: float) -> None:
        self.restarts = restarts
        self.window = window
        self._spent: deque[float] = deque()
        self._failed_starts: dict[Hashable, int] = {}

    def succeeded(self, slot: Hashable) -> None:
        """The worker in *slot* became ready."""
        self._failed_starts.pop(slot, None)

    def delay(self, slot: Hashable, *, was_ready: bool) -> float:
        """Seconds to wait before *slot* is filled again."""
        if was_ready:
            return 0.0
        failures = self._failed_starts[slot] = self._failed_starts.get(slot, 0) + 1
        # Bounding the exponent keeps 2 ** failures a small number for ever.
        return float(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures - 1, 16)))

    def spend(self, now: float) -> bool:
        """Take one restart out of the budget at *now*; false when there is none."""
        if self.wait(now) > 0.0:
            return False
        self._spent.append(now)
        return True

    def give_back(self) -> None:
        """The restart that was spent last did not take place."""
        self._spent.pop()

    def wait(self, now: float) -> float:
        """Seconds until the budget allows a restart again; 0.0 if it does at *now*."""
        while self._spent and self._spent[0] + self.window <= now:
            self._spent.popleft()
        if len(self._spent) < self.restarts:
            return 0.0
        return self._spent[0] + self.window - now if self._spent else self.window
