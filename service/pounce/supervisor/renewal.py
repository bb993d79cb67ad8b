"""Replacing single workers of a serving generation, and changing how many it has.

A replacement is started beside the worker it replaces, which drains only when the new one is
ready: the same start-before-stop as a reload, one slot at a time.
"""

import os
import random
import time
from pathlib import Path

from pounce.config.service import ServerConfig
from pounce.events.lifecycle import Kind, slots
from pounce.events.loggers import get_logger
from pounce.loop import Timer
from pounce.supervisor.crew import Crew
from pounce.supervisor.handle import Generation, WorkerHandle
from pounce.supervisor.starter import WorkerMode
from pounce.supervisor.states import GenerationState, WorkerInput

# A tenth, at most, above max_requests.
_JITTER = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Seconds until the next replacement after one that failed, or that did not help.
_RETRY = 30.0

logger = get_logger("pounce.supervisor")


class Renewal:
    """Decides when a worker is worn out, and carries out replacements."""

    def __init__(self, crew: Crew, mode: WorkerMode) -> None:
        self._crew = crew
        self._mode = mode
        self._not_before = 0.0

    def check(self, generation: Generation, now: float) -> None:
        """Begin to replace the first worn-out worker of *generation*, if none is being."""
        if generation.state is not GenerationState.SERVING or generation.replacements:
            return
        # What is worn out may still drain for long: there are never twice as many workers.
        if now < self._not_before or len(generation.leaving) >= generation.size:
            return
        for worker in generation.ready:
            if self._is_worn_out(worker, generation.config):
                self._not_before = now + _RETRY
                self._crew.spawn_replacement(generation, worker.slot)
                return

    def ready(self, replacement: WorkerHandle) -> None:
        """*replacement* takes its slot; the worker that held it drains."""
        generation, slot = replacement.generation, replacement.slot
        if self._is_worn_out(replacement, generation.config):
            logger.warning("worker %s begins with more memory than max_memory allows", slot)
        else:
            self._not_before = 0.0
        del generation.replacements[slot]
        _cancel(generation.respawns.pop(slot, None))
        old = generation.workers.get(slot)
        generation.workers[slot] = replacement
        if old is not None:
            self.let_go(old)

    def resize(self, generation: Generation, size: int) -> None:
        """Give *generation* *size* workers: the highest slots drain, or new ones are filled."""
        old, generation.size = generation.size, size
        for slot in slots(Kind.HTTP, old, size):
            self._crew.spawn_worker(generation, slot)
        for slot in slots(Kind.HTTP, size, old):
            _cancel(generation.respawns.pop(slot, None))
            for holders in (generation.workers, generation.replacements):
                worker = holders.pop(slot, None)
                if worker is not None:
                    self.let_go(worker)

    def let_go(self, worker: WorkerHandle) -> None:
        """Drain *worker*, which holds no slot any more, beside those that serve."""
        generation = worker.generation
        generation.leaving.add(worker)
        generation.drained_by = time.monotonic() + generation.config.reload_timeout
        generation.grace = generation.config.shutdown_timeout
        self._crew.feed(worker, WorkerInput.DRAIN)

    def _is_worn_out(self, worker: WorkerHandle, config: ServerConfig) -> bool:
        if config.max_requests:
            if not worker.request_limit:
                extra = random.randint(0, int(config.max_requests * _JITTER))  # noqa: S311
                worker.request_limit = config.max_requests + extra
            if worker.row.requests >= worker.request_limit:
                return True
        if config.max_memory and self._mode == "process":
            return _resident_memory(worker.target.id) > config.max_memory
        return False


def _cancel(timer: Timer | None) -> None:
    if timer is not None:
        timer.cancel()


def _resident_memory(pid: int) -> int:
    """Bytes (the second field of /proc/pid/statm, proc_pid_statm(5)); 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
