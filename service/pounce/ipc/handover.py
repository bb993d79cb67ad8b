"""Passing open client connections from one worker to another.

One pair of unix sockets lasts as long as the service. Workers that drain write connections into
it; workers of the generation that serves read them: whoever reads one owns it. Nothing is
addressed to a particular worker, so a connection that nobody has read yet is never lost with
one: it waits in the kernel's queue for the next reader.

The pair is SOCK_SEQPACKET, not SOCK_DGRAM: both keep messages whole, but a datagram queue holds
only net.unix.max_dgram_qlen messages, 10 by default, whatever their size (unix(7)).
"""

import errno
import json
import os
import socket
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, Self

from pounce.errors import is_shortage
from pounce.events.loggers import get_logger

logger = get_logger("pounce.worker")

# What a message may be at most: what a connection had received and not yet parsed (64 KiB, when
# one more read of 256 KiB came), and a few hundred bytes about it. It has to fit the sender's
# buffer, which the kernel makes twice as large as asked for, up to twice net.core.wmem_max
# (208 KiB).
_MAX_MESSAGE = 352 * 1024


# Seconds until a connection that met a crowd is tried again: soon enough for its client, and
# seldom enough to cost nothing.
PAUSE = 0.05


class Crowded(Exception):
    """As many descriptors wait to be taken as the user may have, by whatever program (unix(7)).

    Or the kernel has no memory for the message now.

    Unlike room in a queue, no event tells the end of that: try again after PAUSE.
    """


@dataclass(frozen=True, slots=True)
class Passage:
    """What is known of a connection besides its descriptor.

    *server* and *client* are addresses as the ASGI scope has them; *requests* were answered on
    it so far; *received* are bytes read but not yet parsed.
    """

    scheme: str
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    requests: int
    received: bytes = b""

    def encode(self) -> bytes:
        """As one message."""
        about = {**asdict(self), "received": None}
        return json.dumps(about).encode() + b"\n" + self.received

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """From one message."""
        line, _, received = message.partition(b"\n")
        about: dict[str, Any] = json.loads(line)
        for name in ("server", "client"):
            about[name] = tuple(about[name]) if about[name] is not None else None
        return cls(**{**about, "received": received})


SCOREBOARD: Final = "scoreboard"
QUIC: Final = "quic-secret"

MEMORIES: Final = (SCOREBOARD, QUIC)
"""The names of the memory that a keeper is given; what has another name is not pounce's."""


class Keeper(Protocol):
    """Where connections, and some memory, outlive the service, until its next run."""

    def recall(self, name: str) -> int | None:
        """The descriptor of the memory that an earlier run has left as *name*, if it did."""

    def remember(self, name: str, descriptor: int) -> None:
        """Keep the memory behind *descriptor*, instead of what an earlier run has left."""

    def recover(self) -> list[tuple[socket.socket, Passage]]:
        """The connections that an earlier run has left."""

    def forget(self) -> None:
        """They have new owners."""

    def keep(self, connection: socket.socket, passage: Passage) -> None:
        """Take *connection* over."""

    def finish(self) -> None:
        """Nothing more comes."""


class Handover:
    """The pair. Neither end ever blocks; every worker holds both."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_MESSAGE)

    @property
    def incoming(self) -> int:
        """The descriptor that is readable when a connection waits for an owner."""
        return self._reader.fileno()

    @property
    def outgoing(self) -> int:
        """The descriptor that is writable when there is room for another connection."""
        return self._writer.fileno()

    def give(self, connection: int, passage: Passage) -> bool:
        """Pass the descriptor *connection* on; false when there is no room now.

        Raises Crowded when it cannot be passed on now, and OSError when it never can be.
        The caller keeps its own descriptor and closes it: the connection stays open, since the
        message in the queue refers to it as well (SCM_RIGHTS, unix(7)).
        """
        try:
            socket.send_fds(self._writer, [passage.encode()], [connection])
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS or is_shortage(error):
                raise Crowded from error
            raise
        return True

    def take(self) -> tuple[socket.socket, Passage] | None:
        """A connection that becomes the caller's; None when none waits."""
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._reader, _MAX_MESSAGE, 1)
            except BlockingIOError:
                return None
            if taken := _taken(message, descriptors):
                return taken

    def close(self) -> None:
        """Close both ends; what waits in between is closed with them."""
        self._reader.close()
        self._writer.close()


def _taken(message: bytes, descriptors: list[int]) -> tuple[socket.socket, Passage] | None:
    if not descriptors:  # the kernel has closed it (unix(7))
        logger.warning(
            "a connection is lost in the handover, no descriptor was left for it: "
            "raise LimitNOFILE= or lower max_connections"
        )
        return None
    os.set_inheritable(descriptors[0], False)
    try:
        passage = Passage.decode(message)
        return socket.socket(fileno=descriptors[0]), passage
    # An application has the pair in its process, and can write anything to it.
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        logger.warning("what was handed over is no connection: %r", error)
        os.close(descriptors[0])
        return None
