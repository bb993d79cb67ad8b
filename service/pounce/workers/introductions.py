"""Connections whose PROXY header has yet to come, on listeners where every one begins with it.

The header is taken off the socket before the connection gets its transport, and not a byte more
than the header: what follows may be HTTP or a TLS handshake.
"""

import asyncio
import socket
from collections.abc import Callable
from math import inf
from typing import Any

from pounce.events.loggers import get_logger
from pounce.http.connections import ServerContext
from pounce.http.farewell import Carrier
from pounce.http.room import BEGUN, SILENT
from pounce.net.forwarded import Client
from pounce.net.proxy_protocol import MAX_HEADER, BadHeader, ProxyHeader, read_header

logger = get_logger("pounce.worker")

Take = Callable[[socket.socket, Client | None, ProxyHeader], None]

HURRY = 1.0
"""How long, in seconds, a drain waits for a header: a proxy sends it as it connects."""


class Introduction(Carrier):
    """A connection from *peer* that goes to *take*, with its header, once that has come.

    It is a pounce.http.connections.Connection and a pounce.http.room.Newcomer.
    """

    busy, spare_since = False, inf

    def __init__(
        self, context: ServerContext, sock: socket.socket, peer: Client | None, take: Take
    ) -> None:
        self._context = context
        self._sock = sock
        self._peer = peer
        self._take = take
        self._deadline = context.loop.time() + context.config.header_timeout
        self._taken = b""
        context.connections.add(self)
        context.room.enter(self, peer)
        context.loop.add_reader(sock.fileno(), self._ready)

    @property
    def progress(self) -> int:
        """How much of the header is here."""
        return BEGUN if self._taken else SILENT

    def sweep(self, now: float) -> None:
        """Give it up when it takes too long; *now* is the loop's time."""
        if now >= self._deadline:
            self._refuse("its PROXY header did not come in time")

    def drain(self) -> None:
        """Wait only a moment longer."""
        self._deadline = min(self._deadline, self._context.loop.time() + HURRY)

    def in_flight(self, now: float, current: asyncio.Task[Any] | None) -> str:
        """No request is."""
        return ""

    def disconnect(self) -> None:
        """No application has to be told."""

    def expire(self) -> None:
        """Close it."""
        self._stop_waiting()
        self._sock.close()
        self._context.leave(self)

    def abort(self) -> None:
        """Close it."""
        self.expire()

    def _ready(self) -> None:
        try:
            header = self._take_header()
        except (BlockingIOError, InterruptedError):
            return
        except BadHeader as error:
            self._refuse(str(error))
        except (OSError, EOFError) as error:
            logger.debug("a connection ended before its PROXY header: %r", error)
            self.expire()
        else:
            if header is not None:
                self._introduce(header)

    def _take_header(self) -> ProxyHeader | None:
        """Take as much of the header off the socket as is there; the header if that was its end.

        Raises BadHeader, EOFError where nothing came but the end, and OSError.
        """
        ahead = self._sock.recv(MAX_HEADER, socket.MSG_PEEK)
        if not ahead:
            raise BadHeader("it ended within its PROXY header") if self._taken else EOFError
        header = read_header(self._taken + ahead)
        # What is incomplete is all header. It must not stay: the socket would be readable for it.
        self._taken += self._sock.recv(header.size - len(self._taken) if header else len(ahead))
        return header if header and len(self._taken) == header.size else None

    def _introduce(self, header: ProxyHeader) -> None:
        self._stop_waiting()
        self._take(self._sock, self._peer, header)
        # Last, so that a draining worker does not think that nobody is left.
        self._context.leave(self)

    def _refuse(self, why: str) -> None:
        _log_refusal(self._peer, why)
        self.expire()

    def _stop_waiting(self) -> None:
        """Give its place to what comes next on the same socket."""
        self._context.loop.remove_reader(self._sock.fileno())
        self._context.connections.discard(self)


def receive(context: ServerContext, sock: socket.socket, take: Take) -> None:
    """Give *sock* to *take* with its header, once it has come; or close it.

    Only trusted proxies are waited for: anybody else could pass for everybody.
    """
    sock.setblocking(False)
    try:
        peer = peer_of(sock)
    except OSError:  # it has left
        sock.close()
        return
    if not context.proxies.trusts_peer(peer):
        _log_refusal(peer, "its listener is for proxies, and it is not in forwarded_allow")
        sock.close()
    elif context.room.has_place():
        Introduction(context, sock, peer, take)
    else:
        context.room.note("refused without an answer")
        sock.close()


def _log_refusal(peer: Client | None, why: str) -> None:
    host = peer[0] if peer else "a unix socket"
    logger.warning("a connection from %s is closed: %s", host, why)


def peer_of(sock: socket.socket) -> Client | None:
    """The peer's address as the ASGI scope's `client`; None for a unix socket's.

    Raises OSError where it has left.
    """
    name = sock.getpeername()
    return (name[0], name[1]) if isinstance(name, tuple) else None
