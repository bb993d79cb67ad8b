"""What every worker that serves an application does, whatever protocol requests come by."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from pounce.application.interface import Served, no_asgi_application
from pounce.asgi.lifespan import Lifespan
from pounce.events.loggers import get_logger
from pounce.http.connections import ServerContext
from pounce.http1.base import BaseConnection
from pounce.threads.async_pool import AsyncPool
from pounce.threads.distributor import AcceptDistributor
from pounce.workers.base import Assignment, LoopWorker
from pounce.workers.handlers import handler_for

logger = get_logger("pounce.worker")

# How many requests a worker names in the log when it drops them.
_MOST_TOLD = 10


class ServingWorker(LoopWorker):
    """Serves what *load* gives it, on its loop or in threads.

    It runs the application's lifespan in its own loop, unless `set_lifespan_state` says that
    somebody else does.
    """

    served: Served

    def __init__(self, assignment: Assignment, load: Callable[[], Served]) -> None:
        super().__init__(assignment)
        self._load = load
        self._state: dict[str, Any] = {}
        self._lifespan: Lifespan | None = None
        self._runs_lifespan = True
        self._distributor: AcceptDistributor | None = None
        self._pool: AsyncPool | None = None
        self.context: ServerContext | None = None

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Use *state*, of a lifespan that runs elsewhere; call it before `run`."""
        self._state = state
        self._runs_lifespan = False

    def is_idle(self) -> bool:
        """Whether no client is connected."""
        if self._distributor is not None and not self._distributor.idle:
            return False
        return self.context is None or self.context.idle

    def descriptors(self) -> list[int]:
        """What a child that the application forks must not keep, besides what the loop watches."""
        # The loop does not watch a connection that sends more than is taken.
        connections = list(self.context.connections) if self.context is not None else []
        return [*super().descriptors(), *map(_descriptor, connections)]

    def in_flight(self) -> str:
        """The requests in flight, one a line, for a person; callable while the loop is stuck."""
        told = self.context.in_flight() if self.context is not None else ""
        return told + (self._distributor.in_flight() if self._distributor is not None else "")

    def load(self) -> None:
        """Import the application."""
        self.served = self._load()

    async def start(self) -> None:
        """Run the lifespan's startup and attach the sockets."""
        app = self.served.apart or self.served.asgi
        if self.served.in_threads and app is not None and self.served.apart is None:
            app = self._pool = AsyncPool(app, self.config.loop, f"{self._name}-async")
            self._pool.start()
        try:
            if self._runs_lifespan and app is not None:
                lifespan = Lifespan(app, self.config.lifespan, self._state)
                await lifespan.startup()
                self._lifespan = lifespan
        except BaseException:  # also where the worker is told to end meanwhile
            self._stop_pool()
            raise
        mine = self.assignment
        context = ServerContext(
            config=self.config,
            app=app or no_asgi_application,
            state=self._state,
            loop=self.loop,
            extensions={"pounce": {"worker": mine.slot.name, "generation": mine.generation}},
            flight=mine.flight,
        )
        if self.served.in_threads:
            self._distribute(context)
        self.attach(context)
        self.context = context

    def _distribute(self, context: ServerContext) -> None:
        mine = self.assignment
        self._distributor = AcceptDistributor(
            self.loop,
            handler_for(self.served, self.config, mine.slot.name, mine.generation),
            self.config.threads,
            self.config.worker_timeout,
            self._name,
        )
        self._distributor.serve(context)

    @property
    def _name(self) -> str:
        """What the names of its threads begin with."""
        return f"pounce-{self.assignment.generation}-{self.assignment.slot}"

    def _stop_pool(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool = None

    @abstractmethod
    def attach(self, context: ServerContext) -> None:
        """Prepare to serve on the sockets of the assignment."""

    def drain(self, *, hand_over: bool) -> None:
        """Let every connection finish."""
        if self.context is not None:
            self.context.drain(self.check_drained)
            if self.stopping:
                now, config = self.loop.time(), self.config
                deadline = now + config.shutdown_timeout
                self.context.farewell.begin(now, deadline, config.event_stream_timeout)
        self.check_drained()

    def stop(self, grace: float) -> None:
        """Tell handlers that their clients are gone; drop what is left after *grace* seconds."""
        if self.context is None:
            self.end()
        else:
            if self._distributor is not None:
                self._distributor.ending = True
            self.context.disconnect()
            now = self.loop.time()
            self.context.farewell.begin(now, now + grace)
            self.loop.call_later(grace, self._drop, self.context)
            self.check_drained()

    async def finish(self) -> None:
        """Let threads end, and run the lifespan's shutdown."""
        if self._distributor is not None:
            self._distributor.close()
        if self._lifespan is not None:
            await self._lifespan.shutdown()
        self._stop_pool()

    def tick(self, now: float) -> None:
        """Sweep the connections' timeouts and publish the counters."""
        connections = busy = requests = 0
        if self.context is not None:
            busy = self.context.sweep(now)
            requests = self.context.requests
            connections = self.held()
        if self._distributor is None or self._can_go_on(self._distributor, now):
            self.assignment.row.beat(
                connections=connections,
                busy=busy,
                requests=requests,
                occupied=not self.is_idle(),
            )

    def _can_go_on(self, distributor: AcceptDistributor, now: float) -> bool:
        """Whether threads are left to answer.

        When too many are stuck, only a new worker helps. This one is silent from now on, as if
        its loop were stuck, and gives away what it can until the supervisor replaces it.
        """
        distributor.tick(now)
        stuck = ""
        if distributor.exhausted:
            stuck = "as many threads are stuck as this worker has"
        elif self._pool is not None and not self._pool.alive:
            stuck = "the loop of the ASGI application has ended"
        elif self._pool is not None and self._pool.stuck_for(now) > self.config.worker_timeout:
            stuck = "the loop of the ASGI application is stuck"
        if self.draining:
            self.check_drained()
        elif stuck:
            logger.error("%s; it has to be replaced", stuck)
            self._drain(hand_over=True)
        return not stuck

    def held(self) -> int:
        """How many connections there are."""
        return len(self.context.connections) if self.context is not None else 0

    def check_drained(self) -> None:
        """End, when draining and nobody is left."""
        if self.draining and self.is_idle():
            self.end()

    def _drop(self, context: ServerContext) -> None:
        unfinished = self.in_flight().splitlines()
        if unfinished:
            more = len(unfinished) - _MOST_TOLD
            rest = [f"and {more} more"] if more > 0 else []
            told = "; ".join([*unfinished[:_MOST_TOLD], *rest])
            logger.warning("time is up, and unfinished work is dropped: %s", told)
        context.abort()
        self.end()


def _descriptor(connection: object) -> int:
    """The descriptor that *connection* alone has; -1 where it is closed, or has none (HTTP/3)."""
    if not isinstance(connection, BaseConnection):
        return -1
    try:
        return connection.descriptor
    except OSError:
        return -1
