"""One request and its response on a stream of their own."""

import asyncio
from collections.abc import Iterable
from math import inf
from typing import Any, Protocol

from pounce.application.types import Scope
from pounce.asgi.cycle import RequestCycle
from pounce.http.connections import ServerContext
from pounce.http.gate import Gate
from pounce.http.response_head import PHRASES, ResponseHead
from pounce.http.stream import InFlight
from pounce.http3.engine import Content, HTTP3Engine, HTTP3Reader
from pounce.http3.errors import Code, RequestFailed
from pounce.http3.fields import HTTP3Head
from pounce.http3.outlet import Path
from pounce.http3.response import Response

# How much of a response may wait to be sent: writing pauses above the one, and goes on below the
# other, which keeps a fast path busy until the application has run again.
_HIGH = 131_072
_LOW = 65_536

# How long, in seconds, a client may acknowledge nothing of an event stream that was broken off:
# nobody waits for long for a client that reads nothing.
_STALL = 2.0


class Carrier(Protocol):
    """The connection, as its streams see it."""

    context: ServerContext
    engine: HTTP3Engine

    @property
    def path(self) -> Path:
        """Where the client is at present."""

    def scope(self, head: HTTP3Head) -> Scope:
        """The ASGI scope of a request."""

    def send(self, stream_id: int, data: bytes, ended: bool) -> None:
        """Send on a stream."""

    def unsent(self, stream_id: int, written: int) -> int:
        """How much of *written* bytes still waits to be sent."""

    def consumed(self, stream_id: int, size: int) -> None:
        """So much of what came on a stream was taken."""

    def stop(self, stream_id: int, code: Code) -> None:
        """Have the client send no more."""

    def reset(self, stream_id: int, code: Code) -> None:
        """End a response so that the client cannot take it for whole."""

    def pause(self, stream: "HTTP3Stream") -> None:
        """Call the stream's `resume` when there may be room."""

    def leave(self, stream: "HTTP3Stream") -> None:
        """The stream has ended."""


class HTTP3Stream:
    """It is a pounce.http.stream.Stream. *reader* is for what the client sends."""

    __slots__ = (
        "_buffered",
        "_carrier",
        "_complete",
        "_content",
        "_cycle",
        "_deadline",
        "_ended",
        "_ending",
        "_expects_continue",
        "_failed",
        "_input",
        "_output",
        "_reader",
        "_response",
        "_task",
        "_unsent",
        "_write_deadline",
        "_written",
        "gone",
        "id",
        "patience",
        "write_paused",
    )

    _response: Response

    sends_files = False
    """The kernel cannot: packets are encrypted here."""

    def __init__(self, carrier: Carrier, stream_id: int, reader: HTTP3Reader) -> None:
        self.id = stream_id
        self.gone = self.write_paused = False
        self.patience: float | None = None
        self._carrier = carrier
        self._reader = reader
        self._cycle: InFlight | None = None
        self._task: asyncio.Task[None] | None = None
        self._content: list[bytes] = []
        self._buffered = self._written = self._unsent = 0
        self._ended = self._ending = self._complete = self._failed = self._expects_continue = False
        loop = carrier.context.loop
        self._input, self._output = Gate(loop), Gate(loop)
        # Negative: so many seconds from the next sweep on.
        self._deadline = -carrier.context.config.header_timeout
        self._write_deadline = inf

    # What the connection tells.

    def receive(self, data: bytes, ended: bool) -> None:
        """Take what the client has sent; raises ConnectionFailed."""
        if self._failed:
            self._carrier.consumed(self.id, len(data))
            return
        head: HTTP3Head | None = None
        failure: RequestFailed | None = None
        buffered = self._buffered
        try:
            for event in self._reader.receive(data, ended):
                if type(event) is Content:
                    self._take(event.data)
                elif type(event) is HTTP3Head:
                    head = event
                else:
                    self._ended = True
        except RequestFailed as error:
            failure = error
        self._carrier.consumed(self.id, len(data) - (self._buffered - buffered))
        if failure is not None:
            self._fail(failure, head)
        elif head is not None:
            self._begin(head)
        else:
            self._input.wake()

    def lost(self, code: Code = Code.REQUEST_CANCELLED) -> None:
        """The client has given up the request, or does not want the response."""
        if not self._complete and not self.gone:
            self._carrier.reset(self.id, code)
        self._carrier.stop(self.id, code)
        self._retire()

    def input_lost(self) -> None:
        """The client has given up sending."""
        if not self._ended:
            self.lost()

    def resume(self) -> None:
        """Something was sent: let the application write again if there is room."""
        self._unsent = self._carrier.unsent(self.id, self._written)
        if self._unsent <= _LOW:
            self.write_paused = False
            self._output.wake()

    def sweep(self, now: float) -> None:
        """Enforce the timeouts; *now* is the loop's time."""
        if self._cycle is not None:
            self._cycle.seen(now)
        if self.write_paused:
            self._check_progress(now)
        if self._deadline < 0:
            self._deadline = now - self._deadline
        elif now >= self._deadline:
            self._expire()

    def in_flight(self, now: float, current: asyncio.Task[Any] | None) -> str:
        """The request, for a person; *current* is the loop's current task."""
        if self._cycle is None:
            return ""
        running = self._cycle.in_loop and (self._task is None or self._task is current)
        return self._cycle.describe(now) + (" <- running" if running else "")

    def disconnect(self) -> None:
        """Have the application end its response: it is told that the client is gone."""
        self._ending = True
        self._input.wake()

    def drop(self) -> None:
        """The connection has ended."""
        self._retire()

    def event_streams(self) -> Iterable[InFlight]:
        """The request, if its response has no end of its own; see pounce.http.farewell."""
        return (self._cycle,) if self._cycle is not None and self._cycle.endless else ()

    @property
    def event_stream(self) -> bool:
        """Whether the content is server-sent events."""
        return self._cycle is not None and self._response.event_stream

    def break_off(self) -> None:
        """End the response as if it were whole: there is no other end but an error.

        An error could take from the client what it has not read yet (RFC 9000 section 3.2).
        """
        if self.gone or self._complete:
            return
        if not self._response.head_sent:
            self.send_body(b"", True)
        self._carrier.send(self.id, b"", True)
        if not self._ended:
            self._carrier.stop(self.id, Code.NO_ERROR)
        self.patience = _STALL
        self._retire()

    def cancel(self) -> None:
        """Cancel the application's task."""
        if self._task is not None:
            self._task.cancel()

    # What the request cycle asks for; see pounce.http.stream.Stream.

    @property
    def input_ended(self) -> bool:
        """Whether time is up; a request that has ended is still one whose client waits."""
        return self._ending

    def read_body(self) -> tuple[bytes, bool] | None:
        """The next piece of the request's content, as far as it is here."""
        if not self._content and not self._ended:
            self._await_content()
            return None
        data = self._content[0] if len(self._content) == 1 else b"".join(self._content)
        self._content.clear()
        self._buffered = 0
        self._deadline = inf
        self._carrier.consumed(self.id, len(data))
        return data, not self._ended

    async def wait_input(self) -> None:
        """Wait for content, the client's end, or the response's completion."""
        await self._input.wait()

    async def wait_writable(self) -> None:
        """Wait until enough was sent, or the client is gone."""
        while self.write_paused and not self.gone:
            await self._output.wait()

    def start_response(self, status: int, headers: Any, reason: bytes = b"") -> None:
        """Take a response's head; HTTP/3 has no reason phrase (RFC 9114 section 4.3.2)."""
        self._response.start(status, headers)

    def send_body(self, data: bytes, more: bool) -> bool:
        """Send content, its head before it; whether it is all, though more may come."""
        response, engine = self._response, self._carrier.engine
        content = response.content(data, more)
        output = engine.content(content) if content else b""
        if not response.head_sent:
            output = engine.fields(response.head(len(data), more)) + output
        self._written += len(output)
        self._carrier.send(self.id, output, not more)
        self._expects_continue = False
        if more:
            self._check_room()
        else:
            self._finish()
        return more and response.whole

    def end_response(self) -> None:
        """Take the response for complete, for all of it was sent."""
        self._carrier.send(self.id, b"", True)
        self._finish()

    def wake_input(self) -> None:
        """Have `wait_input` return."""
        self._input.wake()

    def respond(self, head: ResponseHead, data: bytes) -> None:
        """Send a whole response."""
        self.start_response(head.status, head.fields)
        self.send_body(data, False)

    def reset(self) -> None:
        """End the stream so that the client cannot take what it has for a whole response."""
        self.lost(Code.INTERNAL_ERROR)

    async def send_file(self, file: int, offset: int, count: int) -> bool:
        """Nothing that can be called; see `sends_files`."""
        raise NotImplementedError

    def go_on_with(self, cycle: InFlight) -> None:
        """Have *cycle* call the application for this request, in place of another."""
        self._cycle = cycle
        self._run(cycle)

    # Steps.

    def _begin(self, head: HTTP3Head) -> None:
        context = self._carrier.context
        self._deadline = inf
        self._expects_continue = head.expects_continue and not self._ended
        self._response = Response(context.defaults, head.method)
        make_cycle = context.make_cycle or RequestCycle
        self._cycle = cycle = make_cycle(self, self._carrier.scope(head), context)
        self._run(cycle)

    def _run(self, cycle: InFlight) -> None:
        task = cycle.start()
        self._task = None if task is None or task.done() else task
        # An eager task may be past its response already, and go on with work after it.
        if self._task is not None and (self.gone or self._complete):
            self._carrier.context.adopt(self._task, cycle)

    def _take(self, data: bytes) -> None:
        if not self._complete and not self.gone:
            self._content.append(data)
            self._buffered += len(data)
            self._deadline = inf

    def _await_content(self) -> None:
        self._deadline = -self._carrier.context.config.body_timeout
        if self._expects_continue:
            self._expects_continue = False
            output = self._carrier.engine.fields([(b":status", b"100")])
            self._written += len(output)
            self._carrier.send(self.id, output, False)

    def _check_room(self) -> None:
        self._unsent = self._carrier.unsent(self.id, self._written)
        if self._unsent > _HIGH and not self.write_paused:
            self.write_paused = True
            context = self._carrier.context
            self._write_deadline = context.loop.time() + context.config.write_timeout
            self._carrier.pause(self)

    def _check_progress(self, now: float) -> None:
        unsent = self._carrier.unsent(self.id, self._written)
        if unsent < self._unsent:
            self._write_deadline = now + self._carrier.context.config.write_timeout
        elif now >= self._write_deadline:
            self.lost()
        self._unsent = unsent

    def _expire(self) -> None:
        if self._cycle is None:
            self._fail(RequestFailed(408, "the request came too slowly", Code.REQUEST_CANCELLED))
        elif self._input and not self._complete:
            self._fail(RequestFailed(408, "the content came too slowly", Code.REQUEST_CANCELLED))
        else:
            # The application has stopped waiting; what it does now has no limit.
            self._deadline = inf

    def _fail(self, error: RequestFailed, head: HTTP3Head | None = None) -> None:
        """Answer in the application's place, if that is possible; read no more."""
        self._failed = True
        context = self._carrier.context
        if self._complete:
            self._carrier.stop(self.id, error.code)
            self._leave()
        elif self._cycle is not None and self._response.head_sent:
            self._carrier.stop(self.id, error.code)
            self.lost(Code.INTERNAL_ERROR)
        else:
            if self._cycle is not None:
                self._cycle.answered(error.status)
            elif context.access_log is not None:
                line = error.line or (head.line if head else b"")
                context.access_log.refusal(self._carrier.path.client, error.status, line)
            self._response = Response(context.defaults, head.method if head else "GET")
            text = f"{error.status} {PHRASES[error.status]}: {error.reason}\n"
            self._response.start(error.status, [(b"content-type", b"text/plain; charset=utf-8")])
            self._carrier.stop(self.id, error.code)
            self.send_body(text.encode("ascii"), False)
            self._retire()

    def _finish(self) -> None:
        """The response is complete."""
        self._complete = True
        self._carrier.context.requests += 1
        self._input.wake()
        if self._content:
            self._carrier.consumed(self.id, self._buffered)
            self._content.clear()
            self._buffered = 0
        if not self._ended and not self._failed:
            # RFC 9114 section 4.1: the client may stop sending without harm to the response.
            self._carrier.stop(self.id, Code.NO_ERROR)
        self._leave()

    def _retire(self) -> None:
        if self._cycle is not None:
            self._cycle.client_left()
        self.gone = True
        self._input.wake()
        self._output.wake()
        self._leave()

    def _leave(self) -> None:
        # First the task: a draining worker that is told of the departure must not miss it.
        if self._task is not None and self._cycle is not None:
            self._carrier.context.adopt(self._task, self._cycle)
        self._cycle = None
        self._carrier.leave(self)
