"""Waiting for something to change on a connection, without an object per request."""

import asyncio


class Gate:
    """Wakes all who wait; each looks again at what it waited for. *waiters* are theirs."""

    __slots__ = ("_loop", "waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.waiters: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self.waiters)

    async def wait(self) -> None:
        """Return at the next `wake`."""
        # A future each: one waiter's cancellation must not reach the others.
        waiter = self._loop.create_future()
        self.waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self.waiters:
                self.waiters.remove(waiter)

    def wake(self) -> None:
        """Let everybody go who waits now."""
        if self.waiters:
            waiters, self.waiters = self.waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
