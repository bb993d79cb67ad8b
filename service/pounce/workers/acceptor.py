"""Accepting connections from a listener that others accept from as well."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from ssl import SSLContext

logger = logging.getLogger("pounce.worker")

# What accept(2) says when descriptors or memory have run out: the connection stays in the
# queue and the listener stays readable, so trying again at once would only burn the CPU.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PAUSE = 0.5


class Acceptor:
    """Turns connections of *listener* into protocols made by *protocol_factory*.

    *on_settled* is called when one that was arriving has its protocol, or was lost.
    The listener is shared with other workers and stays open when accepting stops, so it is
    watched with the loop's bare reader and one connection is taken a turn: a worker that has
    others to serve leaves the next one to its siblings.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        protocol_factory: Callable[[], asyncio.Protocol],
        on_settled: Callable[[], None],
        ssl_context: SSLContext | None = None,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._protocol_factory = protocol_factory
        self._on_settled = on_settled
        self._ssl_context = ssl_context
        self._arriving: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._open = False

    @property
    def arriving(self) -> int:
        """Connections accepted but not yet known to their protocol."""
        return len(self._arriving)

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
        connection.setblocking(False)
        task = self._loop.create_task(self._connect(connection))
        self._arriving.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self._on_settled()

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol_factory, connection, ssl=self._ssl_context
            )
        except OSError as error:  # the client left, or its TLS handshake failed
            logger.debug("a connection ended before it began: %s", error)
            connection.close()

    def _pause(self, error: OSError) -> None:
        logger.warning(
            "accepting pauses for %s s: %s; raise LimitNOFILE= or lower max_connections",
            _PAUSE,
            error.strerror,
        )
        self._loop.remove_reader(self._listener.fileno())
        self._resume = self._loop.call_later(_PAUSE, self.open)
