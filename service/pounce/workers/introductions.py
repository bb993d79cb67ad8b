"""Connections whose PROXY header has yet to come, on listeners where every one begins with it.

The header is taken off the socket before the connection gets its transport, and not a byte more
than the header: what follows may be HTTP or a TLS handshake.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from pounce.config import ServerConfig
from pounce.net.forwarded import Client, TrustedProxies
from pounce.net.proxy_protocol import MAX_HEADER, BadHeader, ProxyHeader, read_header

logger = logging.getLogger("pounce.worker")

Take = Callable[[socket.socket, Client | None, ProxyHeader], None]

HURRY = 1.0
"""How long, in seconds, a drain waits for a header: a proxy sends it as it connects."""


class Introduction:
    """A connection from *peer* that goes to *take*, with its header, once that has come."""

    def __init__(self, sock: socket.socket, peer: Client | None, take: Take) -> None:
        self.sock = sock
        self.peer = peer
        self.take = take
        self.deadline = 0.0
        self._taken = b""

    def take_header(self) -> ProxyHeader | None:
        """Take as much of the header off the socket as is there; the header if that was its end.

        Raises BadHeader, EOFError where nothing came but the end, and OSError.
        """
        ahead = self.sock.recv(MAX_HEADER, socket.MSG_PEEK)
        if not ahead:
            raise BadHeader("it ended within its PROXY header") if self._taken else EOFError
        header = read_header(self._taken + ahead)
        # What is incomplete is all header. It must not stay: the socket would be readable for it.
        self._taken += self.sock.recv(header.size - len(self._taken) if header else len(ahead))
        return header if header and len(self._taken) == header.size else None

    def refuse(self, why: str) -> None:
        """Close it, and say so."""
        peer = self.peer[0] if self.peer else "a unix socket"
        logger.warning("a connection from %s is closed: %s", peer, why)
        self.sock.close()


class Introductions:
    """Waits for headers; *on_settled* is called after each that has come or will not.

    Only trusted *proxies* are waited for: anybody else could pass for everybody. What is refused
    is closed, and the log says why.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: ServerConfig,
        proxies: TrustedProxies,
        on_settled: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._patience = config.header_timeout
        self._limit = config.max_connections
        self._proxies = proxies
        self._on_settled = on_settled
        self._waiting: set[Introduction] = set()

    @property
    def waiting(self) -> int:
        """Connections whose header has not come."""
        return len(self._waiting)

    def receive(self, sock: socket.socket, take: Take) -> None:
        """Give *sock* to *take* with its header, once it has come; or close it."""
        sock.setblocking(False)
        try:
            coming = Introduction(sock, peer_of(sock), take)
        except OSError:  # it has left
            sock.close()
            return
        if not self._proxies.trusts_peer(coming.peer):
            coming.refuse("its listener is for proxies, and it is not in forwarded_allow")
        elif len(self._waiting) >= self._limit:
            coming.refuse("max_connections others wait for their PROXY header")
        else:
            coming.deadline = self._loop.time() + self._patience
            self._waiting.add(coming)
            self._loop.add_reader(sock.fileno(), self._ready, coming)

    def hurry(self) -> None:
        """The worker drains: wait only a moment longer."""
        soon = self._loop.time() + HURRY
        for coming in self._waiting:
            coming.deadline = min(coming.deadline, soon)

    def sweep(self, now: float) -> None:
        """Give up what takes too long; *now* is the loop's time."""
        for coming in [each for each in self._waiting if now >= each.deadline]:
            self._settle(coming)
            coming.refuse("its PROXY header did not come in time")
            self._on_settled()

    def _ready(self, coming: Introduction) -> None:
        try:
            header = coming.take_header()
        except (BlockingIOError, InterruptedError):
            return
        except BadHeader as error:
            self._settle(coming)
            coming.refuse(str(error))
        except (OSError, EOFError) as error:
            self._settle(coming)
            logger.debug("a connection ended before its PROXY header: %r", error)
            coming.sock.close()
        else:
            if header is None:
                return
            self._settle(coming)
            coming.take(coming.sock, coming.peer, header)
        self._on_settled()

    def _settle(self, coming: Introduction) -> None:
        self._loop.remove_reader(coming.sock.fileno())
        self._waiting.discard(coming)


def peer_of(sock: socket.socket) -> Client | None:
    """The peer's address as the ASGI scope's `client`; None for a unix socket's.

    Raises OSError where it has left.
    """
    name = sock.getpeername()
    return (name[0], name[1]) if isinstance(name, tuple) else None
