"""The worker that serves an application over HTTP/1.1."""

import socket
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from pounce.application.interface import Served
from pounce.config.plan import Listener
from pounce.http.connections import ServerContext
from pounce.http1.connection import HTTP1Connection
from pounce.ipc.handover import Passage
from pounce.net.forwarded import Client
from pounce.net.host import unix_path
from pounce.net.proxy_protocol import ProxyHeader
from pounce.net.tls import TLS
from pounce.websocket.upgrade import Upgrader
from pounce.workers.acceptor import Acceptor, Connector, ProtocolFactory, Source
from pounce.workers.base import Assignment
from pounce.workers.handshakes import Handshake
from pounce.workers.introductions import receive
from pounce.workers.passages import Arrivals, Departures
from pounce.workers.serving import ServingWorker

Server: TypeAlias = tuple[str, int | None]

# How many more connections than the least loaded of its siblings a worker may hold and still
# accept at once; an eighth more when there are many.
_TOLERANCE = 2


class Worker(ServingWorker):
    """Serves HTTP/1.1 and WebSockets on the listeners of its assignment."""

    def __init__(self, assignment: Assignment, load: Callable[[], Served]) -> None:
        super().__init__(assignment, load)
        self._connector = Connector(self.loop, self.check_drained)
        self._departures = Departures(self.loop, assignment.handover)
        self._sources: list[Source] = []

    def is_idle(self) -> bool:
        """Whether no client is connected."""
        emptying = self.draining and any(source.is_open for source in self._sources)
        return super().is_idle() and not self._connector.arriving and not emptying

    def attach(self, context: ServerContext) -> None:
        """Prepare to accept."""
        if self.served.asgi is not None:
            context.websocket = Upgrader(self.config)
        mine = self.assignment
        self._sources = [
            Arrivals(self.loop, mine.handover, self._is_my_turn, partial(self._take_over, context)),
            *(self._acceptor(context, each) for each in mine.listeners),
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
            source.leave(stopping=self.stopping, left=self.check_drained)
        if self.context is not None:
            self.context.hand_over = self._departures.hand_over if hand_over else None
            self.context.stopping = self.stopping
        super().drain(hand_over=hand_over)

    def _acceptor(self, context: ServerContext, listener: Listener) -> Acceptor:
        serve = self._serve_proxied if listener.entry.proxy_protocol else self._serve_direct
        take = serve(context, listener, _server_address(listener.sock))
        free, closes = context.room.free, listener.closes
        return Acceptor(self.loop, listener.sock, self._is_my_turn, take, free, closes=closes)

    def _serve_direct(
        self, context: ServerContext, listener: Listener, server: Server
    ) -> Callable[[socket.socket], None]:
        tls = listener.tls
        scheme = "https" if tls else "http"
        # The port is the one that clients have found this service at.
        alt_svc = b'h3=":%d"; ma=86400' % (server[1] or 0) if listener.entry.http3 else b""
        defaults = context.add_defaults(alt_svc) if alt_svc else None

        def protocol() -> HTTP1Connection:
            return HTTP1Connection(context, scheme=scheme, server=server, defaults=defaults)

        return lambda sock: self._connect(context, sock, protocol, tls)

    def _serve_proxied(
        self, context: ServerContext, listener: Listener, server: Server
    ) -> Callable[[socket.socket], None]:
        tls = listener.tls

        def introduce(sock: socket.socket, peer: Client | None, header: ProxyHeader) -> None:
            scheme = "https" if tls or header.tls else "http"
            passage = Passage(scheme, header.server or server, header.client or peer, 0)
            self._take_over(context, sock, passage, tls)

        def take(sock: socket.socket) -> None:
            receive(context, sock, introduce)
            self.assignment.row.hold(self.held())

        return take

    def _take_over(
        self,
        context: ServerContext,
        sock: socket.socket,
        passage: Passage,
        tls: TLS | None = None,
    ) -> None:
        def protocol() -> HTTP1Connection:
            return HTTP1Connection(
                context, scheme=passage.scheme, server=passage.server, passage=passage
            )

        self._connect(context, sock, protocol, tls)

    def _connect(
        self,
        context: ServerContext,
        sock: socket.socket,
        factory: ProtocolFactory,
        tls: TLS | None,
    ) -> None:
        if tls is None:
            self._connector.connect(sock, factory)
        elif context.room.has_place():
            handshake = Handshake(context, tls, factory)
            self._connector.connect(sock, lambda: handshake.transport, handshake.begin)
        else:
            # To answer 503 takes a handshake, which costs more than many a request.
            context.room.note("refused without an answer")
            sock.close()
        self.assignment.row.hold(self.held())

    def held(self) -> int:
        """How many connections there are, with those that arrive."""
        return super().held() + self._connector.arriving

    def _is_my_turn(self) -> bool:
        """Whether this worker holds about as few connections as any of its generation."""
        mine = self.assignment
        least = mine.scoreboard.least_connections(mine.generation)
        # Without some tolerance, short connections would have everybody step back in turn.
        return self.held() <= least + _TOLERANCE + least // 8


def _server_address(listener: socket.socket) -> Server:
    """The listener's address as the ASGI scope's `server`."""
    name = listener.getsockname()
    return (unix_path(name), None) if listener.family == socket.AF_UNIX else (name[0], name[1])
