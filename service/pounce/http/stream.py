"""A request and what carries it: a connection or a stream of HTTP/3, as each sees the other."""

import asyncio
from typing import Any, Protocol

from pounce.http.farewell import EventStream
from pounce.http.response_head import ResponseHead


class Stream(Protocol):
    """What a cycle needs of the connection, or of the HTTP/3 stream, that carries it."""

    @property
    def gone(self) -> bool:
        """Whether nothing can be sent or received any more."""

    @property
    def write_paused(self) -> bool:
        """Whether as much is waiting to be sent as should."""

    @property
    def input_ended(self) -> bool:
        """Whether the client will send nothing more; it may still read."""

    def read_body(self) -> tuple[bytes, bool] | None:
        """The next piece of content and whether more follows; None when it has yet to come."""

    async def wait_input(self) -> None:
        """Return once `read_body`, `input_ended`, `gone` or the response's state may differ."""

    async def wait_writable(self) -> None:
        """Return once `write_paused` is false or `gone` is true."""

    def start_response(self, status: int, headers: Any, reason: bytes = b"") -> None:
        """Take the head, to be sent with the first content; raises MessageError.

        *reason* replaces the usual reason phrase, where the protocol has one. A second call before
        the first content replaces the head.
        """

    def send_body(self, data: bytes, more: bool) -> bool:
        """Send content; without *more* the response is complete. Raises MessageError.

        True where *more* may come and none of it would be sent: see `end_response`.
        """

    def end_response(self) -> None:
        """Take the response for complete, for all of it was sent."""

    def wake_input(self) -> None:
        """Have `wait_input` return."""

    def reset(self) -> None:
        """End the stream so that the client cannot take what it has for a whole response."""

    def disconnect(self) -> None:
        """Have `input_ended` say that the application is to end its response."""

    @property
    def event_stream(self) -> bool:
        """Whether the head that was taken says that the content is server-sent events."""

    def break_off(self) -> None:
        """End the stream where it is, and not by an error, though it may not be whole."""


class FullStream(Stream, Protocol):
    """A stream that also takes a whole response at once, or a file."""

    def respond(self, head: ResponseHead, data: bytes) -> None:
        """Send a whole response. Raises MessageError."""

    @property
    def sends_files(self) -> bool:
        """Whether `send_file` can be called."""

    async def send_file(self, file: int, offset: int, count: int) -> bool:
        """Send *count* bytes of descriptor *file* as the whole content; false if it fails."""

    def go_on_with(self, cycle: "InFlight") -> None:
        """Start *cycle* for the same request, in place of the one that has carried it so far."""


class InFlight(EventStream, Protocol):
    """A request that is being answered; see pounce.asgi.cycle.Cycle."""

    @property
    def in_loop(self) -> bool:
        """Whether the application is called on the connection's loop."""

    def start(self) -> asyncio.Task[None] | None:
        """Begin; the task, if there is one that goes on."""

    def seen(self, now: float) -> None:
        """Note that it runs at *now*, by the monotonic clock."""

    def describe(self, now: float) -> str:
        """What it is and how long it has run, for a person."""

    @property
    def endless(self) -> bool:
        """Whether the response has no end of its own; see pounce.http.farewell."""

    def client_left(self) -> None:
        """Wait no longer than a while for what streams events, and does not listen."""

    def answered(self, status: int) -> None:
        """The stream has answered *status* in the application's place."""
