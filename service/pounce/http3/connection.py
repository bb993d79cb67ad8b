"""One client's connection: QUIC below, requests above, and when it begins and ends."""

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, ClassVar

from aioquic.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from pounce.application.types import Scope
from pounce.events.loggers import get_logger
from pounce.http.connections import ServerContext
from pounce.http.farewell import EventStream
from pounce.http.room import ASKED, BEGUN, SILENT
from pounce.http3.deliveries import Deliveries
from pounce.http3.engine import HTTP3Engine
from pounce.http3.errors import Code, ConnectionFailed
from pounce.http3.events import Events
from pounce.http3.fields import HTTP3Head
from pounce.http3.outlet import Outlet, Path
from pounce.http3.quic import TIMER_STEP, ServerConnection
from pounce.http3.scope import request_scope
from pounce.http3.stream import HTTP3Stream
from pounce.http3.timer import Timer

# Seconds for a client to complete the handshake.
HANDSHAKE_TIMEOUT = 10.0

# After GOAWAY, requests that were under way already still arrive. Seconds, besides three probe
# timeouts of the connection's own (RFC 9002 section 6.2.1).
_GRACE = 0.2

logger = get_logger("pounce.worker")


class HTTP3Connection:
    """A Connection and Newcomer (pounce.http), and the Carrier of its streams."""

    def __init__(
        self, context: ServerContext, quic: ServerConnection, outlet: "Outlet[HTTP3Connection]"
    ) -> None:
        self.context = context
        self.engine = HTTP3Engine(context.config)
        self._quic = quic
        self._events = Events(quic.next_event)
        self._outlet = outlet
        self._ids: set[bytes] = set()
        self._streams: dict[int, HTTP3Stream] = {}
        self._paused: set[HTTP3Stream] = set()
        self._deliveries = Deliveries(quic.undelivered, context.config.write_timeout)
        self._control = -1
        self._requests = 0
        self._timer = Timer(context.loop, self._timer_due)
        self._began = self._idle_since = self._pinged = context.loop.time()
        self._goes_away = context.draining
        self._flushing = self._over = False
        context.connections.add(self)

    # What the worker asks for; see pounce.http.connections.Connection.

    @property
    def handshaking(self) -> bool:
        """Whether the client has yet to prove that it is at its address and has the keys."""
        return not (self._over or self._quic.handshake_complete)

    @property
    def busy(self) -> bool:
        """Whether a request is in flight or waits, or its response is on its way to the client."""
        return bool(self._streams or self._deliveries or self._events)

    @property
    def spare_since(self) -> float:
        """Since when it may be closed for another's sake, by the loop's time; inf is never."""
        return inf if self.busy or self.handshaking else self._idle_since

    @property
    def progress(self) -> int:
        """SILENT until the client has shaken hands, ASKED from its first request on."""
        if self._requests:
            return ASKED
        return SILENT if self.handshaking else BEGUN

    def expire(self) -> None:
        """Its time is up."""
        if self.handshaking:
            # Nothing is owed to an address that may be forged.
            self._vanish()
            return
        self._close(Code.NO_ERROR, "")
        self._touch()

    def sweep(self, now: float) -> None:
        """Enforce the timeouts; *now* is the loop's time."""
        for stream in list(self._streams.values()):
            stream.sweep(now)
        for stream_id in self._deliveries.stalled(now):
            self.reset(stream_id, Code.REQUEST_CANCELLED)
        config = self.context.config
        if self.handshaking:
            if now >= self._began + min(config.header_timeout, HANDSHAKE_TIMEOUT):
                self._vanish()
        elif self.busy:
            self._keep_path_open(now)
        elif now >= self._idle_since + self._patience(config.keep_alive_timeout):
            self.expire()

    def in_flight(self, now: float, current: asyncio.Task[Any] | None) -> str:
        """The requests in flight, one a line, for a person."""
        lines = [each.in_flight(now, current) for each in list(self._streams.values())]
        if self._deliveries:
            left = len(self._deliveries)
            lines.append(f"complete responses that the client has yet to acknowledge: {left}")
        return "\n".join(line for line in lines if line)

    def drain(self) -> None:
        """Tell the client to send its next requests elsewhere; serve those that still come."""
        if not self._goes_away:
            self._goes_away = True
            self._idle_since = self.context.loop.time()
            if self._control >= 0:
                self._announce_end()

    def disconnect(self) -> None:
        """Have applications end their responses: they are told that the client is gone."""
        for stream in list(self._streams.values()):
            stream.disconnect()
        if not self.busy:
            self.expire()

    def event_streams(self) -> Iterable[EventStream]:
        """Responses that have no end of their own; see pounce.http.farewell."""
        return [each for stream in self._streams.values() for each in stream.event_streams()]

    def abort(self) -> None:
        """Drop the connection and cancel the applications' tasks."""
        for stream in list(self._streams.values()):
            if stream.event_stream:
                stream.break_off()
            stream.cancel()
        self.flush(self.context.loop.time())
        self._close(Code.INTERNAL_ERROR if self.busy else Code.NO_ERROR, "")
        self.flush(self.context.loop.time())

    # What the datagrams' side asks for.

    def receive(self, data: bytes, path: Path, now: float) -> None:
        """Take a datagram; `flush` has to follow. One that has ended takes none."""
        if self._over:
            return
        try:
            self._quic.receive_datagram(data, path, now)
        except Exception:
            # What nobody thought of in the state machines below must end this connection alone.
            logger.debug("a datagram from %s was refused", path.client, exc_info=True)
            self._vanish()
        if not self._quic.begun:
            self._vanish()  # it was no first packet after all
        elif self._quic.closing:
            # aioquic tells only after three probe timeouts (RFC 9000 section 10.2), but neither the
            # application nor a stop has anything to wait for.
            self._retire()

    def flush(self, now: float) -> None:
        """Handle what has come, for a turn, and send what there is to send."""
        self._flush(now, self._events.new())

    def _go_on(self) -> None:
        """Handle what has waited for a turn."""
        self._flush(self.context.loop.time(), self._events.turn())

    def _flush(self, now: float, events: Iterable[QuicEvent]) -> None:
        if self._over:
            return
        self._flushing = True
        try:
            self._handle_events(events)
            self._confirm(now)
            datagrams = [] if self._over else self._quic.datagrams_to_send(now)
            # Of connection ids that the client may use as soon as these have arrived.
            self._handle_events(self._events.urgent())
        except Exception:
            logger.exception("the HTTP/3 connection of %s:%s failed: dropped", *self.path.client)
            self._vanish()
            return
        finally:
            self._flushing = False
        if datagrams:
            self._outlet.send(datagrams)
        if self._events:
            self.context.turns.later(self._go_on)
        for stream in list(self._paused):
            stream.resume()
            if not stream.write_paused:
                self._paused.discard(stream)
        self._set_timer(now)

    def _touch(self) -> None:
        """There may be something to send."""
        if not self._flushing:
            self._outlet.schedule(self)

    # What its streams ask for; see pounce.http3.stream.Carrier.

    @property
    def path(self) -> Path:
        """Where the client is at present."""
        return self._quic.peer

    def scope(self, head: HTTP3Head) -> Scope:
        """The ASGI scope of a request."""
        return request_scope(self.context, self._quic.peer, head)

    def send(self, stream_id: int, data: bytes, ended: bool) -> None:
        """Send on a stream."""
        if self._quic.can_send(stream_id):
            self._quic.send_stream_data(stream_id, data, ended)
            self._touch()

    def unsent(self, stream_id: int, written: int) -> int:
        """How much of *written* bytes still waits to be sent."""
        return self._quic.unsent(stream_id, written)

    def consumed(self, stream_id: int, size: int) -> None:
        """So much of what came on a stream was taken."""
        if size and self._quic.consumed(stream_id, size):
            self._touch()

    def stop(self, stream_id: int, code: Code) -> None:
        """Have the client send no more."""
        self._quic.stop(stream_id, code)
        self._touch()

    def reset(self, stream_id: int, code: Code) -> None:
        """End a response so that the client cannot take it for whole."""
        if self._quic.can_reset(stream_id):
            self._quic.reset_stream(stream_id, code)
            self._touch()

    def pause(self, stream: HTTP3Stream) -> None:
        """Call the stream's `resume` whenever something was sent."""
        self._paused.add(stream)

    def leave(self, stream: HTTP3Stream) -> None:
        """The stream has ended."""
        self._paused.discard(stream)
        if self._streams.pop(stream.id, None) is not None:
            self._deliveries.add(stream.id, stream.patience)
            if not self.busy:
                self._idle_since = self.context.loop.time()

    # Events.

    def _handle_events(self, events: Iterable[QuicEvent]) -> None:
        try:
            for event in events:
                handler = self._handlers.get(type(event))
                if handler is not None:
                    handler(self, event)
        except ConnectionFailed as error:
            self._close(error.code, error.reason)

    def _stop_sending(self, event: StopSendingReceived) -> None:
        if event.stream_id == self._control:
            raise ConnectionFailed(Code.CLOSED_CRITICAL_STREAM, "")
        if event.stream_id in self._streams:
            self._streams[event.stream_id].lost()

    def _id_retired(self, event: ConnectionIdRetired) -> None:
        self._ids.discard(event.connection_id)
        self._outlet.unroute(event.connection_id)

    def add_id(self, connection_id: bytes) -> None:
        """Be the one whom datagrams for *connection_id* are brought to."""
        self._ids.add(connection_id)
        self._outlet.route(connection_id, self)

    def _open(self, _: ProtocolNegotiated) -> None:
        """Begin the control stream."""
        self._control = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(self._control, self.engine.opening())
        if self._goes_away:
            self._announce_end()

    def _announce_end(self) -> None:
        self._quic.send_stream_data(self._control, self.engine.goaway())
        self._touch()

    def _stream_data(self, event: StreamDataReceived) -> None:
        stream_id, data, ended = event.stream_id, event.data, event.end_stream
        if stream_id & 2:
            if not self.engine.receive_unidirectional(stream_id, data, ended):
                self._quic.stop(stream_id, Code.STREAM_CREATION_ERROR)
            self._quic.consumed(stream_id, len(data))
            return
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.receive(data, ended)
        elif self._quic.can_send(stream_id) and not self._quic.closing:
            self._count()
            stream = HTTP3Stream(self, stream_id, self.engine.request_reader())
            self._streams[stream_id] = stream
            stream.receive(data, ended)
        else:  # the rest of a request whose response is complete
            self._quic.consumed(stream_id, len(data))

    def _count(self) -> None:
        """Have the client connect anew after as many requests as a connection may have."""
        self._requests += 1
        self._events.begun()
        if self._requests == self.context.config.max_requests_per_connection:
            self.drain()

    def _stream_reset(self, event: StreamReset) -> None:
        if event.stream_id & 2:
            self.engine.close_unidirectional(event.stream_id)
        elif event.stream_id in self._streams:
            self._streams[event.stream_id].input_lost()

    def _established(self, _: HandshakeCompleted) -> None:
        self._outlet.settled(self)

    _handlers: ClassVar[dict[type[QuicEvent], Callable[..., None]]] = {
        StreamDataReceived: _stream_data,
        StreamReset: _stream_reset,
        StopSendingReceived: _stop_sending,
        ConnectionIdIssued: lambda self, event: self.add_id(event.connection_id),
        ConnectionIdRetired: _id_retired,
        ProtocolNegotiated: _open,
        HandshakeCompleted: _established,
        ConnectionTerminated: lambda self, _: self._end(),
    }

    def _confirm(self, now: float) -> None:
        """Take notice of the responses that have arrived at the client."""
        if self._deliveries:
            self._deliveries.confirm()
            if not self.busy:
                self._idle_since = now

    # Time.

    def _set_timer(self, now: float) -> None:
        due = self._quic.get_timer()
        self._timer.set(None if due is None else max(due, now + TIMER_STEP), now)

    def _timer_due(self) -> None:
        now = self.context.loop.time()
        due = self._quic.get_timer()
        if due is not None and now >= due:
            self._quic.handle_timer(now)
        self.flush(now)

    def _patience(self, keep_alive: float) -> float:
        if not self._goes_away:
            return keep_alive
        return min(keep_alive, _GRACE + 3 * self._quic.probe_timeout)

    def _keep_path_open(self, now: float) -> None:
        """A client that waits for a slow response may have nothing to say meanwhile."""
        if now >= self._pinged + self.context.config.keep_alive_timeout / 3:
            self._pinged = now
            self._quic.send_ping(0)
            self.flush(now)

    # Ends.

    def _close(self, code: Code, reason: str) -> None:
        if not self._quic.closing:
            self._quic.close(error_code=code, reason_phrase=reason)
        self._retire()

    def _vanish(self) -> None:
        """Forget the connection without a word to the client."""
        self._retire()
        self._end()

    def _end(self) -> None:
        self._over = True
        self._timer.set(None, 0.0)
        for connection_id in self._ids:
            self._outlet.unroute(connection_id)
        self._ids.clear()
        self._outlet.settled(self)
        self._retire()

    def _retire(self) -> None:
        """Serve no more. What the client sends until it knows that is still for this object."""
        for stream in list(self._streams.values()):
            stream.drop()
        self.context.leave(self)
