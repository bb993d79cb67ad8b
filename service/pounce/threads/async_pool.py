"""ASGI applications that run on another loop than their requests come from."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from pounce.application import ending, forks
from pounce.application.loops import new_event_loop
from pounce.application.types import ASGIApp, Receive, Scope, Send
from pounce.config.service import LoopName
from pounce.threads import thread_sensitive


class Apart:
    """Runs *app* on *loop*, which turns in another thread, and stands for it on any other loop."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application there, with what receives and sends here."""
        here = asyncio.get_running_loop()
        await _on(self._loop, self._call(scope, _across(here, receive), _across(here, send)))

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        thread_sensitive.mark_context()  # this one is a copy of the request's, of another loop
        try:
            with forks.confined():
                await self._app(scope, receive, send)
        except SystemExit as error:
            # asyncio ends the whole loop when a task raises it: one request must not.
            raise RuntimeError(f"the application raised {error!r}") from error


class AsyncPool(Apart):
    """The event loop of an ASGI application whose worker answers in threads.

    It runs what cannot block one of those: WebSockets, and the requests that a SyncApp leaves.
    The worker's own loop could do that as well, and at less cost for each message; but what
    computes there, or blocks, would keep all clients and threads waiting meanwhile.
    """

    def __init__(self, app: ASGIApp, loop: LoopName, name: str) -> None:
        super().__init__(app, new_event_loop(loop))
        self._ended = asyncio.Event()
        self._turned = 0.0
        self._asked = 0.0
        self._join = thread_sensitive.joining()
        # A daemon: nobody is to wait for an application that is stuck.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()

    def stop(self) -> None:
        """End the loop, with what it still runs. Returns at once."""
        with suppress(RuntimeError):  # the application has ended it itself
            self._loop.call_soon_threadsafe(self._ended.set)

    def stuck_for(self, now: float) -> float:
        """For how many seconds the loop has not turned; ask regularly, for asking makes it tell."""
        if self._turned >= self._asked:
            self._asked = now
            with suppress(RuntimeError):  # it has ended, as `alive` will tell
                self._loop.call_soon_threadsafe(self._turn, now)
            return 0.0
        return now - self._asked

    def _turn(self, asked: float) -> None:
        self._turned = asked

    def _run(self) -> None:
        self._join()
        with forks.guarding(self._loop), ending.running(self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._ended.wait()


def _across(loop: asyncio.AbstractEventLoop, call: Callable[..., Awaitable[Any]]) -> Any:
    """*call*, made on *loop* wherever it is called."""

    async def there(*arguments: Any) -> Any:
        return await call(*arguments)

    async def here(*arguments: Any) -> Any:
        return await _on(loop, there(*arguments))

    return here


async def _on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What *coroutine* returns, run on *loop*; who is cancelled here cancels it there."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))
