"""The ends a connection can have: one that lets the client read all, and a reset.

Closing a socket that has unread input makes the kernel send a reset, and a reset lets the
client's kernel drop what it has received but not yet read (RFC 9112 section 9.6). So the
write side is closed first, and input is read and dropped for a while.
"""

import asyncio
import select
import socket
import struct
from contextlib import suppress
from typing import Literal

from pounce.http.connections import ServerContext
from pounce.http1.response import error_response

LINGER = 2.0
"""How long, in seconds, the client may take to close its side, where it has sent all."""

INPUT_PAUSE = 5.0
"""How long, in seconds, a client that may still be sending may pause."""

LONGEST = 30.0
"""How long, in seconds, input is dropped in all. Both are nginx's: lingering_timeout and _time."""


_GONE = select.POLLHUP | select.POLLERR
_NO_LINGER = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """Drop a connection so that the client sees an error.

    What ends a response of unknown length is the end of the connection; one that fails must
    not look like that. Closing with a linger time of zero sends a TCP reset (socket(7)); a unix
    socket has none, there the client sees the end.
    """
    sock = transport.get_extra_info("socket")
    with suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def spare(transport: asyncio.Transport) -> None:
    """Drop a connection without the client's notice of an error, if it has got everything."""
    if transport.get_write_buffer_size():
        reset(transport)
    else:
        transport.close()


def look_at_client(descriptor: int) -> Literal["there", "sends no more", "gone"]:
    """What the client at the other end of *descriptor* has done, also behind unread input.

    Nothing else tells, where that is not read (POLLRDHUP, POLLHUP and POLLERR in poll(2)).
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    events = poll.poll(0)
    if not events:
        return "there"
    return "gone" if events[0][1] & _GONE else "sends no more"


class LingeringClose(asyncio.Protocol):
    """Takes over a transport whose last bytes were written.

    With *more* the client has not sent all of its request. *stall* is how long it may read nothing
    of what has yet to be sent, if that is not *write_timeout*.
    """

    __slots__ = (
        "_context",
        "_deadline",
        "_end",
        "_heard",
        "_pause",
        "_stall",
        "_transport",
        "_unsent",
    )

    _deadline: float
    _end: float

    def __init__(
        self,
        context: ServerContext,
        transport: asyncio.Transport,
        *,
        more: bool = False,
        stall: float | None = None,
    ) -> None:
        self._context = context
        self._transport = transport
        self._unsent = transport.get_write_buffer_size()
        self._pause = INPUT_PAUSE if more else LINGER
        self._stall = context.config.write_timeout if stall is None else stall
        self._heard = False
        self._output_moved(context.loop.time())
        self._take_place()
        transport.set_protocol(self)
        try:
            transport.write_eof()
            transport.resume_reading()
        except (OSError, RuntimeError, NotImplementedError):
            # The client is gone (shutdown(2) says ENOTCONN), or the transport cannot close one
            # direction alone.
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Drop what the client still sends, one reading a turn."""
        self._heard = True
        # uvloop reads 32 times, 8 MB in all, before it turns to others, where nobody stops it.
        self._transport.pause_reading()
        self._context.turns.later(self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._context.leave(self)

    def sweep(self, now: float) -> None:
        """Close at last, counting the time since the last output, and then since the last input."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent = unsent
            self._output_moved(now)
        # At a stop, somebody waits: input gives no more time.
        elif self._heard and not (unsent or self._context.stopping):
            self._pause = INPUT_PAUSE
            self._deadline = min(now + INPUT_PAUSE, self._end)
        if now >= self._deadline:
            self._transport.abort()
        self._heard = False

    def abort(self) -> None:
        """Close now."""
        reset(self._transport)

    def _output_moved(self, now: float) -> None:
        self._deadline = now + (self._stall if self._unsent else self._pause)
        self._end = now + LONGEST

    def _take_place(self) -> None:
        """Be one of those that end; the one that has lingered longest gives way to one too many."""
        ending = self._context.ending
        if len(ending) >= self._context.config.max_connections:
            oldest = next((each for each in ending if isinstance(each, LingeringClose)), None)
            if oldest is not None:
                oldest.give_way()
        ending[self] = None

    def give_way(self) -> None:
        """Close now, for another's sake; the client has had its time to read."""
        # At once: the transport tells of its end only in the loop's next turn.
        self._context.ending.pop(self, None)
        self._transport.abort()


def refuse_plaintext(context: ServerContext, transport: asyncio.Transport) -> None:
    """Answer a client that speaks HTTP where TLS is spoken; what it asks is not looked at."""
    reason = "this port speaks TLS: use https://"
    transport.write(error_response(context.defaults, 400, reason))
    LingeringClose(context, transport)
