"""Running an ASGI application in threads, each with a loop of its own and one request at a time."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from pounce.application import ending, forks
from pounce.application.types import (
    ASGIApp,
    ClientDisconnected,
    Message,
    MessageError,
    as_bytes,
    as_status,
)
from pounce.asgi.departure import Overrun, is_being_cancelled, severity
from pounce.http.heads import Heads
from pounce.http.response_head import ResponseHead
from pounce.threads.exchange import Exchange
from pounce.threads.handler import Handler


class ASGIHandler(Handler):
    """Answers with *app*, in each thread on a loop of *new_loop* (asyncio's own).

    A coroutine cannot change its loop. So a response that comes in pieces, and may go on for
    ever, is left to its thread; if it does not end soon, another thread takes the place of that.
    """

    def __init__(
        self, app: ASGIApp, new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    ) -> None:
        self._app = app
        self._new_loop = new_loop
        self._of_thread = threading.local()

    def answer(self, exchange: Exchange) -> None:
        """Run the application until it returns."""
        here = self._of_thread
        if not hasattr(here, "runner"):
            here.runner = asyncio.Runner(loop_factory=self._new_loop)
            here.heads = Heads(here.runner.get_loop())
            forks.guard(here.runner.get_loop())
        # Without a context the runner would use one for all requests.
        here.runner.run(self._call(exchange), context=contextvars.copy_context())

    def leave(self) -> None:
        """Close the thread's loop."""
        if hasattr(self._of_thread, "runner"):
            loop = self._of_thread.runner.get_loop()
            forks.unguard(loop)
            ending.leave_threads(loop)
            self._of_thread.runner.close()

    async def _call(self, exchange: Exchange) -> None:
        call = _Call(exchange, self._of_thread.heads)
        try:
            with forks.confined():
                await self._app(exchange.own_scope(), call.receive, call.send)
        except BaseException as error:
            if is_being_cancelled() and severity(error, cancelled=True) == logging.NOTSET:
                raise ClientDisconnected("the client is gone") from error
            raise
        finally:
            call.end()


class _Call:
    """The specification's `receive` and `send` for one request."""

    def __init__(self, exchange: Exchange, heads: Heads) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it is made in one
        self._exchange = exchange
        self._task = task
        self._heads = heads
        self._overrun: Overrun | None = None
        self._head: ResponseHead | None = None
        self._begun = self._received = False
        self._ended: asyncio.Event | None = None  # once the application waits for it
        self._waiting = 0

    async def receive(self) -> Message:
        """The whole content; then the end of the response, or of the client."""
        if self._received:
            await self._end()
            return {"type": "http.disconnect"}
        self._received = True
        content = self._exchange.content
        body = content.read() if content is not None else b""
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Take the head, or content."""
        kind = message["type"]
        if kind == "http.response.start" and self._head is None:
            fields = list(message.get("headers", ()))
            self._head = ResponseHead(as_status(message.get("status")), fields)
            if self._heads.last is None:
                self._heads.keep(None)
            self._heads.last = self  # in a thread no other request can wait
        elif kind != "http.response.body" or self._head is None or self._exchange.finished:
            raise MessageError(f"{kind} was sent at the wrong time")
        else:
            body, more = as_bytes(message.get("body", b"")), bool(message.get("more_body", False))
            if self._overrun is None and not self._send_body(self._head, body, more):
                self._overrun = Overrun()
            if self._overrun is not None and more:
                await self._overrun.drop(self._task.cancel)

    def send_head(self) -> None:
        """Send the head, unless that has happened; see pounce.http.heads."""
        if self._begun or self._head is None:
            return
        if not self._send_body(self._head, b"", True):
            self._overrun = Overrun()

    def end(self) -> None:
        """The application has returned."""
        self._begun = True

    def _send_body(self, head: ResponseHead, body: bytes, more: bool) -> bool:
        """Send content; false where nobody is there for it."""
        exchange, begun = self._exchange, self._begun
        self._begun = True
        if not more:
            if begun:
                exchange.finish(body)
            else:
                exchange.reply(head, body)
            return True
        try:
            if begun:
                exchange.write(body)
            else:
                exchange.step_aside()
                exchange.begin(head, body, partial(_interrupt, self._task))
        except ClientDisconnected:
            return False
        return True

    async def _end(self) -> None:
        exchange = self._exchange
        exchange.listens = True
        # At once if it is here: who only asks for it cancels what would wait, as Starlette's
        # is_disconnected() does, and listens no longer than that.
        if exchange.over:
            return
        ended = self._ended = self._ended or self._await_end()
        self._waiting += 1
        try:
            await ended.wait()
        except asyncio.CancelledError:
            exchange.listens = self._waiting > 1
            raise
        finally:
            self._waiting -= 1

    def _await_end(self) -> asyncio.Event:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the application did not wait for it
                loop.call_soon_threadsafe(ended.set)

        self._exchange.call_at_end(tell)
        return ended


def _interrupt(task: asyncio.Task[None], exchange: Exchange) -> None:
    """Cancel *task*, which runs *exchange*, on its own loop."""
    with suppress(RuntimeError):  # the thread has ended
        task.get_loop().call_soon_threadsafe(_cancel, task, exchange)


def _cancel(task: asyncio.Task[None], exchange: Exchange) -> None:
    # Once: what it does at its end may take its time.
    exchange.listens = True
    if not task.cancelling():
        task.cancel()
