"""The transport side of a connection: its deadline, its flow control, and its ends."""

import asyncio
import os
from abc import ABC, abstractmethod
from math import inf
from typing import Any

from pounce.http.connections import ServerContext
from pounce.http.farewell import Carrier
from pounce.http.gate import Gate
from pounce.http1.linger import LingeringClose, look_at_client, reset
from pounce.ipc.handover import Passage
from pounce.net.host import unix_path, unmapped

# As much of a file as is sent at once: the disk may be slow, and others wait.
_CHUNK = 524_288


class BaseConnection(Carrier, asyncio.Protocol, ABC):
    """What a connection does whatever is spoken on it.

    *server* is the scope's: a listener's host and port, or a path and None. Without it the
    socket is asked.

    `_restrained` is whether something may keep it from serving what it receives, and `_hung_up`
    whether the client will send no more than it has sent, and not all of that is read.

    `deadline` is by the loop's time. A negative one is a number of seconds that begins with the
    next sweep: setting one costs no look at the clock.
    """

    __slots__ = (
        "_client",
        "_context",
        "_eof",
        "_hung_up",
        "_input",
        "_leaving",
        "_output",
        "_reading_paused",
        "_restrained",
        "_scheme",
        "_server",
        "_transport",
        "_unsent",
        "_write_deadline",
        "deadline",
        "gone",
        "write_paused",
    )

    _transport: asyncio.Transport

    def __init__(
        self, context: ServerContext, scheme: str, server: tuple[str, int | None] | None
    ) -> None:
        self._context = context
        self._scheme = scheme
        self._server = server
        self._client: tuple[str, int] | None = None
        self._input, self._output = Gate(context.loop), Gate(context.loop)
        self._eof = self._hung_up = False
        self._leaving = self._restrained = self._reading_paused = False
        self._unsent = 0
        self._write_deadline = inf
        self.deadline = inf
        self.gone = False
        self.write_paused = False

    # What the worker asks for.

    def sweep(self, now: float) -> None:
        """Enforce the timeouts; *now* is the loop's time."""
        if self.write_paused:
            self._check_progress(now)
        if self._reading_paused and not self.gone:
            self._look_for_client()
        if self.deadline < 0:
            self.deadline = now - self.deadline
        elif now >= self.deadline:
            self.expire()

    @property
    def is_remote(self) -> bool:
        """Whether it came over a network, and not over a unix socket."""
        return self._server is not None and self._server[1] is not None

    @property
    def descriptor(self) -> int:
        """The connection's descriptor."""
        sock = self._transport.get_extra_info("socket")
        return int(sock.fileno())

    def passage(self) -> Passage:
        """What a successor must know to go on with this connection; a WebSocket stays."""
        raise NotImplementedError

    def depart(self) -> None:
        """A successor has the connection: let go of it here, which the client does not see."""
        self._retire()
        self._transport.abort()

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client is connected."""
        self._transport = transport
        self._client = _client(transport)
        self._server = self._server or _server(transport)
        self._context.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._leave()

    def pause_writing(self) -> None:
        """The client reads more slowly than the application writes."""
        self.write_paused = self._restrained = True
        self._unsent = self._transport.get_write_buffer_size()
        self._write_deadline = self._context.loop.time() + self._context.config.write_timeout

    def resume_writing(self) -> None:
        """What was written has gone out."""
        self.write_paused = False
        self._restrained = self.gone or self._leaving or self._eof or self._context.draining
        self._output.wake()
        if self._leaving and not self.gone:
            self._leave_to_successor()

    # What the request cycle asks for; see pounce.http.stream.Stream.

    async def wait_input(self) -> None:
        """Wait for what the client sends, its end, or the response's completion."""
        await self._input.wait()

    def wake_input(self) -> None:
        """Have `wait_input` return."""
        self._input.wake()

    async def wait_writable(self) -> None:
        """Wait until the client has read enough, or is gone."""
        while self.write_paused and not self.gone:
            await self._output.wait()

    def reset(self) -> None:
        """Drop the connection; the client sees an error, never a clean end."""
        if not self.gone:
            self._retire()
            reset(self._transport)

    @property
    def sends_files(self) -> bool:
        """Whether the kernel can send files: not with TLS, which this process does."""
        return self._transport.get_extra_info("sslcontext") is None

    async def send_from_file(self, file: int, offset: int, end: int) -> bool:
        """Send descriptor *file* from *offset* to *end*, past the transport (sendfile(2)).

        False if the client is gone, or the file is shorter.
        """
        while self._transport.get_write_buffer_size() and not self.gone:
            # Two writers would interleave: resume_writing tells when all has gone out.
            self._transport.set_write_buffer_limits(high=0)
            await self._output.wait()
        self._transport.set_write_buffer_limits()
        if self.gone:
            return False
        # A descriptor of its own: the loop watches the other one for the transport alone.
        out = os.dup(self.descriptor)
        self.write_paused = True
        self._context.loop.add_writer(out, self._output.wake)
        try:
            return await self._send_chunks(out, file, offset, end)
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            self.write_paused = False
            self._context.loop.remove_writer(out)
            os.close(out)

    async def _send_chunks(self, out: int, file: int, offset: int, end: int) -> bool:
        patience = self._context.config.write_timeout
        while offset < end:
            self._write_deadline = self._context.loop.time() + patience
            # After each of them, others have their turn.
            await self._output.wait()
            if self.gone:
                return False
            try:
                sent = os.sendfile(out, file, offset, min(end - offset, _CHUNK))
            except BlockingIOError:
                continue
            if not sent:
                return False
            offset += sent
        return True

    # What is up to those who know what is spoken.

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a request is in flight."""

    @property
    def spare_since(self) -> float:
        """Since when it may be closed for another's sake; see pounce.http.connections."""
        return inf

    @abstractmethod
    def in_flight(self, now: float, current: asyncio.Task[Any] | None) -> str:
        """The request in flight, for a person; see pounce.http.connections."""

    @abstractmethod
    def drain(self) -> None:
        """Serve what is here, accept no further request; then leave to a successor, or close."""

    @abstractmethod
    def disconnect(self) -> None:
        """Have the application end its response: it is told that the client is gone."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the connection and cancel the application's task."""

    @abstractmethod
    def expire(self) -> None:
        """The deadline has passed."""

    def _check_progress(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._write_deadline = now + self._context.config.write_timeout
        elif now >= self._write_deadline:
            self._retire()
            reset(self._transport)
        self._unsent = unsent

    def _look_for_client(self) -> None:
        """See whether the client has left, where its end would not be read."""
        found = look_at_client(self.descriptor)
        if found == "gone":
            self._transport.abort()
        elif found == "sends no more" and not self._hung_up:
            self._hung_up = True
            self._input.wake()

    def _pause_reading(self, pause: bool) -> None:
        if pause == self._reading_paused or self._eof or self.gone:
            return
        self._reading_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Ends.

    def _may_leave(self) -> bool:
        """Whether a successor can go on with this connection, between two requests.

        It cannot with TLS, whose keys are in this process, nor with a client that has closed
        its side.
        """
        return self._context.hand_over is not None and not self._eof and self.sends_files

    def _leave_to_successor(self) -> None:
        hand_over = self._context.hand_over
        if hand_over is None:  # a stop has come since the connection began to leave
            self._linger()
            return
        if not self._leaving:
            self._leaving = self._restrained = True
            self.deadline = inf
            # What the client sends from now on stays in the kernel, for the successor to read.
            self._pause_reading(True)
        if self._transport.get_write_buffer_size():
            # Two writers would interleave: resume_writing tells when all has gone out.
            self._transport.set_write_buffer_limits(high=0)
        else:
            hand_over(self)

    def _linger(self, *, more: bool = False, stall: float | None = None) -> None:
        """Close the write side, and let the client read what it was sent; see LingeringClose."""
        if self._eof:
            self._close()
        else:
            # In this order, so that a draining worker does not think that nobody is left.
            LingeringClose(self._context, self._transport, more=more, stall=stall)
            self._leave()

    def _close(self) -> None:
        """Close where the client is known to have sent nothing that is still unread."""
        self._retire()
        self._context.end(self)
        self._transport.close()
        # The transport first sends what it has; that must not take for ever.
        self.deadline = -self._context.config.write_timeout

    def _retire(self) -> None:
        """Serve no more; whoever waits learns it."""
        self.gone = self._restrained = True
        self._output.wake()

    def _leave(self) -> None:
        self._retire()
        self._context.leave(self)


def _client(transport: asyncio.Transport) -> tuple[str, int] | None:
    name = transport.get_extra_info("peername")
    return (unmapped(name[0]), name[1]) if isinstance(name, tuple) else None


def _server(transport: asyncio.Transport) -> tuple[str, int | None] | None:
    name = transport.get_extra_info("sockname")
    if isinstance(name, tuple):
        return unmapped(name[0]), name[1]
    return (unix_path(name), None) if name else None
