"""One request and its response: the application is called here, for every protocol alike."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final

from pounce.application import forks
from pounce.application.types import Message, MessageError, Scope, as_bytes, as_status
from pounce.asgi.complaints import account, client_of, path_of, report
from pounce.asgi.departure import NOTICE, Overrun, is_being_cancelled
from pounce.http.connections import ServerContext
from pounce.http.farewell import ENDLESS
from pounce.http.headers import announces_events
from pounce.http.response_head import NO_CONTENT
from pounce.http.stream import Stream

# Small numbers, which nobody counts the references to: without a global lock, the threads of all
# workers would wait for each other's counts of the members of an enum, at every request.

# How far the response is.
IDLE: Final = 0  # nothing was sent
STARTED: Final = 1  # http.response.start was taken, but nothing is on the wire
SENDING: Final = 2  # the head is on the wire
COMPLETE: Final = 3
DESERTED: Final = 4  # neither client nor application is left; only tasks of the latter may be
WHOLE: Final = 5  # all is on the wire and the stream may have other work; the last message is due

# How far the content is.
MORE: Final = 0  # the next piece is due
FED: Final = 1  # so it is, but others have their turn first
READ: Final = 2  # all was taken
ENDED: Final = 3  # the application was told that the client is gone


BURST = 65_536
"""A client that is fast enough never makes a sender or a receiver wait; without a pause after so
many bytes, each message counted as some, nobody else would be served, and nobody's end noticed."""
_LEAST = 64


class Cycle(ABC):
    """One request and its response, however it is that the application is called."""

    __slots__ = (
        "_context",
        "_phase",
        "_scope",
        "_size",
        "_status",
        "_stream",
        "began",
    )

    in_loop = True
    """Whether the application is called on the connection's loop."""

    def __init__(self, stream: Stream, scope: Scope, context: ServerContext) -> None:
        self._stream = stream
        self._scope = scope
        self._context = context
        self._phase: int = IDLE
        self._status = self._size = 0
        # When, on the monotonic clock; 0.0 as long as nobody has looked at it.
        self.began = context.access_log.clock() if context.access_log else 0.0

    @abstractmethod
    def start(self) -> asyncio.Task[None] | None:
        """Begin; the task, if there is one that goes on."""

    def seen(self, now: float) -> None:
        """Note that it runs at *now*, by the monotonic clock."""
        # The sweep notes it for the few requests that it meets; most pay for no clock.
        if not self.began:
            self.began = now
        # Half of a connection is no use to EventSource: who has closed that has left.
        if self._stream.input_ended:
            self.client_left()

    def describe(self, now: float) -> str:
        """What it is and how long it has run, for a person."""
        scope = self._scope
        duration = now - (self.began or self._context.swept)
        request = f"{scope.get('method', '?')} {path_of(scope)} from {client_of(scope)}"
        return f"{request}, for {duration:.1f} s"

    @property
    def endless(self) -> bool:
        """Whether the response has no end of its own; see pounce.http.farewell."""
        return self._stream.event_stream and self._scope.get("method") in ENDLESS

    @property
    @abstractmethod
    def listens(self) -> bool:
        """Whether the application has heard that it is to end, or waits to hear it."""

    def end_stream(self, *, cut: bool) -> None:
        """Have an endless response end; see pounce.http.farewell."""
        stream = self._stream
        # One that began late is told first, all the same.
        if not (cut and stream.input_ended):
            stream.disconnect()
        elif not self.listens:
            self._cut()

    def _cut(self) -> None:
        """End the response of an application that does not listen."""
        if self._phase < COMPLETE:
            self._stream.break_off()

    def _let_go(self) -> None:
        """All of the response is on the wire: its client waits for no more of the application."""
        endless = self.endless
        self._phase = WHOLE
        self._stream.end_response()
        if self._context.access_log is not None:
            self._log()
        if endless:
            self._forsake()

    def _check_excess(self, data: bytes) -> None:
        """Raise MessageError where *data* is more than the response has promised and sent."""
        is_over = self._phase == WHOLE and not (self._sends_in_vain or self._stream.gone)
        if is_over and data:
            raise MessageError(f"the body is {len(data)} bytes longer than its content-length")

    @property
    def _sends_in_vain(self) -> bool:
        """Whether no content is sent of this response, whatever the application makes."""
        return self._scope.get("method") == "HEAD" or self._status in NO_CONTENT

    def client_left(self) -> None:
        """Wait no longer than a while for what streams events, and does not listen.

        It waits for an event that nobody would get; that is no work after a response.
        """
        if self._phase < COMPLETE and self.endless and not self.listens:
            self._forsake()

    def _begin_late(self, headers: Iterable[Iterable[bytes]]) -> None:
        """A response with these *headers* begins when the client has left."""
        if self._scope.get("method") in ENDLESS and announces_events(headers):
            self._forsake()

    @abstractmethod
    def _forsake(self) -> None:
        """Wait for the application no longer than departure.NOTICE; again makes it no longer."""

    def answered(self, status: int) -> None:
        """The stream has answered *status* in the application's place."""
        self._status = status

    def _failed(self, error: BaseException, *, cancelled: bool = False) -> None:
        gone = self._stream.gone or self._phase == WHOLE
        excused = gone or self._stream.input_ended
        what = "the application failed"
        account(error, what, self._scope, excused=excused, cancelled=gone and cancelled)
        if not gone:
            self._give_up()

    def _unanswered(self) -> None:
        """The application has returned, and nobody had told it to end."""
        what = "a" if self._phase < SENDING else "the whole"
        report(f"the application returned without sending {what} response", self._scope)
        self._give_up()

    def _give_up(self) -> None:
        """Answer 500 while that is possible; later, make sure nobody takes a part for the whole."""
        if self._phase in (IDLE, STARTED):
            self._status = 500
            self._stream.start_response(500, _ERROR_HEADERS)
            self._stream.send_body(_ERROR_BODY, False)
        elif self._phase == SENDING:
            self._stream.reset()

    def _break_off(self) -> None:
        """End a response that nobody is going to complete."""
        if self._stream.gone or self._phase == WHOLE:
            return
        # To lose its connection is how an event stream ends: its client opens it again. A reset
        # could take from the client what it has not read yet.
        if self._stream.event_stream:
            self._stream.break_off()
        else:
            self._stream.reset()

    def _log(self) -> None:
        if self._context.access_log is not None:
            self._context.access_log.request(self._scope, self._status, self._size, self.began)


class RequestCycle(Cycle):
    """Calls the application for one request and keeps both to the ASGI specification."""

    __slots__ = ("_burst", "_input", "_overrun", "_task")

    _overrun: Overrun | None  # once the client has left and content still comes

    @property
    def listens(self) -> bool:
        """Whether the application has heard that it is to end."""
        return self._input == ENDED

    def start(self) -> asyncio.Task[None]:
        """Start `run`; the task may be done when this returns."""
        # Kept here because a stream that has ended lets go of it.
        self._task = task = self._context.start_task(self.run())
        return task

    def _forsake(self) -> None:
        self._context.loop.call_later(NOTICE, self._abandon)

    def _abandon(self) -> None:
        """End an application that neither listens nor has completed its response."""
        # Once: what it does at its end may take its time.
        is_over = self._phase in (COMPLETE, DESERTED)
        if not (is_over or self.listens or self._task.cancelling()):
            self._cut()
            self._task.cancel()

    async def run(self) -> None:
        """Call the application, and make the best of it if it fails."""
        self._input: int = MORE
        self._burst = 0
        self._overrun = None
        # Here, and not where the request is read: before Python 3.12 others may be read between.
        self._context.flight.begin(self._scope["raw_path"])
        try:
            await self._context.app(self._scope, self.receive, self.send)
        except BaseException as error:
            if forks.births != self._context.births:
                forks.end(error)
            self._failed(error, cancelled=is_being_cancelled())
            self._end(DESERTED if self._stream.gone else COMPLETE)
            # asyncio ends the whole loop when a task raises SystemExit: one request must not.
            if not isinstance(error, (Exception, SystemExit)):
                raise
        else:
            if forks.births != self._context.births:
                forks.end()
            if self._phase != COMPLETE:
                self._incomplete()
                self._end(DESERTED if self._stream.gone else COMPLETE)

    async def receive(self) -> Message:
        """The ``receive`` of the specification."""
        stream = self._stream
        if self._input == FED:
            self._input = MORE
            await asyncio.sleep(0)
        waited = False
        while self._phase < COMPLETE and not stream.gone:
            if self._input == MORE:
                piece = stream.read_body()
                if piece is not None:
                    body, more = piece
                    if not more:
                        self._input = READ
                    elif not waited:
                        self._input = FED
                    return {"type": "http.request", "body": body, "more_body": more}
                if stream.gone:
                    break
            if stream.input_ended:
                break
            await stream.wait_input()
            waited = True
        # What an application does after the last of its content is not to be cancelled for it, as
        # frameworks do when they hear this.
        while self._phase == WHOLE and not (stream.gone or self._sends_in_vain):
            await stream.wait_input()
        self._input = ENDED
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """The ``send`` of the specification."""
        stream = self._stream
        kind = message["type"]
        phase = self._phase
        if stream.gone:
            await self._drop(message)
        elif kind == "http.response.body" and IDLE < phase < COMPLETE:
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = as_bytes(body)
            if message.get("more_body"):
                whole = stream.send_body(body, True)
                self._phase = SENDING
                self._size += len(body)
                self._burst += len(body) + _LEAST
                if whole or stream.write_paused or self._burst > BURST:
                    await self._pause(whole)
            else:
                stream.send_body(body, False)
                self._phase = COMPLETE
                # Nothing follows that would have to wait until the client has read this.
                if self._context.access_log is not None:
                    self._size += len(body)
                    self._log()
        elif kind == "http.response.start" and phase == IDLE:
            status = message.get("status")
            if type(status) is not int:
                status = as_status(status)
            stream.start_response(status, message.get("headers", ()))
            self._status = status
            self._phase = STARTED
            heads = self._context.heads
            last = heads.last
            if last is None or last._phase == STARTED:  # noqa: SLF001 - a cycle, too
                heads.keep(last)
            heads.last = self
        else:
            await self._drop(message)

    def send_head(self) -> None:
        """Send the head, unless that has happened; see pounce.http.heads."""
        if self._phase == STARTED and not self._stream.gone:
            self._phase = SENDING
            if self._stream.send_body(b"", True):
                self._let_go()

    async def _pause(self, whole: bool) -> None:
        """Wait for the client, or let others have their turn; not where the response is *whole*."""
        self._burst = 0
        if whole:
            self._let_go()
        elif self._stream.write_paused:
            await self._stream.wait_writable()
        else:
            await asyncio.sleep(0)

    async def _drop(self, message: Message) -> None:
        """Take a message that nobody is there for; raises MessageError where it is not due.

        An error would be reported as the application's, which did nothing wrong. One that never
        asks whether its client is there, and sends on and on, is ended all the same.
        """
        if self._phase == DESERTED:
            await asyncio.sleep(0)  # it may come again and again
            return
        kind = message["type"]
        self._check_order(kind)
        self._check_excess(message.get("body", b""))
        if kind == "http.response.start":
            self._phase = STARTED
            self._begin_late(message.get("headers", ()))
        elif not message.get("more_body"):
            self._end()
        else:
            if self._overrun is None:
                self._overrun = Overrun()
                # In a task that is started eagerly, `start` has the task only after its first step.
                await asyncio.sleep(0)
            await self._overrun.drop(self._task.cancel)

    def _end(self, phase: int = COMPLETE) -> None:
        """The response is over."""
        if self._phase == WHOLE:
            self._phase = COMPLETE
            self._stream.wake_input()
        elif self._phase != COMPLETE:
            # Nothing has logged it: it was answered 500, was reset, or nobody is left.
            self._phase = phase
            self._log()

    def _check_order(self, kind: str) -> None:
        """Raise MessageError where a message of this *kind* is not due."""
        if kind == "http.response.start":
            if self._phase != IDLE:
                raise MessageError(f"{kind} was sent a second time")
        elif kind != "http.response.body":
            raise MessageError(f"unknown message type {kind!r} for an HTTP request")
        elif self._phase == IDLE:
            raise MessageError(f"{kind} was sent before http.response.start")
        elif self._phase == COMPLETE:
            raise MessageError(f"{kind} was sent after the response was complete")

    def _incomplete(self) -> None:
        if self._input == ENDED or self._stream.gone:
            # A client that only closed its sending side still waits, but the application was
            # right to stop.
            self._break_off()
        else:
            self._unanswered()


_ERROR_HEADERS = ((b"content-type", b"text/plain; charset=utf-8"),)
_ERROR_BODY = b"500 Internal Server Error\n"
