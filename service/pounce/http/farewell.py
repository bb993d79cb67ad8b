"""The end of event streams that would otherwise go on for as long as their worker may.

A response to GET of the type text/event-stream is what EventSource asks for: it has no end of its
own, and the client opens it again when the connection ends. What answers GET often answers HEAD
alike, though nobody gets its events. Other answers come to an end, also
event streams: a model's is one, but asked for with POST, and nobody would ask for its rest.
"""

from collections.abc import Iterable
from math import inf
from typing import Protocol

# How long, in seconds, an application may take to hear that it is to end.
_HEARING = 1.0


ENDLESS = frozenset(("GET", "HEAD"))
"""Methods whose event streams have no end."""


class EventStream(Protocol):
    """A request whose response has no end; see pounce.asgi.cycle.Cycle."""

    def end_stream(self, *, cut: bool) -> None:
        """Tell the application; or *cut* the response, where it was told and does not listen."""


class Carrier(Protocol):
    """A connection that may carry event streams; who inherits from it carries none."""

    __slots__ = ()

    def event_streams(self) -> Iterable[EventStream]:
        """Responses that have no end of their own."""
        return ()


class Farewell:
    """Ends event streams from some time on: first their applications are told.

    Those that do not listen, as WSGI has no way to, learn it from the end of their clients: their
    streams are cut soon after. Those that have heard it take their time.
    """

    __slots__ = ("_cut_at", "_tell_at")

    def __init__(self) -> None:
        self._tell_at = self._cut_at = inf

    def begin(self, now: float, deadline: float, patience: float = 0.0) -> None:
        """Tell applications *patience* seconds after *now*; all streams are cut before *deadline*.

        The last second before *deadline* is for hearing it, whatever *patience* is.
        """
        tell_at = max(now, min(now + patience, deadline - _HEARING))
        self._tell_at = min(self._tell_at, tell_at)
        half = (self._tell_at + max(deadline, self._tell_at)) / 2
        self._cut_at = min(self._cut_at, self._tell_at + _HEARING, half)

    def sweep(self, now: float, connections: Iterable[Carrier]) -> None:
        """Do what is due at *now*. Called about twice a second."""
        if now < self._tell_at:
            return
        for connection in list(connections):
            for stream in connection.event_streams():
                stream.end_stream(cut=now >= self._cut_at)
