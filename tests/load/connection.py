"""One client connection: sends a request, reads its response, knows how each was lost."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, cast

from tests.load.plan import Request
from tests.load.response import BadResponse, Response, ResponseReader
from tests.load.result import Drop


class Owner(Protocol):
    """Who uses a connection. After any of these but `answered` the connection is gone."""

    def answered(self, response: Response, sent_at: float) -> None:
        """The response is complete; the request was sent at *sent_at* of time.monotonic()."""

    def dropped(self, how: Drop, why: str) -> None:
        """The request in flight is lost."""

    def closed_idle(self, why: str) -> None:
        """The server closed the connection while no request was in flight."""


class Connection(asyncio.Protocol):
    """A connection, with at most one request in flight. *gone* is called with it at its end."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, gone: Callable[["Connection"], None]
    ) -> None:
        self._loop = loop
        self._gone = gone
        self._owner: Owner | None = None
        self._early = ""
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self._sent_at = 0.0
        self._sending: asyncio.TimerHandle | None = None
        self.busy = False

    def adopt(self, owner: Owner) -> None:
        """Tell *owner* what happens, beginning with what has happened since it was opened."""
        self._owner = owner
        if self._early:
            self._end_idle(self._early)

    def send(self, request: Request) -> None:
        """Send *request*."""
        self.busy = True
        self._sent_at = time.monotonic()
        self._write(request.data)
        if request.pieces:
            self._send_piece(request, 0)

    def overdue(self, now: float, timeout: float) -> bool:
        """Whether a request is in flight for longer than *timeout* seconds."""
        return self.busy and now - self._sent_at > timeout

    def leave(self) -> None:
        """Close it; the owner hears no more of it."""
        self._owner = None
        self.busy = False
        if self._sending is not None:
            self._sending.cancel()
        if self._transport is not None:
            self._transport.abort()

    def time_out(self) -> None:
        """Give up the request in flight."""
        arrived = "within the response" if self._reader.started else "without a response"
        self._drop(Drop.TIMED_OUT, arrived)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface, but are no subclasses.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self.busy:
            self._end_idle(f"bytes that nobody asked for: {data[:40]!r}")
            return
        try:
            response = self._reader.feed(data)
        except BadResponse as error:
            self._drop(Drop.HALF, str(error))
            return
        if response is None:
            return
        if self._sending is not None:
            self._drop(Drop.HALF, "the response ended before the request")
            return
        self.busy = False
        if self._owner is not None:
            self._owner.answered(response, self._sent_at)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone(self)
        why = f"{type(exc).__name__}: {exc}" if exc else "end of file"
        if not self.busy:
            self._end_idle(why)
        elif self._reader.started:
            self._drop(Drop.HALF, why)
        else:
            self._drop(Drop.RESET if exc else Drop.UNANSWERED, why)

    def _end_idle(self, why: str) -> None:
        owner = self._owner
        self._early = why
        self.leave()
        if owner is not None:
            owner.closed_idle(why)

    def _drop(self, how: Drop, why: str) -> None:
        owner = self._owner
        self.leave()
        if owner is not None:
            owner.dropped(how, why)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _send_piece(self, request: Request, number: int) -> None:
        self._write(request.pieces[number])
        if number + 1 < len(request.pieces):
            self._sending = self._loop.call_later(
                request.pause, self._send_piece, request, number + 1
            )
        else:
            self._sending = None
