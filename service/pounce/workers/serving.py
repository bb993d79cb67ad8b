"""What every worker that serves an ASGI application does, whatever protocol it comes by."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from pounce.asgi.context import ServerContext
from pounce.asgi.lifespan import Lifespan
from pounce.asgi.types import ASGIApp
from pounce.workers.base import Assignment, LoopWorker


class ServingWorker(LoopWorker):
    """Serves what *load* gives it.

    It runs the application's lifespan in its own loop, unless `set_lifespan_state` says that
    somebody else does.
    """

    def __init__(self, assignment: Assignment, load: Callable[[], ASGIApp]) -> None:
        super().__init__(assignment)
        self._load = load
        self._state: dict[str, Any] = {}
        self._lifespan: Lifespan | None = None
        self._runs_lifespan = True
        self.context: ServerContext | None = None

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Use *state*, of a lifespan that runs elsewhere; call it before `run`."""
        self._state = state
        self._runs_lifespan = False

    def is_idle(self) -> bool:
        """Whether no client is connected."""
        return self.context is None or self.context.idle

    def in_flight(self) -> str:
        """The requests in flight, one a line, for a person; callable while the loop is stuck."""
        return self.context.in_flight() if self.context is not None else ""

    def load(self) -> None:
        """Import the application."""
        self._app = self._load()

    async def start(self) -> None:
        """Run the lifespan's startup and attach the sockets."""
        if self._runs_lifespan:
            lifespan = Lifespan(self._app, self.config.lifespan, self._state)
            await lifespan.startup()
            self._lifespan = lifespan
        mine = self.assignment
        context = ServerContext(
            config=self.config,
            app=self._app,
            state=self._state,
            loop=self.loop,
            extensions={"pounce": {"worker": mine.slot, "generation": mine.generation}},
            flight=mine.flight,
        )
        self.attach(context)
        self.context = context

    @abstractmethod
    def attach(self, context: ServerContext) -> None:
        """Prepare to serve on the sockets of the assignment."""

    def drain(self, *, hand_over: bool) -> None:
        """Let every connection finish."""
        if self.context is not None:
            self.context.drain(self.check_drained)
        self.check_drained()

    def stop(self, grace: float) -> None:
        """Tell handlers that their clients are gone; drop what is left after *grace* seconds."""
        if self.context is None:
            self.end()
        else:
            self.context.disconnect()
            self.loop.call_later(grace, self._drop, self.context)
            self.check_drained()

    async def finish(self) -> None:
        """Run the lifespan's shutdown."""
        if self._lifespan is not None:
            await self._lifespan.shutdown()

    def tick(self, now: float) -> None:
        """Sweep the connections' timeouts and publish the counters."""
        connections = busy = requests = 0
        if self.context is not None:
            busy = self.context.sweep(now)
            requests = self.context.requests
            connections = self.held()
        self.assignment.row.beat(connections=connections, busy=busy, requests=requests)

    def held(self) -> int:
        """How many connections there are."""
        return len(self.context.connections) if self.context is not None else 0

    def check_drained(self) -> None:
        """End, when draining and nobody is left."""
        if self.draining and self.is_idle():
            self.end()

    def _drop(self, context: ServerContext) -> None:
        context.abort()
        self.end()
