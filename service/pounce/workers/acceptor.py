"""Taking in connections: from listeners that others accept from as well, and from other workers."""

import asyncio
import errno
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable

from pounce.events.loggers import get_logger
from pounce.events.seldom import Seldom

logger = get_logger("pounce.worker")

ProtocolFactory = Callable[[], asyncio.Protocol]

# What accept(2) says of a connection that has failed already in the queue, and which it has taken
# out: to be treated like EAGAIN (its manual page, "Error handling"). EPERM: a firewall forbids it.
_FAILED_IN_THE_QUEUE = frozenset(
    (
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
        errno.ETIMEDOUT,
    )
)

# What it says of a listener that is closed: the supervisor has told it to listen no more, or the
# program that pounce runs in has closed it.
_CLOSED = frozenset((errno.EINVAL, errno.EBADF))

# What it says when descriptors have run out: the connection stays in the queue, and the listener
# stays readable. So many others are closed for it, since the application needs some, too.
_NO_DESCRIPTOR = frozenset((errno.EMFILE, errno.ENFILE))
_FREED = 16

# Seconds until the next try: where others have been closed, and after any other error. To try at
# once would only burn the CPU.
_SOON = 0.005
_PAUSE = 0.5

# Long enough for a sibling whose loop turns, and short beside any request.
_STEP_BACK = 0.002


def _nothing() -> None:
    """What follows for a protocol that knows by itself when it is connected."""


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
        self,
        sock: socket.socket,
        factory: ProtocolFactory,
        connected: Callable[[], None] = _nothing,
    ) -> None:
        """Connect *sock* to a protocol that *factory* makes, then call *connected*."""
        sock.setblocking(False)
        task = self._loop.create_task(self._connect(sock, factory, connected))
        self._arriving.add(task)
        task.add_done_callback(self._settled)

    async def _connect(
        self, sock: socket.socket, factory: ProtocolFactory, connected: Callable[[], None]
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(factory, sock)
        except OSError as error:  # the client left
            logger.debug("a connection ended before it began: %s", error)
            sock.close()
        else:
            connected()

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

    @property
    def is_open(self) -> bool:
        """Whether it takes connections."""
        return self._open

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

    def leave(self, *, stopping: bool, left: Callable[[], None]) -> None:
        """Stop taking, because the worker drains; *left* is called if that takes time."""
        self.close()

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

    Where no descriptor is left, *free* is asked to close so many other connections. *closes* is
    whether a stop closes the listener (see pounce.supervisor.closing).

    The listener is shared with other workers and stays open when accepting stops, so it is
    watched with the loop's bare reader.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        is_my_turn: Callable[[], bool],
        take: Callable[[socket.socket], None],
        free: Callable[[int], bool],
        *,
        closes: bool,
    ) -> None:
        super().__init__(loop, listener.fileno(), is_my_turn)
        self._listener = listener
        self._take = take
        self._free = free
        self._seldom = Seldom()
        self._closes = closes
        self._emptying = False

    def take_one(self) -> None:
        """accept(2)."""
        self._accept()

    def leave(self, *, stopping: bool, left: Callable[[], None]) -> None:
        """Stop taking; at a stop that closes the listener, only after all that is in its queue."""
        if not (stopping and self._closes and self.is_open):
            self.close()
        elif not self._emptying:
            self._emptying = True
            self._loop.call_soon(self._take_rest, left)

    def _take_rest(self, left: Callable[[], None]) -> None:
        # One in each turn of the loop: the queue may be long.
        if self._accept():
            self._loop.call_soon(self._take_rest, left)
        else:
            self.close()
            left()

    def _accept(self) -> bool:
        """Whether there may be more."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError):
            return False  # a sibling was faster
        except OSError as error:
            if error.errno in _FAILED_IN_THE_QUEUE:
                return True
            if not (self._emptying and error.errno in _CLOSED):
                self._recover(error)
            return False
        self._take(connection)
        return True

    def _recover(self, error: OSError) -> None:
        """Try again later, so that a listener is never left for good."""
        if error.errno not in _NO_DESCRIPTOR:
            self._tell(f"{error.strerror}; the next try is in {_PAUSE} s")
            self.pause(_PAUSE)
        else:
            self._tell(
                f"{error.strerror}; connections without a request make room, and new ones wait; "
                "raise LimitNOFILE= or lower max_connections"
            )
            self.pause(_SOON if self._free(_FREED) else _PAUSE)

    def _tell(self, why: str) -> None:
        if self._seldom.is_due():
            logger.warning("a connection cannot be accepted: %s", why)
