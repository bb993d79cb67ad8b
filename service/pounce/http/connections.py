"""What one worker gives to all its connections."""

import asyncio
import contextvars
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from pounce.application import forks
from pounce.application.types import ASGIApp, Scope
from pounce.config.service import ServerConfig
from pounce.http.access_log import AccessLog, access_log_for
from pounce.http.defaults import DefaultHeaders
from pounce.http.farewell import Carrier, Farewell
from pounce.http.heads import Heads
from pounce.http.room import Room
from pounce.http.stream import FullStream, InFlight
from pounce.ipc.flight import MOST_LINES, FlightRecord
from pounce.ipc.handover import Passage
from pounce.net.forwarded import TrustedProxies
from pounce.net.turns import Turns

AFTERWARDS = " <- works on after its response"
"""Marks work whose response has ended, or whose client is gone."""

# Started eagerly, an application that never waits costs no trip through the loop.
_EAGERLY: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class Upgrade(Protocol):
    """An engine that goes on with a connection where HTTP/1.1 ends."""

    def __call__(
        self,
        context: "ServerContext",
        transport: asyncio.Transport,
        request: Scope,
        received: bytes,
        *,
        ended: bool,
    ) -> None:
        """Take *transport* over from the connection whose *request*, a scope, asks for it.

        *received* came after the request; with *ended* nothing more will.
        """


class Ending(Protocol):
    """A client connection of which only the end is left."""

    def sweep(self, now: float) -> None:
        """Enforce the timeouts; *now* is the loop's time. Called about twice a second."""

    def abort(self) -> None:
        """Drop the connection and cancel the application's task."""


class Describable(Protocol):
    """What the application works on."""

    def seen(self, now: float) -> None:
        """Note that it runs at *now*, by the monotonic clock."""

    def describe(self, now: float) -> str:
        """What it is and how long it has run, for a person."""


class Connection(Ending, Carrier, Protocol):
    """A live client connection, as its worker sees it."""

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""

    @property
    def spare_since(self) -> float:
        """Since when it may be closed for another's sake, by the loop's time; inf is never."""

    def expire(self) -> None:
        """Its time is up."""

    def in_flight(self, now: float, current: asyncio.Task[Any] | None) -> str:
        """The request in flight, for a person, or nothing; it changes nothing.

        *now* is the monotonic clock's time, and *current* the task that the loop runs.
        """

    def drain(self) -> None:
        """Serve what is here, accept no further request, then close."""

    def disconnect(self) -> None:
        """Have the application end its response: it is told that the client is gone."""


class Movable(Protocol):
    """A connection that another worker can go on with."""

    @property
    def gone(self) -> bool:
        """Whether nothing can be sent or received any more."""

    @property
    def descriptor(self) -> int:
        """Its descriptor."""

    def passage(self) -> Passage:
        """What a successor must know to go on with it."""

    def depart(self) -> None:
        """A successor has it: let go of it here, which the client does not see."""

    def abort(self) -> None:
        """Drop it and cancel the application's task."""


class CycleMaker(Protocol):
    """Makes what calls the application for a request; see pounce.asgi.cycle.Cycle."""

    def __call__(self, stream: FullStream, scope: Scope, context: "ServerContext") -> InFlight:
        """The cycle of the request that *scope* describes and *stream* carries.

        Later requests may have the same scope: an application gets a copy of it.
        """


@dataclass(slots=True)
class ServerContext:
    """The configuration, the application, and what the worker counts and keeps.

    *connections* are those that count towards `max_connections`, and *ending* those that do not
    any more; *room* decides which of them are closed for new ones. *state* is the lifespan's; each
    scope gets a shallow copy. *tasks* holds the application's tasks that outlived their response
    or their connection, and what each works on. *requests* counts completed ones.
    *extensions* are offered in every scope. *start_task* starts a coroutine on the running loop;
    the task may be done when it returns. *new_context* makes the context that a request's
    application runs in: no context variable that another request has set is in it.
    *hand_over* is set while the worker drains with a successor: it takes connections that are
    between requests. *stopping* is whether nobody serves meanwhile. *websocket* serves WebSockets;
    without it, requests for one are ordinary.
    *make_cycle* makes the cycles of requests that are not for the ASGI application on this loop.
    *idle_deadline* is the `deadline` of a connection that begins to be idle, and *most_requests* is
    max_requests_per_connection: no request has to ask the configuration, which all workers share.
    *flight* is told which requests are in flight. *swept* is when `sweep` was last called, by the
    monotonic clock. *births* is what `forks.births` is in this process, and not in a child.
    """

    config: ServerConfig
    app: ASGIApp
    state: dict[str, Any]
    loop: asyncio.AbstractEventLoop
    connections: set[Connection] = field(default_factory=set)
    ending: dict[Ending, None] = field(default_factory=dict)
    tasks: dict[asyncio.Task[None], Describable] = field(default_factory=dict)
    requests: int = 0
    extensions: dict[str, Any] = field(default_factory=dict)
    hand_over: Callable[[Movable], None] | None = None
    stopping: bool = False
    websocket: Upgrade | None = None
    make_cycle: CycleMaker | None = None
    draining: bool = False
    flight: FlightRecord = field(default_factory=FlightRecord)
    swept: float = field(default_factory=time.monotonic)
    births: int = field(default_factory=lambda: forks.births)
    idle_deadline: float = field(init=False)
    most_requests: int = field(init=False)
    defaults: DefaultHeaders = field(init=False)
    heads: Heads = field(init=False)
    farewell: Farewell = field(default_factory=Farewell)
    proxies: TrustedProxies = field(init=False)
    access_log: AccessLog | None = field(init=False)
    new_context: Callable[[], contextvars.Context] = field(init=False)
    room: Room = field(init=False)
    turns: Turns = field(init=False)
    start_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = field(init=False)
    _all_defaults: list[DefaultHeaders] = field(default_factory=list)
    _on_departure: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.idle_deadline = -self.config.keep_alive_timeout
        self.most_requests = self.config.max_requests_per_connection
        self.turns = Turns(self.loop)
        self.defaults = self.add_defaults()
        self.heads = Heads(self.loop)
        self.proxies = TrustedProxies(self.config.forwarded_allow, self.config.forwarded_fields)
        self.access_log = access_log_for(self.config, self.loop)
        self.room = Room(self.connections, self.config.max_connections, self.loop.time)
        # Here no application code has run yet. Later the current context may be a request's: the
        # loop runs a callback in the context of whoever asked for it, so the next request of a
        # connection is often read in the context of the last.
        self.new_context = contextvars.copy_context().copy
        self.start_task = _task_starter(self.loop, self.new_context)

    def add_defaults(self, alt_svc: bytes = b"") -> DefaultHeaders:
        """Default headers, kept up to date, of those who are told of *alt_svc* (RFC 7838)."""
        self._all_defaults.append(DefaultHeaders(self.config, alt_svc))
        return self._all_defaults[-1]

    @property
    def idle(self) -> bool:
        """Whether no client is connected and no application task runs."""
        return not self.connections and not self.ending and not self.tasks

    def sweep(self, now: float) -> int:
        """Enforce every connection's timeouts; returns how many of them are busy.

        *now* is the loop's time, and that is the monotonic clock's.
        """
        self.swept = now
        for defaults in self._all_defaults:
            defaults.refresh()
        self.room.sweep()
        busy = 0
        lines: list[str] = []
        for connection in list(self.connections):
            connection.sweep(now)
            if connection.busy:
                busy += 1
                if busy <= MOST_LINES:
                    lines.append(connection.in_flight(now, None))
        for each in list(self.ending):
            each.sweep(now)
        self.flight.sweep(lines)
        self.farewell.sweep(now, self.connections)
        return busy

    def in_flight(self) -> str:
        """A line for each request that the application works on, marked where the loop runs it.

        It is for a loop that is stuck: it only reads, and may be called by a signal handler or
        from another thread.
        """
        now = time.monotonic()  # the loop's own time has stopped
        current = asyncio.current_task(self.loop)
        lines = [connection.in_flight(now, current) for connection in list(self.connections)]
        lines += [f"{each.describe(now)}{AFTERWARDS}" for each in list(self.tasks.values())]
        return "".join(f"{line}\n" for line in lines if line)

    def drain(self, on_departure: Callable[[], None]) -> None:
        """Drain every connection; *on_departure* is called after each that leaves."""
        self.draining = True
        self._on_departure = on_departure
        for connection in list(self.connections):
            connection.drain()

    def disconnect(self) -> None:
        """Tell every request's application that its client is gone."""
        for connection in list(self.connections):
            connection.disconnect()

    def abort(self) -> None:
        """Drop every connection and cancel every task."""
        for each in [*self.connections, *self.ending]:
            each.abort()
        for task in list(self.tasks):
            task.cancel()

    def end(self, connection: Connection) -> None:
        """*connection* has nothing left to do but to close: it makes place for another."""
        self.connections.discard(connection)
        self.room.leave(connection)
        self.ending[connection] = None

    def leave(self, connection: Connection | Ending) -> None:
        """Forget *connection*, which has ended."""
        self.connections.discard(connection)
        self.room.leave(connection)
        self.ending.pop(connection, None)
        self._departed()

    def adopt(self, task: asyncio.Task[None], work: Describable) -> None:
        """Keep *task*, which does *work*, until it ends: no connection holds it any longer."""
        if not task.done() and task not in self.tasks:
            work.seen(self.loop.time())
            self.tasks[task] = work
            task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task, None)
        self._departed()

    def _departed(self) -> None:
        if self._on_departure is not None:
            self._on_departure()


def _task_starter(
    loop: asyncio.AbstractEventLoop, new_context: Callable[[], contextvars.Context]
) -> Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]:
    def start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.Task(coroutine, loop=loop, context=new_context(), **_EAGERLY)

    return start
