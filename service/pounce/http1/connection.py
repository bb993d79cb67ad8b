"""One HTTP/1.1 client connection: from its transport to request cycles, and back.

At any moment a connection is in one of these situations, told apart by what it holds:

==============  ===========================  =====================================
situation       held                         `deadline`
==============  ===========================  =====================================
fresh, idle     no cycle, reader empty       closes silently
reading a head  no cycle, reader not empty   answers 408
responding      a cycle                      answers 408, set only while the
                                             application waits for content
dropping        no cycle, reader in a body   closes
closing         `gone` is true               aborts
==============  ===========================  =====================================

Only `sweep` looks at the deadline, so no request needs a timer.
"""

import asyncio
from math import inf
from typing import Any

from pounce.asgi.context import ServerContext
from pounce.asgi.cycle import RequestCycle, start_task
from pounce.asgi.scope import build_scope
from pounce.handover import Passage
from pounce.http1.events import NEED_DATA, BadRequest, Body, RequestHead
from pounce.http1.gate import Gate
from pounce.http1.linger import LingeringClose, reset
from pounce.http1.response import ResponseWriter, error_response
from pounce.http1.rules import to_origin_form
from pounce.http1.strict_reader import StrictReader
from pounce.net.forwarded import Origin

RECEIVE_BUFFER = 65_536
"""Reading pauses while more than this many bytes wait to be processed."""

UNREAD_BODY = 262_144
"""How much of a content that the application did not read is dropped to keep the connection."""

FIRST_REQUEST = 1.0
"""How long, in seconds, a drain waits for the first byte of a connection just accepted."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HTTP1Connection(asyncio.Protocol):
    """Serves the requests of one client, one after the other.

    *server* is the scope's: a listener's host and port, or a path and None. Without it the
    socket is asked. *passage* describes a connection that another worker has served before.
    """

    __slots__ = (
        "_client",
        "_context",
        "_cycle",
        "_droppable",
        "_ending",
        "_eof",
        "_expects_continue",
        "_head_begun",
        "_input",
        "_leaving",
        "_output",
        "_passage",
        "_reader",
        "_reading_paused",
        "_refused",
        "_requests",
        "_response",
        "_scheme",
        "_server",
        "_task",
        "_transport",
        "_trusted",
        "_unsent",
        "_write_deadline",
        "deadline",
        "gone",
        "write_paused",
    )

    _transport: asyncio.Transport

    def __init__(
        self,
        context: ServerContext,
        *,
        scheme: str = "http",
        server: tuple[str, int | None] | None = None,
        passage: Passage | None = None,
    ) -> None:
        self._context = context
        self._passage = passage
        self._scheme = scheme
        self._server = server
        self._reader = StrictReader(context.config)
        self._input = Gate(context.loop)
        self._output = Gate(context.loop)
        self._cycle: RequestCycle | None = None
        self._response: ResponseWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._requests = passage.requests if passage else 0
        self._leaving = self._ending = False
        self._droppable = UNREAD_BODY
        self._head_begun = self._expects_continue = self._eof = False
        self._reading_paused = self._refused = False
        self._unsent = 0
        self._write_deadline = inf
        self.deadline = inf
        self.gone = False
        self.write_paused = False

    # What the worker asks for.

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return self._cycle is not None

    def sweep(self, now: float) -> None:
        """Enforce the timeouts; *now* is the loop's time."""
        if self.write_paused:
            self._check_progress(now)
        if now >= self.deadline:
            self._expire()

    def drain(self) -> None:
        """Serve what is here, accept no further request; then leave to a successor, or close."""
        if self._cycle is not None or self.gone:
            return  # the response in flight will say that it is the last, unless it need not be
        if self._context.hand_over is not None:
            self._next_request()
        elif self._reader.buffered:
            return  # the same goes for the response that is due
        elif self._requests:
            self._close()
        else:
            self.deadline = min(self.deadline, self._context.loop.time() + FIRST_REQUEST)

    def disconnect(self) -> None:
        """Have the application end its response: it is told that the client is gone."""
        self._ending = True
        if self._cycle is None:
            self._close()
        else:
            self._input.wake()

    def abort(self) -> None:
        """Drop the connection and cancel the application's task."""
        self._retire()
        reset(self._transport)
        if self._task is not None:
            self._task.cancel()

    @property
    def descriptor(self) -> int:
        """The connection's descriptor."""
        sock = self._transport.get_extra_info("socket")
        return int(sock.fileno())

    def passage(self) -> Passage:
        """What a successor must know to go on with this connection."""
        return Passage(
            self._scheme, self._server, self._client, self._requests, self._reader.unread()
        )

    def depart(self) -> None:
        """A successor has the connection: let go of it here, which the client does not see."""
        self._retire()
        self._transport.abort()

    def refuse(self) -> None:
        """Answer 503 to a connection that is one too many."""
        self._refused = True
        if hasattr(self, "_transport"):
            self._answer(503, "too many connections", [(b"retry-after", b"1")])

    # What the transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client is connected."""
        self._transport = transport
        context = self._context
        passage = self._passage
        self._client = passage.client if passage else _client(transport)
        self._server = self._server or _server(transport)
        self._trusted = context.proxies.trusts_peer(self._client)
        context.connections.add(self)
        if self._refused or len(context.connections) > context.config.max_connections:
            self.refuse()
        else:
            idle = context.config.keep_alive_timeout if self._requests else None
            self._set_deadline(idle or context.config.header_timeout)
            if passage and passage.received:
                self.data_received(passage.received)
            if context.draining:
                self.drain()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._reader.feed(data)
        if self._cycle is None:
            self._next_request()
        else:
            self._input.wake()
            self._throttle()

    def eof_received(self) -> bool:
        """The client will send no more; true keeps the transport, for it may still read."""
        self._eof = True
        self._reader.eof()
        if self._cycle is None:
            self._next_request()
        else:
            self._input.wake()
        # TLS has no half-closed connections: there the answer must be no (asyncio says so aloud).
        return self._transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        self._leave()

    def pause_writing(self) -> None:
        """The client reads more slowly than the application writes."""
        self.write_paused = True
        self._unsent = self._transport.get_write_buffer_size()
        self._write_deadline = self._context.loop.time() + self._context.config.write_timeout

    def resume_writing(self) -> None:
        """What was written has gone out."""
        self.write_paused = False
        self._output.wake()
        if self._leaving and not self.gone:
            self._leave_to_successor()

    # What the request cycle asks for; see pounce.asgi.cycle.Stream.

    @property
    def input_ended(self) -> bool:
        """Whether the client will send nothing more, or time is up."""
        return self._eof or self._ending

    def read_body(self) -> tuple[bytes, bool] | None:
        """The next piece of the request's content, as far as it is here."""
        reader = self._reader
        if not reader.in_body:
            return b"", False
        try:
            event = reader.next_event()
        except BadRequest as error:
            self._fail(error)
            return None
        if isinstance(event, Body):
            self.deadline = inf
            self._expects_continue = False
            self._throttle()
            return event.data, reader.in_body
        if event is NEED_DATA:
            self._await_body()
            return None
        self._throttle()
        return b"", False

    async def wait_input(self) -> None:
        """Wait for content, the client's end, or the response's completion."""
        await self._input.wait()

    async def wait_writable(self) -> None:
        """Wait until the client has read enough, or is gone."""
        while self.write_paused and not self.gone:
            await self._output.wait()

    def start_response(self, status: int, headers: Any) -> None:
        """Take a response's head."""
        assert self._response is not None  # noqa: S101 - a cycle has one
        self._response.start(status, headers)

    def send_body(self, data: bytes, more: bool) -> None:
        """Write content, its head before it."""
        response = self._response
        assert response is not None  # noqa: S101 - a cycle has one
        if not response.head_sent and self._closes_after():
            response.keep_alive = False
        output = response.body(data, more)
        if output:
            self._transport.write(output)
        self._expects_continue = False
        if response.complete:
            self._finish(keep_alive=response.keep_alive)

    def reset(self) -> None:
        """Drop the connection; the client sees an error, never a clean end."""
        if not self.gone:
            self._retire()
            reset(self._transport)

    def released(self) -> None:
        """The application has returned; nothing of its task needs to be kept."""
        if self._task is asyncio.current_task():
            self._task = None

    # Requests.

    def _next_request(self) -> None:
        if self._cycle is not None or self.gone or self._leaving:
            return
        reader = self._reader
        if self._may_leave() and not reader.in_body:
            self._leave_to_successor()
            return
        try:
            event = reader.next_event()
            while event is not NEED_DATA and not isinstance(event, RequestHead):
                if isinstance(event, Body):
                    self._droppable -= len(event.data)
                event = reader.next_event() if self._droppable >= 0 else NEED_DATA
        except BadRequest as error:
            self._refuse_input(error)
            return
        if isinstance(event, RequestHead):
            self._begin(event)
        else:
            self._await_request()

    def _begin(self, head: RequestHead) -> None:
        context = self._context
        limit = context.config.max_requests_per_connection
        self._requests += 1
        self.deadline = inf
        self._head_begun = False
        self._expects_continue = head.expect_continue and head.has_body
        self._response = ResponseWriter(
            context.defaults,
            head.method,
            head.http_version,
            keep_alive=head.keep_alive and self._requests != limit,
        )
        if self._task is not None:
            context.adopt(self._task)
        self._cycle = cycle = RequestCycle(self, self._scope(head), context)
        # Before the application starts, for it may wait for more at once.
        self._throttle()
        task = start_task(cycle.run(), context.loop)
        self._task = None if task.done() else task

    def _scope(self, head: RequestHead) -> dict[str, Any]:
        context = self._context
        target, headers = to_origin_form(head.target, head.headers)
        origin = Origin(self._client, self._scheme, headers)
        if self._trusted:
            origin = context.proxies.resolve(origin)
        return build_scope(
            method=head.method,
            target=target,
            headers=origin.headers,
            http_version=head.http_version,
            scheme=origin.scheme,
            client=origin.client,
            server=self._server,
            root_path=context.config.root_path,
            state=context.state,
            extensions=context.extensions,
        )

    def _closes_after(self) -> bool:
        """Whether the response now due has to be the connection's last."""
        # A client that was not told to go on may or may not send its content: what follows on
        # the connection could be read as either (RFC 9110 section 10.1.1).
        if self._expects_continue:
            return True
        return self._context.draining and not self._reader.buffered and not self._may_leave()

    def _finish(self, *, keep_alive: bool) -> None:
        self._cycle = None
        self._response = None
        self._context.requests += 1
        self._input.wake()
        if not keep_alive:
            self._linger()
            return
        reader, config = self._reader, self._context.config
        self._droppable = UNREAD_BODY
        self._set_deadline(config.body_timeout if reader.in_body else config.keep_alive_timeout)
        if reader.buffered or reader.in_body or self._eof or self._context.draining:
            # Not from here: the application is still in its send().
            self._context.loop.call_soon(self._next_request)
        else:
            self._throttle()

    def _await_request(self) -> None:
        if self._droppable < 0:
            self._linger()
        elif self._reader.in_body:
            self._throttle()
        elif self._reader.buffered:
            if not self._head_begun:
                self._head_begun = True
                self._set_deadline(self._context.config.header_timeout)
            self._throttle()
        elif self._may_leave():
            self._leave_to_successor()
        elif self._eof or self._ends_idle():
            self._close()

    def _ends_idle(self) -> bool:
        # With a successor about, a connection that cannot go there is closed politely, by the
        # response to its next request.
        context = self._context
        return context.draining and context.hand_over is None and self._requests > 0

    def _may_leave(self) -> bool:
        """Whether a successor can go on with this connection, between two requests.

        It cannot with TLS, whose keys are in this process, nor with a client that has closed
        its side.
        """
        return (
            self._context.hand_over is not None
            and not self._eof
            and self._transport.get_extra_info("sslcontext") is None
        )

    def _leave_to_successor(self) -> None:
        assert self._context.hand_over is not None  # noqa: S101 - asked before
        if not self._leaving:
            self._leaving = True
            self.deadline = inf
            # What the client sends from now on stays in the kernel, for the successor to read.
            self._pause_reading(True)
        if self._transport.get_write_buffer_size():
            # Two writers would interleave: resume_writing tells when all has gone out.
            self._transport.set_write_buffer_limits(high=0)
        else:
            self._context.hand_over(self)

    def _await_body(self) -> None:
        self._set_deadline(self._context.config.body_timeout)
        if self._expects_continue and not self._reader.buffered:
            self._expects_continue = False
            self._transport.write(_CONTINUE)
        # However much is here, it is not a whole chunk line yet.
        self._pause_reading(False)

    def _throttle(self) -> None:
        """Read from the client only while there is room for it."""
        self._pause_reading(self._cycle is not None and self._reader.buffered > RECEIVE_BUFFER)

    def _pause_reading(self, pause: bool) -> None:
        if pause == self._reading_paused or self._eof or self.gone:
            return
        self._reading_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # Ends.

    def _refuse_input(self, error: BadRequest) -> None:
        if self._reader.in_body:
            # The request was answered; a second answer would be taken for the next one's.
            self._linger()
        else:
            self._answer(error.status, error.reason)

    def _fail(self, error: BadRequest) -> None:
        """The request in flight cannot be read to its end."""
        assert self._response is not None  # noqa: S101 - a cycle has one
        if self._response.head_sent:
            self.reset()
        else:
            self._answer(error.status, error.reason)

    def _answer(self, status: int, reason: str, extra: Any = ()) -> None:
        """Answer in the application's place, and close."""
        if self._cycle is not None:
            self._cycle.answered(status)
        elif self._context.access_log is not None:
            self._context.access_log.refusal(self._client, status)
        self._transport.write(error_response(self._context.defaults, status, reason, extra))
        self._linger()

    def _check_progress(self, now: float) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._write_deadline = now + self._context.config.write_timeout
        elif now >= self._write_deadline:
            self._retire()
            reset(self._transport)
        self._unsent = unsent

    def _expire(self) -> None:
        if self.gone:
            self._transport.abort()
        elif self._cycle is not None:
            self._expire_body()
        elif self._reader.in_body:
            self._linger()
        elif self._reader.buffered:
            self._answer(408, "the request's head came too slowly")
        else:
            self._close()

    def _expire_body(self) -> None:
        if self._input:
            self._fail(BadRequest(408, "the request's content came too slowly"))
        else:
            # The application has stopped waiting; what it does now has no limit.
            self.deadline = inf

    def _linger(self) -> None:
        """Close the write side, and let the client read what it was sent."""
        if self._eof:
            self._close()
        else:
            # In this order, so that a draining worker does not think that nobody is left.
            LingeringClose(self._context, self._transport)
            self._leave()

    def _close(self) -> None:
        """Close where the client is known to have sent nothing that is still unread."""
        self._retire()
        self._transport.close()
        # The transport first sends what it has; that must not take for ever.
        self._set_deadline(self._context.config.write_timeout)

    def _retire(self) -> None:
        self.gone = True
        self._cycle = None
        self._response = None
        self._input.wake()
        self._output.wake()

    def _leave(self) -> None:
        self._retire()
        if self._task is not None:
            self._context.adopt(self._task)
        self._context.leave(self)

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self._context.loop.time() + seconds


def _client(transport: asyncio.Transport) -> tuple[str, int] | None:
    name = transport.get_extra_info("peername")
    return (name[0], name[1]) if isinstance(name, tuple) else None


def _server(transport: asyncio.Transport) -> tuple[str, int | None] | None:
    name = transport.get_extra_info("sockname")
    if isinstance(name, tuple):
        return name[0], name[1]
    return (str(name), None) if name else None
