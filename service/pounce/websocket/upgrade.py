"""Where HTTP/1.1 ends and WebSocket begins: a connection changes hands, or is refused."""

import asyncio

from pounce.application.types import Scope
from pounce.config.service import ServerConfig
from pounce.http.connections import ServerContext
from pounce.http1.linger import LingeringClose
from pounce.http1.response import error_response
from pounce.websocket.connection import WebSocketConnection
from pounce.websocket.handshake import BadHandshake, Handshake, read_handshake
from pounce.websocket.memory import MessageMemory

# What may have been read, in one piece, behind a message: it counts before it is looked at.
_BEHIND = 262_144


class Upgrader:
    """Takes connections over from HTTP, for one worker; see pounce.http.connections.Upgrade."""

    def __init__(self, config: ServerConfig) -> None:
        # A client that is alone may send messages as large as they may be, one behind the other.
        least = config.websocket_max_size + _BEHIND
        self._memory = MessageMemory(max(config.websocket_max_memory, least))

    def __call__(
        self,
        context: ServerContext,
        transport: asyncio.Transport,
        request: Scope,
        received: bytes,
        *,
        ended: bool,
    ) -> None:
        """Take *transport* over from the connection on which *request* asks for WebSocket.

        *received* came after the request; with *ended* nothing more will.
        """
        try:
            handshake = _admit(context, request)
        except BadHandshake as bad:
            _refuse(context, transport, request, bad)
            return
        connection = WebSocketConnection(context, request, handshake, self._memory)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.start()
        if received:
            connection.data_received(received)
        if ended:
            connection.eof_received()


def _admit(context: ServerContext, request: Scope) -> Handshake:
    if context.draining:
        raise BadHandshake(503, "shutting down", ((b"retry-after", b"1"),))
    compression = context.config.websocket_compression
    return read_handshake(request["method"], request["headers"], compression=compression)


def _refuse(
    context: ServerContext, transport: asyncio.Transport, request: Scope, bad: BadHandshake
) -> None:
    log = context.access_log
    if log is not None:
        log.request(request, bad.status, 0, log.clock())
    transport.write(error_response(context.defaults, bad.status, bad.reason, bad.fields))
    LingeringClose(context, transport)
