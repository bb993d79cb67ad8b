"""What follows when a client leaves before its response is complete."""

import asyncio
import logging
import time
import traceback
from collections.abc import Callable

from pounce.application.types import ClientDisconnected

NOTICE = 3.0
"""What an application gets, in seconds, to notice that nobody gets its events any more."""

# Enough to send the rest of a file of some size to nobody, which costs less than losing the work
# that an application does after its response, such as removing that file.
_PATIENCE = 2.0

# After so many messages that nobody waited for, others have their turn, for so many seconds at
# least: who comes and goes must not keep the processor busy. Not after each: what is cancelled
# while it sends, and not in its generator, leaves that to the garbage collector.
_TURN = 16
_PAUSE = 0.005

# What Starlette, FastAPI and Litestar raise in the application when they hear that its client has
# left. Starlette's WebSocketDisconnected is another: it tells of a mistake of the application.
_OF_FRAMEWORKS = frozenset(("ClientDisconnect", "WebSocketDisconnect"))


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


def severity(error: BaseException, *, cancelled: bool = False) -> int:
    """How the log tells of *error*, with which an application has ended whose client has left.

    That is logging.NOTSET, not at all, where *error* only says that the client has left;
    logging.INFO, in one line, where a framework says the same by an exception of its own; else
    logging.ERROR. Of a group the worst counts. *cancelled* is whether pounce has cancelled the
    application: any other CancelledError is of a task that the application has cancelled.
    """
    if isinstance(error, BaseExceptionGroup):
        return max(severity(each, cancelled=cancelled) for each in error.exceptions)
    if isinstance(error, ClientDisconnected):
        return logging.NOTSET
    if isinstance(error, asyncio.CancelledError):
        return logging.NOTSET if cancelled else logging.ERROR
    # Not __context__: that is of whatever fails in a `finally` or `except` clause meanwhile.
    if isinstance(error.__cause__, ClientDisconnected) or _names_departure(type(error)):
        return logging.INFO
    return logging.ERROR


def _names_departure(kind: type[BaseException]) -> bool:
    return any(each.__name__ in _OF_FRAMEWORKS for each in kind.__mro__)


def is_being_cancelled() -> bool:
    """Whether somebody has cancelled the current task, which the application runs in.

    That is pounce, unless the application itself wants to be cancelled.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def in_a_line(error: BaseException) -> str:
    """What the log says of *error* where it is worth no more than a line."""
    # By this, and not by str(), which an exception may define to raise another one.
    said = traceback.format_exception_only(error)[0].strip()
    return f"the client has left, and the application ended by {said}"
