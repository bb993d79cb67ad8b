"""One WebSocket on a client's connection, from its handshake to its close.

==========  =============================  ==========================================
situation   held                           `deadline`
==========  =============================  ==========================================
connecting  no engine, `closed` is None    none: the application takes its time
open        an engine, `closed` is None    none: silence is what pings are for
closing     `closed`, the engine not ended closes, though the client has not answered
gone        `gone` is true                 aborts
==========  =============================  ==========================================
"""

import asyncio
import random
from collections import deque
from math import inf
from sys import getsizeof
from typing import Any

from pounce.application.types import Scope
from pounce.asgi.websocket import WebSocketCycle, websocket_scope
from pounce.http.connections import ServerContext
from pounce.http1.base import BaseConnection
from pounce.http1.response import ResponseWriter, error_response
from pounce.websocket.engine import ABNORMAL, Close, Message, WebSocketEngine
from pounce.websocket.handshake import Handshake, accept_response
from pounce.websocket.memory import MessageMemory

RECEIVE_BUFFER = 65_536
"""Reading pauses while messages of more than this many bytes wait for the application."""

# What is longer waits for its turn. A client that sends one short message after the other is
# answered in the turn of the loop that reads it.
_LITTLE = 1024

CLOSE_TIMEOUT = 5.0
"""How long, in seconds, a client may take to answer a close frame."""

# When, in parts of reload_timeout, an old generation's WebSockets are closed: the clients, who
# will all connect again, come one after the other. The rest is for closing.
_RELOAD_WINDOW = (0.7, 0.95)

_STOP_WINDOW = 1.0  # the same at a stop, in seconds from its start, which somebody waits for

RESTART = Close(1012, "service restart")
TRY_AGAIN = Close(1013, "too much is under way")  # IANA's registry of close codes


class WebSocketConnection(BaseConnection):
    """Carries one WebSocket; see pounce.asgi.websocket.Socket for what its cycle asks for."""

    __slots__ = (
        "_counted",
        "_cycle",
        "_engine",
        "_handshake",
        "_heard",
        "_held",
        "_memory",
        "_messages",
        "_patience",
        "_pinged",
        "_pongs",
        "_response",
        "_retirement",
        "_task",
        "_unread",
        "closed",
    )

    def __init__(
        self,
        context: ServerContext,
        request: Scope,
        handshake: Handshake,
        memory: MessageMemory,
    ) -> None:
        super().__init__(context, request["scheme"], request["server"])
        self._handshake = handshake
        self._engine: WebSocketEngine | None = None
        self._response: ResponseWriter | None = None
        self._messages: deque[Message] = deque()
        self._memory = memory
        self._held = self._counted = 0
        self._unread = bytearray()
        self._pongs = b""
        self._heard, self._pinged, self._patience = True, False, inf
        self._retirement: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._cycle = WebSocketCycle(
            self, websocket_scope(request, handshake.subprotocols), context
        )
        self.closed: Close | None = None

    def start(self) -> None:
        """Call the application."""
        task = self._context.start_task(self._cycle.run())
        if self.gone:
            self._context.adopt(task, self._cycle)
        elif not task.done():
            self._task = task

    # What the worker asks for.

    @property
    def busy(self) -> bool:
        """Whether the WebSocket is open, or may yet be."""
        return self.closed is None

    def in_flight(self, now: float, current: asyncio.Task[Any] | None) -> str:
        """The WebSocket, for a person; see pounce.http.connections.Connection."""
        if self.closed is not None:
            return ""
        running = self._task is None or self._task is current
        return self._cycle.describe(now) + (" <- running" if running else "")

    def sweep(self, now: float) -> None:
        """Enforce the timeouts, and see whether the client is still there."""
        super().sweep(now)
        if self._engine is not None and self.closed is None:
            self._keep_alive(now)

    def drain(self) -> None:
        """Go on for a while, each for another, and then close."""
        config, loop = self._context.config, self._context.loop
        if self._context.hand_over is not None:
            first, last = (part * config.reload_timeout for part in _RELOAD_WINDOW)
        else:
            first, last = 0.0, min(_STOP_WINDOW, config.shutdown_timeout / 2)
        # Not a matter of security, but of spreading.
        delay = random.uniform(first, last)  # noqa: S311
        self._retirement = loop.call_later(delay, self.disconnect)

    def disconnect(self) -> None:
        """Close now, so that the client connects anew; the application is told, too."""
        if self.closed is not None:
            return
        if self._engine is not None:
            self.close(*RESTART)
        elif self._response is None or not self._response.head_sent:
            self._refuse(RESTART, "shutting down")

    def _refuse(self, how: Close, reason: str) -> None:
        """Answer the handshake in the application's place, which is told *how*."""
        self._cycle.answered(503)
        self._transport.write(error_response(self._context.defaults, 503, reason))
        self._closing(how)
        self._linger()

    def abort(self) -> None:
        """Drop the connection and cancel the application's task."""
        if self.closed is None:
            self.reset()
        else:
            # A reset could take from the client the close frame that it has not read yet.
            self._retire()
            self._transport.abort()
        if self._task is not None:
            self._task.cancel()

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The transport is this connection's now; it may have a past."""
        super().connection_made(transport)
        if transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]:
            self.pause_writing()
        transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._heard = True
        if self._behind or len(data) > _LITTLE or not self._wants_input():
            self._unread += data
            self._count()
            self._go_on()
        else:
            self._feed(data)
        if self._held or self._unread or self._reading_paused:
            self._throttle()

    def resume_writing(self) -> None:
        """What was written has gone out."""
        super().resume_writing()
        if self._pongs and self.closed is None:
            self._transport.write(self._pongs)
        self._pongs = b""

    def eof_received(self) -> bool:
        """The client will send no more, which without a close frame is no proper end."""
        self._eof = True
        self._read()
        return not self.gone

    # What the cycle asks for; see pounce.asgi.websocket.Socket.

    def accept(self, subprotocol: str | None, headers: Any) -> None:
        """Answer the handshake with 101."""
        context, handshake = self._context, self._handshake
        self._transport.write(accept_response(handshake, context.defaults, subprotocol, headers))
        self._engine = WebSocketEngine(
            context.config.websocket_max_size, handshake.extensions, self._unread
        )
        # Not from here: the application is still in its send().
        context.turns.later(self._read)

    def start_denial(self, status: int, headers: Any) -> None:
        """Take the head of another answer to the handshake."""
        if self._response is None:
            self._response = ResponseWriter(self._context.defaults, "GET", "1.1", False)
        self._response.start(status, headers)

    def send_denial(self, data: bytes, more: bool) -> None:
        """Write that answer's content, its head before it."""
        assert self._response is not None  # noqa: S101 - the cycle keeps the order
        for piece in self._response.body(data, more):
            self._transport.write(piece)
        if self._response.complete:
            self._linger()

    def take(self) -> Message | None:
        """The next message that has come."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._held -= getsizeof(message)
        if self._counted:
            self._count()
        if self._behind:
            self._go_on()
        elif self._reading_paused:
            self._throttle()
        return message

    def send(self, message: Message) -> None:
        """Write one message."""
        engine = self._engine
        assert engine is not None  # noqa: S101 - the cycle keeps the order
        self._transport.write(engine.send(message))

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; then wait for the client's."""
        engine = self._engine
        assert engine is not None  # noqa: S101 - the cycle keeps the order
        self._transport.write(engine.start_close(code, reason))
        self._closing(Close(code, reason))
        self._context.turns.later(self._read)

    def released(self) -> None:
        """The application has returned."""
        if self._task is not None and self._task is asyncio.current_task():
            self._task = None
        self._drop()

    # Input.

    def _wants_input(self) -> bool:
        # Also once it is closed: the client's close frame is behind what it has sent before.
        return self._engine is not None and (
            self._held <= RECEIVE_BUFFER or self.closed is not None
        )

    @property
    def _behind(self) -> bool:
        """Whether something that was received waits for a turn."""
        return bool(self._unread) or (self._engine is not None and self._engine.behind)

    def _go_on(self) -> None:
        """Read more of what was received in a later turn, if somebody takes it."""
        if not self.gone and self._wants_input():
            self._context.turns.later(self._read)

    def _read(self) -> None:
        """Go on with what was received, for a turn."""
        if self.gone:
            return
        if self._behind and self._wants_input():
            self._feed(b"")
        if self._eof and not self.gone and (not self._behind or self._engine is None):
            self._close()
        else:
            self._throttle()

    def _feed(self, data: bytes) -> None:
        engine = self._engine
        assert engine is not None  # noqa: S101 - asked before
        messages = engine.receive(data)
        if messages and self.closed is None:
            self._messages += messages
            self._held += sum(map(getsizeof, messages))
            self._input.wake()
        output = engine.output()
        if output and engine.open and self.write_paused:
            # What an open WebSocket has to write here are pongs. For a client that does not read
            # they would pile up; by RFC 6455 section 5.5.3 the latest are enough.
            self._pongs = output
        elif output:
            self._transport.write(output)
        if not engine.open:
            self._closing(engine.close or ABNORMAL)
            if engine.ended:
                self._linger()
        self._count()
        if self._behind:
            self._go_on()

    def _count(self) -> None:
        """Say what is held, if it is more than everybody may."""
        engine = self._engine
        held = self._held + len(self._unread)
        if engine is not None and not self.gone:
            held += engine.held
        counted = max(0, held - RECEIVE_BUFFER)
        if counted != self._counted:
            self._counted = counted
            self._memory.hold(self, counted)

    def give_up(self) -> None:
        """Messages take too much together, and this connection's most; see MessageMemory."""
        if self.closed is None and self._engine is not None:
            self.close(*TRY_AGAIN)
        elif self._response is None and self.closed is None:
            self._refuse(TRY_AGAIN, TRY_AGAIN.reason)
        if not self.gone:
            self._linger()
        self._drop()

    def _drop(self) -> None:
        self._messages.clear()
        self._held = 0
        self._count()

    def _throttle(self) -> None:
        """Read from the client only while there is room for it."""
        # Once it is closed nobody waits for what is held, but behind it comes the close frame.
        held = self._held if self.closed is None else 0
        self._pause_reading(held + len(self._unread) > RECEIVE_BUFFER)

    # Ends.

    def _keep_alive(self, now: float) -> None:
        config = self._context.config
        paused = self.write_paused or (self._reading_paused and not self._hung_up)
        if self._heard or paused:
            # Paused, it is not for the client to say anything.
            self._heard = self._pinged = False
            self._patience = now + config.websocket_ping_interval
        elif now >= self._patience:
            if self._pinged:
                self.close(1011, "no answer to a ping")
                self._linger()
            else:
                self._ping()
                self._patience = now + config.websocket_ping_timeout

    def _ping(self) -> None:
        assert self._engine is not None  # noqa: S101 - asked before
        self._pinged = True
        self._transport.write(self._engine.ping())

    def _closing(self, how: Close) -> None:
        if self.closed is None:
            self.closed = how
            self.deadline = -CLOSE_TIMEOUT
            self._input.wake()
            self._output.wake()

    def expire(self) -> None:
        """The deadline has passed."""
        if self.gone:
            self._transport.abort()
        else:
            self._linger()

    def _retire(self) -> None:
        if self.closed is None:
            self.closed = ABNORMAL
        super()._retire()
        if self._engine is not None:
            self._engine.discard()  # complete messages are still for the application
            self._engine = None
        self._unread = bytearray()
        self._count()
        self._input.wake()

    def _leave(self) -> None:
        if self._retirement is not None:
            self._retirement.cancel()
        # First the task: a draining worker that is told of the departure must not miss it.
        if self._task is not None:
            self._context.adopt(self._task, self._cycle)
        super()._leave()
