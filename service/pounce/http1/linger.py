"""The ends a connection can have: one that lets the client read all, and a reset.

Closing a socket that has unread input makes the kernel send a reset, and a reset lets the
client's kernel drop what it has received but not yet read (RFC 9112 section 9.6). So the
write side is closed first, and input is read and dropped for a while.
"""

import asyncio
import socket
import struct
from contextlib import suppress

from pounce.asgi.context import ServerContext
from pounce.http1.response import error_response

LINGER = 2.0
"""How long, in seconds, the client's input is dropped after all output has left."""


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


class LingeringClose(asyncio.Protocol):
    """Takes over a transport whose last bytes were written."""

    __slots__ = ("_context", "_deadline", "_transport", "_unsent")

    def __init__(self, context: ServerContext, transport: asyncio.Transport) -> None:
        self._context = context
        self._transport = transport
        self._unsent = transport.get_write_buffer_size()
        self._set_deadline(context.loop.time())
        context.ending.add(self)
        transport.set_protocol(self)
        try:
            transport.write_eof()
            transport.resume_reading()
        except (OSError, RuntimeError, NotImplementedError):
            # The client is gone (shutdown(2) says ENOTCONN), or the transport cannot close one
            # direction alone.
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Drop what the client still sends."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._context.leave(self)

    def sweep(self, now: float) -> None:
        """Close at last, counting the time since output stopped leaving."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent = unsent
            self._set_deadline(now)
        elif now >= self._deadline:
            self._transport.abort()

    def abort(self) -> None:
        """Close now."""
        reset(self._transport)

    def _set_deadline(self, now: float) -> None:
        patience = self._context.config.write_timeout if self._unsent else LINGER
        self._deadline = now + patience


def refuse_plaintext(context: ServerContext, transport: asyncio.Transport) -> None:
    """Answer a client that speaks HTTP where TLS is spoken; what it asks is not looked at."""
    reason = "this port speaks TLS: use https://"
    transport.write(error_response(context.defaults, 400, reason))
    LingeringClose(context, transport)
