"""The worker that serves an ASGI application over HTTP/1.1."""

import socket
from collections.abc import Callable
from functools import partial
from ssl import SSLContext
from typing import Any, TypeAlias

from pounce.asgi.context import ServerContext
from pounce.asgi.lifespan import Lifespan
from pounce.asgi.types import ASGIApp
from pounce.handover import Passage
from pounce.http1.connection import HTTP1Connection
from pounce.net.forwarded import Client
from pounce.net.proxy_protocol import ProxyHeader
from pounce.websocket.upgrade import upgrade
from pounce.workers.acceptor import Acceptor, Connector, ProtocolFactory, Source
from pounce.workers.base import Assignment, Endpoint, LoopWorker
from pounce.workers.introductions import Introductions
from pounce.workers.passages import Arrivals, Departures

Server: TypeAlias = tuple[str, int | None]

# How many more connections than the least loaded of its siblings a worker may hold and still
# accept at once; an eighth more when there are many.
_TOLERANCE = 2


class Worker(LoopWorker):
    """Serves what *load* gives it, on the listeners of its assignment.

    It runs the application's lifespan in its own loop, unless `set_lifespan_state` says that
    somebody else does.
    """

    def __init__(self, assignment: Assignment, load: Callable[[], ASGIApp]) -> None:
        super().__init__(assignment)
        self._load = load
        self._state: dict[str, Any] = {}
        self._lifespan: Lifespan | None = None
        self._runs_lifespan = True
        self._context: ServerContext | None = None
        self._connector = Connector(self.loop, self._check_drained)
        self._departures = Departures(self.loop, assignment.handover)
        self._sources: list[Source] = []

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Use *state*, of a lifespan that runs elsewhere; call it before `run`."""
        self._state = state
        self._runs_lifespan = False

    def is_idle(self) -> bool:
        """Whether no client is connected."""
        return self._context is None or (
            self._context.idle and not self._connector.arriving and not self._introductions.waiting
        )

    def in_flight(self) -> str:
        """The requests in flight, one a line, for a person; callable while the loop is stuck."""
        return self._context.in_flight() if self._context is not None else ""

    def load(self) -> None:
        """Import the application."""
        self._app = self._load()

    async def start(self) -> None:
        """Run the lifespan's startup and attach the listeners."""
        if self._runs_lifespan:
            lifespan = Lifespan(self._app, self.config.lifespan, self._state)
            await lifespan.startup()
            self._lifespan = lifespan
        mine = self.assignment
        about = {"worker": mine.slot, "generation": mine.generation}
        context = ServerContext(
            config=self.config,
            app=self._app,
            state=self._state,
            loop=self.loop,
            extensions={"pounce": about},
            websocket=upgrade,
            flight=mine.flight,
        )
        self._introductions = Introductions(
            self.loop, self.config, context.proxies, self._check_drained
        )
        self._context = context
        self._sources = [
            Arrivals(self.loop, mine.handover, self._is_my_turn, partial(self._take_over, context)),
            *(self._acceptor(context, sock) for sock in mine.sockets),
        ]

    def serve(self) -> None:
        """Accept, unless a drain came first."""
        if not self.draining:
            self.assignment.row.serve(self.assignment.generation)
            for source in self._sources:
                source.open()

    def drain(self, *, hand_over: bool) -> None:
        """Take in nothing more, let every connection finish or give it away."""
        self.assignment.row.serve(0)
        for source in self._sources:
            source.close()
        if self._context is not None:
            self._introductions.hurry()
            self._context.hand_over = self._departures.hand_over if hand_over else None
            self._context.drain(self._check_drained)
        self._check_drained()

    def stop(self, grace: float) -> None:
        """Tell handlers that their clients are gone; drop what is left after *grace* seconds."""
        if self._context is None:
            self.end()
        else:
            self._context.disconnect()
            self.loop.call_later(grace, self._drop, self._context)
            self._check_drained()

    def _drop(self, context: ServerContext) -> None:
        context.abort()
        self.end()

    async def finish(self) -> None:
        """Run the lifespan's shutdown."""
        if self._lifespan is not None:
            await self._lifespan.shutdown()

    def tick(self, now: float) -> None:
        """Sweep the connections' timeouts and publish the counters."""
        busy = connections = requests = 0
        if self._context is not None:
            busy = self._context.sweep(now)
            self._introductions.sweep(now)
            requests = self._context.requests
            connections = self._held()
        self.assignment.row.beat(connections=connections, busy=busy, requests=requests)

    def _check_drained(self) -> None:
        if self.draining and self.is_idle():
            self.end()

    def _acceptor(self, context: ServerContext, listener: socket.socket) -> Acceptor:
        endpoint = self.assignment.endpoints[listener.fileno()]
        serve = self._serve_proxied if endpoint.entry.proxy_protocol else self._serve_direct
        take = serve(context, endpoint, _server_address(listener))
        return Acceptor(self.loop, listener, self._is_my_turn, take)

    def _serve_direct(
        self, context: ServerContext, endpoint: Endpoint, server: Server
    ) -> Callable[[socket.socket], None]:
        tls = endpoint.ssl_context
        scheme = "https" if tls else "http"

        def protocol() -> HTTP1Connection:
            return HTTP1Connection(context, scheme=scheme, server=server)

        return lambda sock: self._connect(sock, protocol, tls)

    def _serve_proxied(
        self, context: ServerContext, endpoint: Endpoint, server: Server
    ) -> Callable[[socket.socket], None]:
        tls = endpoint.ssl_context

        def introduce(sock: socket.socket, peer: Client | None, header: ProxyHeader) -> None:
            scheme = "https" if tls or header.tls else "http"
            passage = Passage(scheme, header.server or server, header.client or peer, 0)
            self._take_over(context, sock, passage, tls)

        def take(sock: socket.socket) -> None:
            self._introductions.receive(sock, introduce)
            self.assignment.row.hold(self._held())

        return take

    def _take_over(
        self,
        context: ServerContext,
        sock: socket.socket,
        passage: Passage,
        tls: SSLContext | None = None,
    ) -> None:
        def protocol() -> HTTP1Connection:
            return HTTP1Connection(
                context, scheme=passage.scheme, server=passage.server, passage=passage
            )

        self._connect(sock, protocol, tls)

    def _connect(
        self, sock: socket.socket, factory: ProtocolFactory, tls: SSLContext | None = None
    ) -> None:
        self._connector.connect(sock, factory, tls)
        self.assignment.row.hold(self._held())

    def _held(self) -> int:
        connections = len(self._context.connections) if self._context is not None else 0
        return connections + self._connector.arriving + self._introductions.waiting

    def _is_my_turn(self) -> bool:
        """Whether this worker holds about as few connections as any of its generation."""
        mine = self.assignment
        least = mine.scoreboard.least_connections(mine.generation)
        # Without some tolerance, short connections would have everybody step back in turn.
        return self._held() <= least + _TOLERANCE + least // 8


def _server_address(listener: socket.socket) -> Server:
    """The listener's address as the ASGI scope's `server`."""
    name = listener.getsockname()
    return (name, None) if listener.family == socket.AF_UNIX else (name[0], name[1])
