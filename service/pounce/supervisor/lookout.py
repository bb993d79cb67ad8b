"""Noticing which workers are silent: their loops have stopped turning."""

import time
from collections.abc import Iterable

from pounce.supervisor.handle import WorkerHandle

# A look at the workers this long after the last one, twice the usual interval, comes late.
_LATE = 1.0


class Lookout:
    """Looks at the workers' heartbeats; times are seconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._last_look = time.monotonic()
        self._woken = 0.0

    def silent(self, workers: Iterable[WorkerHandle], timeout: float) -> list[WorkerHandle]:
        """Those of *workers* whose loop has not turned for *timeout* seconds; call it regularly."""
        now = time.monotonic()
        # A supervisor that did not run itself (a suspended machine, a frozen cgroup, SIGSTOP)
        # cannot hold the workers' silence against them.
        if now - self._last_look > max(timeout / 2, _LATE):
            self._woken = now
        self._last_look = now
        return [worker for worker in workers if self.silence(worker, now) > timeout]

    def silence(self, worker: WorkerHandle, now: float) -> float:
        """For how many seconds *worker*, if it is ready, has been silent."""
        if worker.ready_at is None:
            return 0.0
        return now - max(worker.row.heartbeat, worker.ready_at, self._woken)

    def least(self, workers: Iterable[WorkerHandle]) -> float:
        """For how many seconds all of *workers* have been silent; 0 where there are none."""
        now = time.monotonic()
        return min((self.silence(worker, now) for worker in workers), default=0.0)
