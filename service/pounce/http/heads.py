"""Heads of responses, which go out without content where that does not follow soon.

The specification lets a server keep a head until there is content, and pounce does: both leave by
one write, the length is known where all content comes at once, and an application that fails in
between is still answered 500. But who waits for an event stream's first event, or for a long
computation, has to see the status before.
"""

import asyncio
from contextvars import Context
from typing import Any, Protocol

# A head waits for one to two steps: at most about 100 ms, and never so short that an application
# which had its turn in the meantime could not have sent content.
_STEP = 0.05


class Started(Protocol):
    """What has taken a response's head."""

    def send_head(self) -> None:
        """Send the head, unless that has happened."""


class Heads:
    """The heads that one loop has taken and may have to send.

    `last` is who took one most recently. Nearly all send content in the same step, so the next to
    take a head needs only look whether `last` has, and `keep` it if not: there is no timer, and no
    entry in a list, for each request.
    """

    __slots__ = ("_context", "_loop", "_old", "_ticking", "_young", "last")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.last: Any = None
        self._loop = loop
        self._young: list[Started] = []
        self._old: list[Started] = []
        self._ticking = False
        # Not that of the request in which the clock starts, which it would keep alive.
        self._context = Context()

    def keep(self, last: Started | None) -> None:
        """Look after *last*, which has sent nothing yet, and after whoever is `last` next."""
        if last is not None:
            self._young.append(last)
        if not self._ticking:
            self._tick()

    def _tick(self) -> None:
        self._ticking = True
        self._loop.call_later(_STEP, self._step, context=self._context)

    def _step(self) -> None:
        due, self._old, self._young = self._old, self._young, []
        if self.last is not None:
            self._old.append(self.last)
            self.last = None
        if self._old:
            self._tick()
        else:
            self._ticking = False
        for each in due:
            each.send_head()
