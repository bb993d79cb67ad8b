"""The worker that serves an ASGI application over HTTP/1.1."""

import socket
from collections.abc import Callable
from typing import Any

from pounce.asgi.context import ServerContext
from pounce.asgi.lifespan import Lifespan
from pounce.asgi.types import ASGIApp
from pounce.http1.connection import HTTP1Connection
from pounce.workers.acceptor import Acceptor
from pounce.workers.base import Assignment, LoopWorker


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
        self._acceptors: list[Acceptor] = []

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Use *state*, of a lifespan that runs elsewhere; call it before `run`."""
        self._state = state
        self._runs_lifespan = False

    def is_idle(self) -> bool:
        """Whether no client is connected."""
        if self._context is None:
            return True
        return self._context.idle and not any(each.arriving for each in self._acceptors)

    def load(self) -> None:
        """Import the application."""
        self._app = self._load()

    async def start(self) -> None:
        """Run the lifespan's startup and attach the listeners."""
        if self._runs_lifespan:
            lifespan = Lifespan(self._app, self.config.lifespan, self._state)
            await lifespan.startup()
            self._lifespan = lifespan
        context = ServerContext(
            config=self.config, app=self._app, state=self._state, loop=self.loop
        )
        self._context = context
        self._acceptors = [self._acceptor(context, sock) for sock in self.assignment.sockets]

    def serve(self) -> None:
        """Accept, unless a drain came first."""
        if not self.draining:
            for acceptor in self._acceptors:
                acceptor.open()

    def drain(self) -> None:
        """Stop accepting and let every connection finish."""
        for acceptor in self._acceptors:
            acceptor.close()
        if self._context is not None:
            self._context.drain(self._check_drained)
        self._check_drained()

    def stop(self) -> None:
        """Drop every connection."""
        if self._context is not None:
            self._context.abort()

    async def finish(self) -> None:
        """Run the lifespan's shutdown."""
        if self._lifespan is not None:
            await self._lifespan.shutdown()

    def tick(self, now: float) -> None:
        """Sweep the connections' timeouts and publish the counters."""
        busy = connections = requests = 0
        if self._context is not None:
            requests = self._context.requests
            for connection in list(self._context.connections):
                connection.sweep(now)
                busy += connection.busy
            connections = len(self._context.connections)
        self.assignment.row.beat(connections=connections, busy=busy, requests=requests)

    def _check_drained(self) -> None:
        if self.draining and self.is_idle():
            self.end()

    def _acceptor(self, context: ServerContext, listener: socket.socket) -> Acceptor:
        tls = self.assignment.ssl_context
        server = _server_address(listener)

        def protocol() -> HTTP1Connection:
            connection = HTTP1Connection(context, scheme="https" if tls else "http", server=server)
            if len(context.connections) >= self.config.max_connections:
                connection.refuse()
            return connection

        return Acceptor(self.loop, listener, protocol, self._check_drained, tls)


def _server_address(listener: socket.socket) -> tuple[str, int | None]:
    """The listener's address as the ASGI scope's `server`."""
    name = listener.getsockname()
    return (name, None) if listener.family == socket.AF_UNIX else (name[0], name[1])
