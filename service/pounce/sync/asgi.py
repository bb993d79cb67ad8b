"""Running an ASGI application in threads, each with a loop of its own and one request at a time."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress

from pounce.asgi.cycle import as_bytes, as_status
from pounce.asgi.response_head import ResponseHead
from pounce.asgi.types import ASGIApp, Message, MessageError
from pounce.sync.exchange import Exchange, Handler


class ASGIHandler(Handler):
    """Answers with *app*, in each thread on a loop of *new_loop* (asyncio's own).

    A coroutine cannot change its loop. So a response that comes in pieces, and may go on for
    ever, is left to its thread, and another thread takes the place of that.
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
        # Without a context the runner would use one for all requests.
        here.runner.run(self._call(exchange), context=contextvars.copy_context())

    def leave(self) -> None:
        """Close the thread's loop."""
        if hasattr(self._of_thread, "runner"):
            self._of_thread.runner.close()

    async def _call(self, exchange: Exchange) -> None:
        call = _Call(exchange)
        await self._app(exchange.own_scope(), call.receive, call.send)


class _Call:
    """The specification's `receive` and `send` for one request."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._head: ResponseHead | None = None
        self._begun = self._received = False

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
        elif kind != "http.response.body" or self._head is None or self._exchange.finished:
            raise MessageError(f"{kind} was sent at the wrong time")
        else:
            self._send_body(
                as_bytes(message.get("body", b"")), bool(message.get("more_body", False))
            )

    def _send_body(self, body: bytes, more: bool) -> None:
        exchange = self._exchange
        if not self._begun:
            self._begun = True
            assert self._head is not None  # noqa: S101 - asked before
            if more:
                exchange.step_aside()
                exchange.begin(self._head, body)
            else:
                exchange.check_client()
                exchange.reply(self._head, body)
        elif more:
            exchange.write(body)
        else:
            exchange.finish(body)

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the application did not wait for it
                loop.call_soon_threadsafe(ended.set)

        self._exchange.call_at_end(tell)
        await ended.wait()
