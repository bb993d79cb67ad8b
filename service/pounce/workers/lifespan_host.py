"""The thread in which a generation's lifespan runs when its workers are threads."""

from collections.abc import Callable
from typing import Any

from pounce.application import Served
from pounce.asgi.lifespan import Lifespan
from pounce.interpreter import noticing_the_lock
from pounce.loggers import get_logger
from pounce.workers.base import Assignment, LoopWorker

logger = get_logger("pounce.worker")


class LifespanHost(LoopWorker):
    """Imports the application and runs its lifespan once for all threads of a generation.

    When it is ready, `served` and `state` are for the generation's workers. It ends, with the
    lifespan's shutdown, when it is told to drain: after the last of them.
    """

    def __init__(self, assignment: Assignment, load: Callable[[], Served]) -> None:
        super().__init__(assignment)
        self._load = load
        self._mode = self.config.lifespan
        self._lifespan: Lifespan | None = None
        self.state: dict[str, Any] = {}

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Use *state*, of a lifespan that runs elsewhere; call it before `run`."""
        self.state = state
        self._mode = "off"

    def load(self) -> None:
        """Import the application."""
        with noticing_the_lock() as said:
            self.served = self._load()
        for each in said:
            logger.warning(
                "workers take turns from now on: %s Or use a version of the module that supports "
                'free threading, or worker_mode = "process".',
                each,
            )

    async def start(self) -> None:
        """Run the lifespan's startup."""
        if self.served.asgi is not None:
            self._lifespan = Lifespan(self.served.asgi, self._mode, self.state)
            await self._lifespan.startup()

    def serve(self) -> None:
        """Nothing: it has no listeners."""

    def drain(self, *, hand_over: bool) -> None:
        """Nothing to wait for."""
        self.end()

    def stop(self, grace: float) -> None:
        """Nothing to drop."""
        self.end()

    async def finish(self) -> None:
        """Run the lifespan's shutdown."""
        if self._lifespan is not None:
            await self._lifespan.shutdown()

    def tick(self, now: float) -> None:
        """Stamp the heartbeat."""
        self.assignment.row.beat(connections=0, busy=0, requests=0)
