"""The thread that loads the application for a generation whose workers are threads."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pounce.application.interface import Served
from pounce.application.interpreter import noticing_the_lock
from pounce.application.loader import remember
from pounce.application.types import ASGIApp
from pounce.asgi.lifespan import Lifespan
from pounce.asgi.startup import Startup
from pounce.errors import ApplicationError
from pounce.events.loggers import get_logger
from pounce.threads import thread_sensitive
from pounce.threads.async_pool import Apart
from pounce.workers.base import Assignment, LoopWorker

logger = get_logger("pounce.worker")

_MOST_TOLD = 3

_ONE_LOOP = (
    "one event loop runs the application's code for all worker threads: its lifespan %s, and "
    "what one loop has made does not work in another. They have one thread for asgiref's "
    "thread-sensitive calls, too: one that hangs stops all. For a loop in each worker, keep it in "
    'scope["state"] alone (Starlette, FastAPI: `yield {"pool": pool}`), or name a factory, '
    '"module:make()"; or set worker_mode = "process"'
)


def _nothing() -> None:
    """Nothing is to be undone."""


class LifespanHost(LoopWorker):
    """Imports the application once for all threads of a generation.

    When it is ready, `give` and `state` are for the generation's workers. It ends, with the
    lifespan's shutdown, when it is told to drain: after the last of them. *find* imports the
    application, and returns what makes it.
    """

    served: Served

    def __init__(self, assignment: Assignment, find: Callable[[], Callable[[], Served]]) -> None:
        super().__init__(assignment)
        self._find = find
        self._made: list[Served] = []
        self._make: Callable[[], Served] | None = None
        self._lifespan: Lifespan | None = None
        self._given = False
        self._put_back = _nothing
        self.state: dict[str, Any] | None = None
        """The lifespan's; None where each worker is to run a lifespan of its own."""

    @property
    def runs_application(self) -> bool:
        """Whether the application runs on this loop, for all workers."""
        return self.served.apart is not None

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Use *state*, of a lifespan that runs elsewhere; call it before `run`."""
        self.state = state
        self._given = True

    def give(self) -> Served:
        """The application for one worker, in whose thread this is called; raises PounceError."""
        thread_sensitive.begin()
        if self._make is None:
            return self.served
        with suppress(IndexError):
            return self._made.pop()
        return self._make()

    def withdraw(self) -> None:
        """Undo what the import has changed for others: the generation does not start."""
        self._put_back()
        self.stay()

    def stay(self) -> None:
        """Keep nothing of what was before: the generation serves."""
        self._put_back = _nothing

    def load(self) -> None:
        """Import the application."""
        self._put_back = remember()
        thread_sensitive.begin()
        with noticing_the_lock() as said:
            make = self._find()
            self.served = make()
            if self.served.asgi is not None and not self.served.wsgi:
                self._make_another(make)
        thread_sensitive.divert()
        for each in said:
            logger.warning(
                "workers take turns from now on: %s Or use a version of the module that supports "
                'free threading, or worker_mode = "process".',
                each,
            )

    def _make_another(self, make: Callable[[], Served]) -> None:
        """See whether *make* is a factory, which makes one for each worker."""
        try:
            another = make()
        except ApplicationError as error:
            logger.info(
                "all worker threads share one application, for a second failed: %s", error.message
            )
            return
        if another.asgi is not self.served.asgi:
            self._make, self._made = make, [another, self.served]

    async def start(self) -> None:
        """Run the lifespan's startup, unless that is each worker's own matter."""
        app = self.served.asgi
        if self._given or self._make is not None:
            return
        self.state = {}
        if app is not None:
            startup = Startup(app)
            self._lifespan = Lifespan(startup, self.config.lifespan, self.state)
            await self._lifespan.startup()
            if self._lifespan.is_running:
                await self._find_place(app, startup, self._lifespan)

    async def _find_place(self, app: ASGIApp, startup: Startup, lifespan: Lifespan) -> None:
        """Decide where the application runs, by where its lifespan keeps what it makes."""
        if startup.kept:
            more = " and more" if len(startup.kept) > _MOST_TOLD else ""
            self._run_here(app, f"has set {', '.join(startup.kept[:_MOST_TOLD])}{more}")
        elif startup.busy and not self.state:
            self._run_here(app, 'has put nothing into scope["state"]')
        elif self.state:
            # This startup has shown that each worker can have its own.
            self._lifespan, self.state = None, None
            await lifespan.shutdown()

    def _run_here(self, app: ASGIApp, why: str) -> None:
        logger.warning(_ONE_LOOP, why)
        self.served = replace(self.served, apart=Apart(app, self.loop))

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
        """Stamp the heartbeat, and look what the application has imported meanwhile."""
        thread_sensitive.divert()
        self.assignment.row.beat(connections=0, busy=0, requests=0)
