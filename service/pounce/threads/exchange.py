"""One request that a thread answers, as the loop and the thread share it.

The loop reads the whole request before a thread sees it, and sends what the thread has made:
however slow the client is, the thread waits for nothing but its own code. Only a response that
is made piece by piece, faster than its client reads, holds its thread up.
"""

import asyncio
import io
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import IO

from pounce.application import forks
from pounce.application.types import ClientDisconnected, Scope
from pounce.asgi.complaints import account, report
from pounce.asgi.cycle import COMPLETE, SENDING, STARTED, WHOLE, Cycle, RequestCycle
from pounce.asgi.departure import severity
from pounce.asgi.scope import renew_scope
from pounce.http.response_head import ResponseHead
from pounce.http.stream import FullStream
from pounce.threads.content import collect, refuse
from pounce.threads.outbox import Call
from pounce.threads.replay import Replay
from pounce.threads.roles import Interrupt, Runner, Threads
from pounce.threads.storage import NotStored

AHEAD = 1_048_576
"""How much of a response may wait to be sent before the thread that makes it has to wait."""

# What a client that reads at all needs for what the loop has for it; longer, and the thread is
# better replaced.
_PATIENCE = 0.05


class Exchange(Cycle):
    """A cycle whose application runs in a thread.

    *scope* is the request's. When the thread gets it, `content` is whole: None where there is none,
    or a file that stands at its beginning, of `content_size` bytes. `steps` are the pieces of the
    response so far. `listens` is whether the application has heard that it is to end, or will.
    """

    __slots__ = (
        "_ahead",
        "_body",
        "_head",
        "_interrupt",
        "content",
        "content_size",
        "finished",
        "listens",
        "runner",
        "steps",
    )

    in_loop = False

    threads: Threads["Exchange"]
    _stream: FullStream
    runner: Runner | None
    listens: bool
    _head: ResponseHead
    _interrupt: Interrupt["Exchange"] | None
    _body: bytes
    content: IO[bytes] | None
    content_size: int

    def describe(self, now: float) -> str:
        """What it is, how long it has run, and in which thread, for a person."""
        runner = self.runner
        where = f" <- in thread {runner.name}" if runner else " <- waits for a thread"
        return super().describe(now) + where

    @property
    def orphaned(self) -> bool:
        """Whether no connection tells of it: its client is gone, or its response has ended."""
        return self._stream.gone or self._phase >= COMPLETE

    # On the loop: the way in.

    def _cut(self) -> None:
        super()._cut()
        self._close()  # the process may end before the thread does

    def _forsake(self) -> None:
        self.threads.forsake(self)

    @property
    def deaf(self) -> bool:
        """Whether the application neither listens nor has made all of its response."""
        return not (self.finished or self.listens)

    def abandon(self) -> None:
        """Wait no longer for an application that is `deaf`."""
        if self.deaf:
            self._cut()
            if self._interrupt is not None:
                self._interrupt(self)

    def start(self) -> asyncio.Task[None] | None:
        """Collect the content, then have a thread run it."""
        self.steps = 0
        self.finished = self.listens = False
        self.content = self.runner = None
        piece = self._stream.read_body()
        if piece is None or piece[1]:
            return self._context.start_task(self._collect(piece))
        if piece[0]:
            self.content = io.BytesIO(piece[0])
            self.content_size = len(piece[0])
        self.threads.put(self)
        return None

    async def _collect(self, piece: tuple[bytes, bool] | None) -> None:
        try:
            content = await collect(self._stream, piece, self.threads.storage)
            if content is None:
                self._close()
                return
            self.content, self.content_size = content
            self.threads.put(self)
        except NotStored as refusal:
            refuse(self._stream, refusal)
            self.answered(refusal.status)
            self._close()
        except Exception as error:
            self._take_failure(error)

    # In the thread.

    @property
    def scope(self) -> Scope:
        """The request; others see it too, and nobody may change it."""
        return self._scope

    def own_scope(self) -> Scope:
        """The request, for an application, which may do what it likes with it."""
        return renew_scope(self._scope, self._context.state)

    def run(self, answer: Callable[["Exchange"], None], runner: Runner) -> None:
        """Have *answer* make the response, in this thread, which is *runner*."""
        self.runner = runner
        try:
            if self._stream.gone:
                self._post(self._close)
            else:
                self._context.flight.begin(self._scope["raw_path"])
                self._context.new_context().run(answer, self)
                if forks.births != self._context.births:
                    forks.end()
                if not self.finished:
                    self._post(self._take_end)
        except BaseException as error:
            if forks.births != self._context.births:
                forks.end(error)
            # A thread outlives whatever a request raises, SystemExit and the like included.
            self._post(partial(self._take_failure, error))
        finally:
            if self.content is not None:
                self.content.close()

    def check_client(self) -> None:
        """Raise ClientDisconnected if nobody is to get any more of the response."""
        if self._stream.gone:
            raise ClientDisconnected("the client is gone")
        if self._phase == WHOLE and self._sends_in_vain:
            raise ClientDisconnected("the client has the whole response")
        if self.threads.ending and self._phase == SENDING:
            raise ClientDisconnected("the server cannot wait for the rest of the response")

    @property
    def dismissed(self) -> bool:
        """Whether the response is an event stream that has to end, or whose client has left."""
        if self._phase == WHOLE:  # the stream has another request, perhaps
            return self._sends_in_vain
        return self._stream.input_ended and self._stream.event_stream

    def reply(self, head: ResponseHead, body: bytes) -> None:
        """Respond with *body* as the whole content; without a word if the client is gone."""
        self.steps = 1
        self.finished = True
        self._head = head
        self._body = body
        # Itself and nothing made for the purpose: an object that one thread makes and another
        # drops costs both more than what it is for, where there is no global lock.
        self.threads.outbox.post(self)

    def announce(self, head: ResponseHead) -> None:
        """Make the *head* known before there is content; the one that comes with that counts."""
        self._post(partial(self._take_head, head))

    def begin(
        self, head: ResponseHead, data: bytes, interrupt: Interrupt["Exchange"] | None = None
    ) -> None:
        """Begin the response; *data* is the first of its content, and more follows.

        *interrupt*, if there is one, ends the application wherever it waits.
        """
        self._post(partial(self._take_head, head, interrupt))
        self.check_client()
        self.steps = 1
        self._ahead = 0
        self._send(data)

    def write(self, data: bytes) -> None:
        """Send more content of a response that is not finished."""
        self.check_client()
        self.steps += 1
        self._send(data)

    def finish(self, data: bytes = b"") -> None:
        """End the response, with *data* as the last; without a word if the client is gone."""
        self.finished = True
        self._post(partial(self._take_content, data, False))

    @property
    def sends_files(self) -> bool:
        """Whether `reply_with_file` can be called."""
        return self._stream.sends_files

    def reply_with_file(self, head: ResponseHead, file: int, offset: int, count: int) -> None:
        """Respond with *count* bytes of descriptor *file*, which the loop closes.

        *head* has the count as content-length. However long it takes, no thread waits for it.
        """
        self.check_client()
        self.finished = True
        self._post(lambda: self._meanwhile(self._send_file(head, file, offset, count)))

    def fall_through(self, body: bytes) -> None:
        """Leave the request, whose content is *body*, to the ASGI application on the loop."""
        self.finished = True
        self._post(partial(self._go_on_in_loop, body))

    def call_at_end(self, call: Callable[[], None]) -> None:
        """Have the loop call *call* once the response is complete, or the client says no more."""
        self._post(lambda: self._meanwhile(_then(self._end(), call)))

    @property
    def over(self) -> bool:
        """Whether the response is complete, or the client says no more."""
        if self._phase == WHOLE and not self._sends_in_vain:
            return self._stream.gone
        return self.orphaned or self._stream.input_ended

    def step_aside(self) -> None:
        """This thread is going to wait for the client, or for what it is to be sent."""
        assert self.runner is not None  # noqa: S101 - it runs
        self.runner.step_aside()

    def _post(self, call: Callable[[], None]) -> None:
        self.threads.outbox.post(Call(call))

    def _send(self, data: bytes) -> None:
        """Send content, but do not get too far ahead of the client."""
        self._post(partial(self._take_content, data, True))
        self._ahead += len(data)
        if self._ahead < AHEAD:
            return
        self._ahead = 0
        caught_up = threading.Event()
        self._post(lambda: self._meanwhile(_then(self._stream.wait_writable(), caught_up.set)))
        if not caught_up.wait(_PATIENCE):
            self.step_aside()
            caught_up.wait()

    # On the loop: the way out.

    def deliver(self) -> None:
        """Send what `reply` was given."""
        stream = self._stream
        if self.orphaned:
            self._close()
            return
        try:
            stream.respond(self._head, self._body)
        except Exception as error:
            self._take_failure(error)
            return
        self._phase = COMPLETE
        if self._context.access_log is not None:
            self._status, self._size = self._head.status, len(self._body)
            self._log()

    def _take_head(
        self, head: ResponseHead, interrupt: Interrupt["Exchange"] | None = None
    ) -> None:
        self._interrupt = interrupt
        if self.orphaned:
            self._begin_late(head.fields)
            self._close()
            return
        try:
            self._stream.start_response(head.status, head.fields, head.reason)
            self._status = head.status
            self._phase = STARTED
        except Exception as error:
            self._take_failure(error)

    def _take_content(self, data: bytes, more: bool) -> None:
        try:
            self._check_excess(data)
            if self.orphaned:
                if self._phase != WHOLE or not more:
                    self._close()
                return
            is_all = self._stream.send_body(data, more)
        except Exception as error:
            self._take_failure(error)
            return
        self._size += len(data)
        if is_all:
            self._let_go()
            return
        self._phase = SENDING if more else COMPLETE
        if not more and self._context.access_log is not None:
            self._log()

    async def _send_file(self, head: ResponseHead, file: int, offset: int, count: int) -> None:
        stream = self._stream
        try:
            if not stream.gone:
                stream.start_response(head.status, head.fields, head.reason)
                self._status = head.status
                self._phase = SENDING
                if await stream.send_file(file, offset, count):
                    self._size = count
                elif not stream.gone:
                    report("a file that is being sent has become shorter", self._scope)
                    stream.reset()
        except Exception as error:
            self._take_failure(error)
        finally:
            os.close(file)
            self._close()

    def _take_failure(self, error: BaseException) -> None:
        if self._phase >= COMPLETE:
            excused = self._stream.gone or self._was_told or self._sends_in_vain
            self._close()
            what = "the application failed after its response"
            account(error, what, self._scope, excused=excused)
            return
        if self._was_told and severity(error) < logging.ERROR:
            account(error, "", self._scope, excused=True)
            self._break_off()
        else:
            self._failed(error)
        self._close()

    def _take_end(self) -> None:
        if self._was_told and self._phase != COMPLETE:
            self._break_off()
        elif not self._stream.gone and self._phase != COMPLETE:
            self._unanswered()
        self._close()

    @property
    def _was_told(self) -> bool:
        """Whether the application may have been told to end, or its response was not taken."""
        return self.threads.ending or self._stream.input_ended

    def _close(self) -> None:
        """The response is over, and is logged once."""
        if self._phase == WHOLE:
            self._phase = COMPLETE
            self._stream.wake_input()
        elif self._phase != COMPLETE:
            self._phase = COMPLETE
            self._log()

    def _meanwhile(self, work: Coroutine[object, None, None]) -> None:
        self._context.adopt(self._context.start_task(work), self)

    async def _end(self) -> None:
        while not self.over:
            await self._stream.wait_input()

    def _go_on_in_loop(self, body: bytes) -> None:
        if self._stream.gone:
            self._close()
            return
        self._phase = COMPLETE
        stream = Replay(self._stream, body)
        cycle = RequestCycle(stream, self.own_scope(), self._context)
        cycle.began = self.began
        self._stream.go_on_with(cycle)


async def _then(work: Coroutine[object, None, None], call: Callable[[], None]) -> None:
    try:
        await work
    finally:
        call()
