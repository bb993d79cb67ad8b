"""Taking in connections: from listeners that others accept from as well, and from other workers."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from ssl import SSLContext

logger = logging.getLogger("pounce.worker")

ProtocolFactory = Callable[[], asyncio.Protocol]

# What accept(2) says when descriptors or memory have run out: the connection stays in the
# queue and the listener stays readable, so trying again at once would only burn the CPU.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PAUSE = 0.5


class Connector:
    """Gives accepted sockets their transports; *on_settled* is called after each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_settled: Callable[[], None]) -> None:
        self._loop = loop
        self._on_settled = on_settled
        self._arriving: set[asyncio.Task[None]] = set()

    @property
    def arriving(self) -> int:
        """Connections that are accepted but not yet known to their protocol."""
        return len(self._arriving)

    def connect(
        self, sock: socket.socket, factory: ProtocolFactory, ssl_context: SSLContext | None = None
    ) -> None:
        """Connect *sock* to a protocol that *factory* makes."""
        sock.setblocking(False)
        task = self._loop.create_task(self._connect(sock, factory, ssl_context))
        self._arriving.add(task)
        task.add_done_callback(self._settled)

    async def _connect(
        self, sock: socket.socket, factory: ProtocolFactory, ssl_context: SSLContext | None
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(factory, sock, ssl=ssl_context)
        except OSError as error:  # the client left, or its TLS handshake failed
            logger.debug("a connection ended before it began: %s", error)
            sock.close()

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self._on_settled()


class Acceptor:
    """Accepts from *listener* and gives each connection to *take*.

    The listener is shared with other workers and stays open when accepting stops, so it is
    watched with the loop's bare reader and one connection is taken a turn: a worker that has
    others to serve leaves the next one to its siblings.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        take: Callable[[socket.socket], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._take = take
        self._resume: asyncio.TimerHandle | None = None
        self._open = False

    def open(self) -> None:
        """Start accepting."""
        self._open = True
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting; the listener itself stays as it is."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener.fileno())
            if self._resume is not None:
                self._resume.cancel()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # a sibling was faster, or the client has left the queue (accept(2))
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause(error)
            return
        self._take(connection)

    def _pause(self, error: OSError) -> None:
        logger.warning(
            "accepting pauses for %s s: %s; raise LimitNOFILE= or lower max_connections",
            _PAUSE,
            error.strerror,
        )
        self._loop.remove_reader(self._listener.fileno())
        self._resume = self._loop.call_later(_PAUSE, self.open)
