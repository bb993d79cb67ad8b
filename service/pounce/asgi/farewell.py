"""The end of event streams that would otherwise go on for as long as their worker may.

A response to GET of the type text/event-stream is what EventSource asks for: it has no end of its
own, and the client opens it again when the connection ends. Other answers come to an end, also
event streams: a model's is one, but asked for with POST, and nobody would ask for its rest.
"""

from collections.abc import Iterable
from math import inf
from typing import Protocol

# How long, in seconds, an application has for its last words once it is told.
_LAST_WORDS = 1.0


class EventStream(Protocol):
    """A stream whose response has no end; see pounce.asgi.cycle.Stream."""

    @property
    def input_ended(self) -> bool:
        """Whether the application was told to end its response."""

    def disconnect(self) -> None:
        """Tell the application."""

    def break_off(self) -> None:
        """End the response without an error."""


class Listener(Protocol):
    """A connection that may carry event streams."""

    def event_streams(self) -> Iterable[EventStream]:
        """Those that have no end."""


class Farewell:
    """Ends event streams from some time on: first their applications are told, then they are cut.

    An application that does not listen, and a thread that waits, have nothing but the client's end.
    """

    __slots__ = ("_cut_at", "_tell_at")

    def __init__(self) -> None:
        self._tell_at = self._cut_at = inf

    def begin(self, tell_at: float, deadline: float) -> None:
        """Tell applications at *tell_at*, and cut streams well before *deadline*."""
        self._tell_at = min(self._tell_at, tell_at)
        half = (self._tell_at + max(deadline, self._tell_at)) / 2
        self._cut_at = min(self._cut_at, self._tell_at + _LAST_WORDS, half)

    def sweep(self, now: float, connections: Iterable[Listener]) -> None:
        """Do what is due at *now*. Called about twice a second."""
        if now < self._tell_at:
            return
        for connection in list(connections):
            for stream in list(connection.event_streams()):
                # One that began late is told first, all the same.
                if now >= self._cut_at and stream.input_ended:
                    stream.break_off()
                else:
                    stream.disconnect()
