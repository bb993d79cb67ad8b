"""Taking in connections: from listeners that others accept from as well, and from other workers."""

import asyncio
import errno
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable

from pounce.net.tls_transport import TLSTransport

logger = logging.getLogger("pounce.worker")

ProtocolFactory = Callable[[], asyncio.Protocol]

# What accept(2) says when descriptors or memory have run out: the connection stays in the
# queue and the listener stays readable, so trying again at once would only burn the CPU.
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_PAUSE = 0.5

# Long enough for a sibling whose loop turns, and short beside any request.
_STEP_BACK = 0.002


class Connector:
    """Gives accepted sockets their transports; *on_settled* is called after each.

    A TLS handshake that takes longer than *handshake_timeout* seconds is given up.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handshake_timeout: float,
        on_settled: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._handshake_timeout = handshake_timeout
        self._on_settled = on_settled
        self._arriving: set[asyncio.Task[None]] = set()

    @property
    def arriving(self) -> int:
        """Connections that are accepted but not yet known to their protocol."""
        return len(self._arriving)

    def connect(self, sock: socket.socket, factory: ProtocolFactory) -> None:
        """Connect *sock* to a protocol that *factory* makes, which may be a TLSTransport."""
        sock.setblocking(False)
        task = self._loop.create_task(self._connect(sock, factory))
        self._arriving.add(task)
        task.add_done_callback(self._settled)

    def hurry(self, seconds: float) -> None:
        """Give up, *seconds* from now, those whose TLS handshake is not complete by then."""
        for task in self._arriving:
            self._loop.call_later(seconds, task.cancel)

    async def _connect(self, sock: socket.socket, factory: ProtocolFactory) -> None:
        try:
            _, protocol = await self._loop.connect_accepted_socket(factory, sock)
        except OSError as error:  # the client left
            logger.debug("a connection ended before it began: %s", error)
            sock.close()
        else:
            if isinstance(protocol, TLSTransport):
                await self._shake_hands(protocol)

    async def _shake_hands(self, connection: TLSTransport) -> None:
        try:
            async with asyncio.timeout(self._handshake_timeout):
                await connection.settled
        except TimeoutError:
            logger.debug("a TLS handshake took longer than %g s", self._handshake_timeout)
            connection.abort()
        except OSError as error:
            logger.debug("a TLS handshake failed: %s", error)
        except asyncio.CancelledError:  # the worker ends
            connection.abort()
            raise

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self._on_settled()


class Source(ABC):
    """A descriptor from which several workers take connections, one a turn of their loops.

    A worker whose turn it is not steps back for a moment, and leaves what is there to those
    who hold fewer connections; after that it takes one in any case.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptor: int, is_my_turn: Callable[[], bool]
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._is_my_turn = is_my_turn
        self._return: asyncio.TimerHandle | None = None
        self._open = False

    def open(self) -> None:
        """Start taking."""
        self._open = True
        self._loop.add_reader(self._descriptor, self._ready)

    def close(self) -> None:
        """Stop taking; the descriptor itself stays as it is."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            if self._return is not None:
                self._return.cancel()

    @abstractmethod
    def take_one(self) -> None:
        """Take a connection, if there is still one."""

    def pause(self, seconds: float) -> None:
        """Leave the descriptor alone for a while, though it is readable."""
        self._loop.remove_reader(self._descriptor)
        self._return = self._loop.call_later(seconds, self._come_back)

    def _ready(self) -> None:
        if self._is_my_turn():
            self.take_one()
        else:
            self.pause(_STEP_BACK)

    def _come_back(self) -> None:
        self.open()
        self.take_one()


class Acceptor(Source):
    """Accepts from *listener* and gives each connection to *take*.

    The listener is shared with other workers and stays open when accepting stops, so it is
    watched with the loop's bare reader.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        is_my_turn: Callable[[], bool],
        take: Callable[[socket.socket], None],
    ) -> None:
        super().__init__(loop, listener.fileno(), is_my_turn)
        self._listener = listener
        self._take = take

    def take_one(self) -> None:
        """accept(2)."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # a sibling was faster, or the client has left the queue (accept(2))
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            logger.warning(
                "accepting pauses for %s s: %s; raise LimitNOFILE= or lower max_connections",
                _PAUSE,
                error.strerror,
            )
            self.pause(_PAUSE)
            return
        self._take(connection)
