"""What follows when a client leaves before its response is complete."""

import asyncio
import time
from collections.abc import Callable

from pounce.asgi.types import ClientDisconnected

# Enough to send the rest of a file of some size to nobody, which costs less than losing the work
# that an application does after its response, such as removing that file.
_PATIENCE = 2.0


# After so many messages that nobody waited for, others have their turn, for so many seconds at
# least: who comes and goes must not keep the processor busy. Not after each: what is cancelled
# while it sends, and not in its generator, leaves that to the garbage collector.
_TURN = 16
_PAUSE = 0.005


class Overrun:
    """The time that an application has for coming to its end once content of it was dropped."""

    __slots__ = ("_dropped", "_until")

    def __init__(self) -> None:
        self._dropped = 0
        self._until = time.monotonic() + _PATIENCE

    @property
    def over(self) -> bool:
        """Whether the application has to be ended: it may send for ever, and nobody reads."""
        return time.monotonic() >= self._until

    async def drop(self, cancel: Callable[[], object]) -> None:
        """Take content that nobody is there for; *cancel* ends the application."""
        self._dropped += 1
        if self.over:
            cancel()
            await asyncio.sleep(0)
        elif self._dropped % _TURN == 0:
            await asyncio.sleep(_PAUSE)


def is_departure(error: BaseException | None) -> bool:
    """Whether *error* says only that a client has left, also where a framework has wrapped it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, (ClientDisconnected, asyncio.CancelledError)):
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(map(is_departure, error.exceptions))
        if isinstance(error, TimeoutError):
            return False  # asyncio.timeout() makes it from a cancellation, whoever has left
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
