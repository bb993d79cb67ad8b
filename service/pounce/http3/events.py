"""What QUIC tells of a connection, handled in turns.

A packet has room for dozens of requests, and the application's first step in each may take long.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator

from aioquic.quic.events import ConnectionIdIssued, ConnectionIdRetired, QuicEvent

from pounce.net.turns import Turns

# So many requests begin in a turn. Where tasks are not started eagerly, the time that they take
# comes after the turn.
_MOST = 4

# The client may use a connection id as soon as it has been told of it.
_AT_ONCE = (ConnectionIdIssued, ConnectionIdRetired)


class Events:
    """The events that *next_event* gives, in order; true while some wait for a later turn."""

    __slots__ = ("_left", "_next_event", "_waiting")

    def __init__(self, next_event: Callable[[], QuicEvent | None]) -> None:
        self._next_event = next_event
        self._waiting: deque[QuicEvent] = deque()
        self._left = 0  # requests that may begin in this turn

    def begun(self) -> None:
        """The last event has begun a request."""
        self._left -= 1

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def new(self) -> Iterator[QuicEvent]:
        """As many of the new ones as a turn has time for; they wait behind those that wait."""
        waits = bool(self._waiting)
        yield from self.urgent()
        if not waits:
            yield from self.turn()

    def urgent(self) -> Iterator[QuicEvent]:
        """The new ones that cannot wait; all others do."""
        while (event := self._next_event()) is not None:
            if isinstance(event, _AT_ONCE):
                yield event
            else:
                self._waiting.append(event)

    def turn(self) -> Iterator[QuicEvent]:
        """As many of those that wait as a turn has time for."""
        self._left, end = _MOST, Turns.end()
        while self._waiting and self._left > 0:
            yield self._waiting.popleft()
            if time.monotonic() >= end:
                break
