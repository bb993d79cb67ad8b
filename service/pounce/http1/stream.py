"""The request in flight: content in and response out, as its cycle asks for them."""

import asyncio
from abc import abstractmethod
from collections.abc import Iterable
from math import inf
from typing import Any

from pounce.http.connections import AFTERWARDS, ServerContext
from pounce.http.defaults import DefaultHeaders
from pounce.http.response_head import Fields, ResponseHead
from pounce.http.stream import InFlight
from pounce.http1.base import BaseConnection
from pounce.http1.events import NEED_DATA, BadRequest, Body, RequestHead
from pounce.http1.fast_reader import FastReader
from pounce.http1.linger import LINGER, reset, spare
from pounce.http1.plain_head import PlainHead, plain_head
from pounce.http1.response import MUCH, ResponseWriter, chunk, error_response
from pounce.http1.writing import write_all

RECEIVE_BUFFER = 65_536
"""Reading pauses while more than this many bytes wait to be processed."""

UNREAD_BODY = 262_144
"""How much of a content that the application did not read is dropped to keep the connection."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestStream(BaseConnection):
    """A connection as pounce.http.stream.Stream: one request and its response at a time.

    `_cycle` is there while a response is due, and `_plain` or `_response` from its start; `_task`
    also when the application goes on after its response, and `_work` is the cycle that it runs. Of
    the request, `_head` is kept for the response, `_persists`, whether the connection may outlive
    it, `_plainly`, whether a plain head can answer it, and `_long`, whether its content may be too
    much to drop unread.
    """

    __slots__ = (
        "_collected",
        "_collected_size",
        "_cycle",
        "_defaults",
        "_ending",
        "_expects_continue",
        "_head",
        "_long",
        "_persists",
        "_plain",
        "_plainly",
        "_reader",
        "_response",
        "_task",
        "_work",
    )

    _work: InFlight

    def __init__(
        self,
        context: ServerContext,
        scheme: str,
        server: tuple[str, int | None] | None,
        defaults: DefaultHeaders,
    ) -> None:
        super().__init__(context, scheme, server)
        self._defaults = defaults
        self._reader = FastReader(context.config)
        self._cycle: InFlight | None = None
        self._head: RequestHead | None = None
        self._persists = self._plainly = self._long = False
        self._plain: PlainHead | None = None
        self._response: ResponseWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = self._expects_continue = False
        self._collected: list[bytes] = []
        self._collected_size = 0

    # What the worker asks for.

    @property
    def busy(self) -> bool:
        """Whether a request is in flight."""
        return self._cycle is not None

    def sweep(self, now: float) -> None:
        """Enforce the timeouts, and time the request; *now* is the loop's time."""
        if self._cycle is not None:
            self._cycle.seen(now)
        if self._task is not None:
            self._work.seen(now)
            if self._task.done():
                self._task = None
        super().sweep(now)

    def in_flight(self, now: float, current: asyncio.Task[Any] | None) -> str:
        """The request in flight, for a person; *current* is the loop's current task."""
        cycle, task = self._cycle, self._task
        if cycle is None:
            return self._afterwards(now)
        # Without a task yet, it is in the first step of an eager one.
        running = cycle.in_loop and (task is None or task is current)
        return cycle.describe(now) + (" <- running" if running else "")

    def _afterwards(self, now: float) -> str:
        if self._task is None or self._task.done():
            return ""
        return self._work.describe(now) + AFTERWARDS

    def disconnect(self) -> None:
        """Have the application end its response: it is told that the client is gone."""
        self._ending = True
        if self._cycle is None:
            self._close()
        else:
            self._input.wake()

    def event_streams(self) -> Iterable[InFlight]:
        """The request, if its response has no end of its own; see pounce.http.farewell."""
        return (self._cycle,) if self._cycle is not None and self._cycle.endless else ()

    def abort(self) -> None:
        """Drop the connection and cancel the application's task."""
        drop = spare if self.event_stream else reset
        self._retire()
        drop(self._transport)
        if self._task is not None:
            self._task.cancel()

    # What the request cycle asks for.

    @property
    def event_stream(self) -> bool:
        """Whether the content is server-sent events."""
        response = self._response  # read once: threads ask, too
        return response is not None and response.event_stream

    def break_off(self) -> None:
        """End the response by the end of the connection, which is not reset.

        Where the content is in chunks, the last one is left out: nobody knows that this is the
        whole (RFC 9112 section 8).
        """
        response = self._response
        if self.gone or response is None:
            return
        if not response.head_sent:
            self.send_body(b"", True)
        self._flush()
        self._linger(stall=LINGER)  # nobody waits for long for a client that reads nothing

    @property
    def input_ended(self) -> bool:
        """Whether the client will send nothing more of this request, or time is up."""
        return self._eof or self._ending or (self._hung_up and not self._reader.in_body)

    def read_body(self) -> tuple[bytes, bool] | None:
        """The next piece of the request's content, as far as it is here."""
        reader = self._reader
        if reader.body is None:
            return b"", False
        whole = reader.whole_body()
        if whole is not None:
            return whole, False
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

    def start_response(self, status: int, headers: Any, reason: bytes = b"") -> None:
        """Take a response's head."""
        if self._plainly:
            self._plain = plain_head(status, headers, self._defaults.lines, reason)
            if self._plain is not None:
                return
        self._response = self._writer()
        self._response.start(status, headers, reason)

    def send_body(self, data: bytes, more: bool) -> bool:
        """Write content, its head before it; whether it is all, though more may come."""
        plain = self._plain
        if plain is None:
            return self._send_by_writer(data, more)
        self._plain = None
        _, lines, length, length_line = plain
        size = len(data)
        if more or self._context.draining or (length is not None and length != size):
            self._response = self._writer()
            self._response.start_plain(plain)
            return self._send_by_writer(data, more)
        lines += (length_line or b"content-length: %d\r\n" % size, self._defaults.tail)
        # To copy a little costs less than to send two pieces, in whatever way.
        if size < MUCH:
            lines.append(data)
            self._transport.write(b"".join(lines))
        else:
            write_all(self._transport, (b"".join(lines), data))
        self._finish(True)
        return False

    def end_response(self) -> None:
        """Take the response for complete, for all of it was sent."""
        assert self._response is not None  # noqa: S101 - it has sent the last
        self._finish(self._response.keep_alive)

    def respond(self, head: ResponseHead, data: bytes) -> None:
        """Write a whole response; of a head that was sent before the lines are known."""
        size = len(data)
        known = head.text if self._plainly and size < MUCH and not self._context.draining else b""
        tail = self._defaults.tail
        if known and head.length == size:
            self._transport.write(b"".join((known, tail, data)))
        elif known and head.length is None:
            self._transport.write(b"".join((known, b"content-length: %d\r\n" % size, tail, data)))
        else:
            self._respond_anew(head, data)
            return
        self._finish(True)

    def _respond_anew(self, head: ResponseHead, data: bytes) -> None:
        self.start_response(head.status, head.fields, head.reason)
        if head.text is None:
            head.text = b""  # most heads that come once do not come again
        elif self._plain is not None:
            _, lines, head.length, length_line = self._plain
            head.text = b"".join(lines) + length_line
        self.send_body(data, False)

    def _send_by_writer(self, data: bytes, more: bool) -> bool:
        response = self._response
        assert response is not None  # noqa: S101 - the cycle keeps the order
        if response.chunks and more and len(data) < MUCH:
            if data:
                self._collect(chunk(data))
            return False
        if self._expects_continue or self._long or self._context.draining:
            if not response.head_sent and self._closes_after():
                response.keep_alive = False
            self._expects_continue = False
        pieces = response.body(data, more)
        if self._collected:
            self._flush()
        write_all(self._transport, pieces)
        if more:
            return response.whole
        self._finish(response.keep_alive)
        return False

    def _writer(self) -> ResponseWriter:
        head = self._head
        assert head is not None  # noqa: S101 - a response has a request
        return ResponseWriter(self._defaults, head.method, head.http_version, self._persists)

    async def send_file(self, file: int, offset: int, count: int) -> bool:
        """Send *count* bytes of descriptor *file*, which are the content; false if it fails.

        The head has their number in its content-length.
        """
        self.send_body(b"", True)
        response = self._response
        assert response is not None  # noqa: S101 - the cycle keeps the order
        whole = await self.send_from_file(file, offset, offset + count)
        if whole:
            self._finish(response.keep_alive)
        return whole

    def go_on_with(self, cycle: InFlight) -> None:
        """Have *cycle* call the application for the request in flight, in place of another."""
        self._share_task()
        self._task, self._cycle = None, cycle
        task = cycle.start()
        if task is not None and not task.done():
            self._keep(task, cycle)

    def _keep(self, task: asyncio.Task[None], cycle: InFlight) -> None:
        """Note that *task* runs *cycle*."""
        self._task, self._work = task, cycle
        if self.gone:
            # The response has ended the connection, in the first step of an eager task.
            self._share_task()

    def _share_task(self) -> None:
        """Have the context keep the application's task, if it goes on: the connection may end."""
        if self._task is not None:
            self._context.adopt(self._task, self._work)

    def _take(self, head: RequestHead) -> None:
        """Note what *head* says about the response to come."""
        self._head = head
        # Unpacked at once: looking a field of a named tuple up takes longer than a slot.
        method, _, _, version, keep_alive, expects, has_body, _, _ = head
        self._expects_continue = expects = expects and has_body
        self._persists = keep_alive
        self._long = long = has_body and self._reader.to_be_read > UNREAD_BODY
        self._plainly = (
            keep_alive and version == "1.1" and method != "HEAD" and not expects and not long
        )

    # What is up to those who know when a request begins.

    @abstractmethod
    def _closes_after(self) -> bool:
        """Whether the response now due has to be the connection's last."""

    @abstractmethod
    def _finish(self, keep_alive: bool) -> None:
        """The response is complete."""

    def _collect(self, piece: bytes) -> None:
        """Write *piece* together with what else is sent in the same turn of the loop.

        A system call takes longer than all else that is done for a small chunk.
        """
        collected = self._collected
        if not collected:
            self._context.loop.call_soon(self._flush)
        collected.append(piece)
        self._collected_size += len(piece)
        if self._collected_size >= MUCH:
            self._flush()

    def _flush(self) -> None:
        if self._collected and not self.gone:
            write_all(self._transport, (b"".join(self._collected),))
        self._collected, self._collected_size = [], 0

    def _await_body(self) -> None:
        self.deadline = -self._context.config.body_timeout
        if self._expects_continue and not self._reader.buffer:
            self._expects_continue = False
            self._transport.write(_CONTINUE)
        # However much is here, it is not a whole chunk line yet.
        self._pause_reading(False)

    def _throttle(self) -> None:
        """Read from the client only while there is room for it."""
        held_up = self._cycle is not None or self.write_paused
        self._pause_reading(held_up and len(self._reader.buffer) > RECEIVE_BUFFER)

    def _fail(self, error: BadRequest) -> None:
        """The request in flight cannot be read to its end."""
        if self._response is not None and self._response.head_sent:
            self.reset()
        else:
            self._answer(error.status, error.reason)

    def _answer(self, status: int, reason: str, extra: Fields = (), *, line: bytes = b"") -> None:
        """Answer in the application's place, and close; *line* is the request's, if it has one."""
        if self._cycle is not None:
            self._cycle.answered(status)
        elif self._context.access_log is not None:
            self._context.access_log.refusal(self._client, status, line)
        self._transport.write(error_response(self._context.defaults, status, reason, extra))
        self._linger(more=True)

    def _refuse(self) -> None:
        """It is one too many."""
        context = self._context
        if len(context.ending) < context.config.max_connections:
            self._answer(503, "too many connections", [(b"retry-after", b"1")])
            context.room.note("refused with 503")
        else:
            # So many cannot even be told: a flood gets no more descriptors than this.
            self.reset()
            context.room.note("refused without an answer")

    def _expire_body(self) -> None:
        if self._input:
            self._fail(BadRequest(408, "the request's content came too slowly"))
        else:
            # The application has stopped waiting; what it does now has no limit.
            self.deadline = inf

    def _retire(self) -> None:
        if self._cycle is not None:
            self._cycle.client_left()
        self._cycle = None
        self._plain = self._response = None
        super()._retire()
        self._input.wake()

    def _leave(self) -> None:
        # First the task: a draining worker that is told of the departure must not miss it.
        self._share_task()
        super()._leave()
