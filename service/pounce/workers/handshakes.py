"""Connections on which TLS has yet to begin."""

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

from pounce.events.loggers import get_logger
from pounce.http.connections import ServerContext
from pounce.http.farewell import Carrier
from pounce.http.room import BEGUN, SILENT
from pounce.http1.connection import FIRST_REQUEST
from pounce.http1.linger import refuse_plaintext
from pounce.net.tls import TLS
from pounce.net.tls_transport import TLSTransport

logger = get_logger("pounce.worker")


class Handshake(Carrier):
    """A TLS handshake; *factory* makes the protocol of the connection once it is complete.

    It is a pounce.http.connections.Connection and a pounce.http.room.Newcomer.
    """

    busy, spare_since = False, inf

    def __init__(
        self, context: ServerContext, tls: TLS, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        self._context = context
        self._factory = factory
        self._deadline = context.loop.time() + context.config.header_timeout
        refuse = partial(refuse_plaintext, context)
        self.transport = TLSTransport(tls, self._succeed, refuse, context.turns)

    def begin(self) -> None:
        """Take a place among the worker's connections: `transport` is connected."""
        settled, context = self.transport.settled, self._context
        if not settled.done():
            peer = self.transport.get_extra_info("peername")
            context.connections.add(self)
            context.room.enter(self, peer if isinstance(peer, tuple) else None)
        if context.draining:
            self.drain()
        settled.add_done_callback(self._settled)

    @property
    def progress(self) -> int:
        """Whether the client has begun."""
        return BEGUN if self.transport.begun else SILENT

    def sweep(self, now: float) -> None:
        """Give it up when it takes too long; *now* is the loop's time."""
        if now >= self._deadline:
            logger.debug("a TLS handshake took longer than header_timeout")
            self.abort()

    def drain(self) -> None:
        """Where nobody serves meanwhile, wait only a moment longer."""
        if self._context.stopping:
            soon = self._context.loop.time() + FIRST_REQUEST
            self._deadline = min(self._deadline, soon)

    def in_flight(self, now: float, current: asyncio.Task[Any] | None) -> str:
        """No request is."""
        return ""

    def disconnect(self) -> None:
        """No application has to be told."""

    def expire(self) -> None:
        """Close it."""
        self.abort()

    def abort(self) -> None:
        """Close it."""
        self._context.connections.discard(self)
        self.transport.abort()

    def _succeed(self) -> asyncio.Protocol:
        """Give its place to the connection's protocol."""
        self._context.connections.discard(self)
        self._context.room.leave(self)
        return self._factory()

    def _settled(self, settled: asyncio.Future[None]) -> None:
        error = settled.exception()
        if error is not None:
            logger.debug("a TLS handshake failed: %s", error)
        self._context.leave(self)
