"""One WebSocket: the application is called here, whatever carries its messages."""

import asyncio
from enum import Enum, auto
from typing import Any, Protocol

from pounce.application import forks
from pounce.application.types import ClientDisconnected, Message, MessageError, Scope, as_bytes
from pounce.asgi.complaints import account, client_of, path_of, report
from pounce.asgi.cycle import BURST
from pounce.asgi.departure import is_being_cancelled
from pounce.http.connections import ServerContext


class Socket(Protocol):
    """What a cycle needs of the connection that carries its WebSocket."""

    write_paused: bool
    """Whether as much is waiting to be sent as should."""

    @property
    def closed(self) -> tuple[int, str] | None:
        """The code and reason of the end, once nothing can be sent; `take` may have more."""

    def accept(self, subprotocol: str | None, headers: Any) -> None:
        """Answer the handshake: open the WebSocket; raises MessageError."""

    def start_denial(self, status: int, headers: Any) -> None:
        """Take the head of a response that denies the WebSocket; raises MessageError.

        A second call before `send_denial` replaces the head.
        """

    def send_denial(self, data: bytes, more: bool) -> None:
        """Send content of that response; without *more* it is complete. Raises MessageError."""

    def take(self) -> str | bytes | None:
        """The next message; None when it has yet to come."""

    async def wait_input(self) -> None:
        """Return once `take` or `closed` may differ."""

    def send(self, message: str | bytes) -> None:
        """Send a message."""

    async def wait_writable(self) -> None:
        """Return once `write_paused` is false or the client is gone."""

    def close(self, code: int, reason: str) -> None:
        """Start the close; raises MessageError."""

    def reset(self) -> None:
        """Drop the connection so that the client sees an error."""

    def released(self) -> None:
        """The application has returned."""


class _Phase(Enum):
    CONNECTING = auto()  # the handshake has no answer yet
    DENYING = auto()  # the head of another response was taken
    DENIED = auto()  # some of that response is on the wire
    OPEN = auto()
    DONE = auto()  # closed or denied by the application


# Looked up once, not once a message.
_CONNECTING, _DENYING, _DENIED, _OPEN, _DONE = _Phase


# A message counts as so many bytes of a burst.
_LEAST = 1024


class WebSocketCycle:
    """Calls the application for one WebSocket and keeps both to the ASGI specification."""

    __slots__ = (
        "_began",
        "_burst",
        "_context",
        "_phase",
        "_scope",
        "_size",
        "_socket",
        "_status",
        "_told",
    )

    def __init__(self, socket: Socket, scope: Scope, context: ServerContext) -> None:
        self._socket = socket
        self._scope = scope
        self._context = context
        self._phase = _CONNECTING
        self._told = False
        self._burst = self._status = self._size = 0
        self._began = context.loop.time()

    async def run(self) -> None:
        """Call the application, and make the best of it if it fails."""
        self._context.flight.begin(self._scope["raw_path"])
        try:
            with forks.confined():
                await self._context.app(self._scope, self.receive, self.send)
        except BaseException as error:
            self._failed(error)
            # asyncio ends the whole loop when a task raises SystemExit: one client must not.
            if not isinstance(error, (Exception, SystemExit)):
                raise
        else:
            self._returned()
        finally:
            self._socket.released()

    def seen(self, now: float) -> None:
        """Nothing to note: when it began is known."""

    def describe(self, now: float) -> str:
        """What it is and how long it has run, for a person; *now* is the loop's time."""
        request = f"WebSocket {path_of(self._scope)} from {client_of(self._scope)}"
        return f"{request}, for {now - self._began:.1f} s"

    def answered(self, status: int) -> None:
        """The handshake is answered with *status*: it counts, and is logged, like a request."""
        self._context.requests += 1
        if self._context.access_log is not None:
            self._context.access_log.request(self._scope, status, self._size, self._began)

    async def receive(self) -> Message:
        """The ``receive`` of the specification."""
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        socket = self._socket
        if self._burst > BURST:  # first, for a cancelled receive() must not lose a message
            self._burst = 0
            await asyncio.sleep(0)
        while True:
            message = socket.take()
            if message is not None:
                self._burst += len(message) + _LEAST
                kind = "text" if type(message) is str else "bytes"
                return {"type": "websocket.receive", kind: message}
            if socket.closed is not None:
                code, reason = socket.closed
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            await socket.wait_input()

    async def send(self, message: Message) -> None:
        """The ``send`` of the specification."""
        kind = message["type"]
        if kind == "websocket.send":
            self._send(message)
            if self._burst > BURST:
                self._burst = 0
                await asyncio.sleep(0)
        elif kind in _HANDLERS:
            _HANDLERS[kind](self, message)
        else:
            raise MessageError(f"unknown message type {kind!r} for a WebSocket")
        if self._socket.write_paused:
            await self._socket.wait_writable()

    def _send(self, message: Message) -> None:
        self._expect(_OPEN, message)
        data = message.get("bytes")
        if data is None:
            data = message.get("text")
        if isinstance(data, (bytearray, memoryview)):
            data = bytes(data)
        elif not isinstance(data, (str, bytes)):
            raise MessageError("websocket.send has neither text (str) nor bytes")
        self._socket.send(data)
        self._burst += len(data) + _LEAST

    def _accept(self, message: Message) -> None:
        self._expect(_CONNECTING, message)
        self._socket.accept(message.get("subprotocol"), message.get("headers", ()))
        self._phase = _OPEN
        self.answered(101)

    def _close(self, message: Message) -> None:
        if self._phase is _CONNECTING:
            self._expect(_CONNECTING, message)
            self._deny_with(403)
        elif self._socket.closed is None or self._phase is not _OPEN:
            self._expect(_OPEN, message)
            self._socket.close(message.get("code", 1000), message.get("reason") or "")
        # Otherwise what the application asks for has happened already.
        self._phase = _DONE

    def _start_denial(self, message: Message) -> None:
        self._expect(_CONNECTING, message)
        status = message.get("status")
        if not isinstance(status, int):
            raise MessageError(f"the status of a denial is {status!r}, not an int")
        self._socket.start_denial(status, message.get("headers", ()))
        self._status = status
        self._phase = _DENYING

    def _deny(self, message: Message) -> None:
        if self._phase is not _DENIED:
            self._expect(_DENYING, message)
        self._check_connected()
        body, more = as_bytes(message.get("body", b"")), bool(message.get("more_body", False))
        self._socket.send_denial(body, more)
        self._size += len(body)
        self._phase = _DENIED if more else _DONE
        if not more:
            self.answered(self._status)

    def _expect(self, phase: _Phase, message: Message) -> None:
        if self._phase is not phase:
            raise MessageError(
                f"{message['type']} was sent while the WebSocket is {self._phase.name.lower()}"
            )
        self._check_connected()

    def _check_connected(self) -> None:
        if self._socket.closed is not None:
            raise ClientDisconnected("the WebSocket is closed")

    def _failed(self, error: BaseException) -> None:
        gone = self._socket.closed is not None
        cancelled = is_being_cancelled()
        account(error, "the application failed", self._scope, excused=gone, cancelled=cancelled)
        self._give_up(1011, "internal error")

    def _returned(self) -> None:
        if self._phase in (_CONNECTING, _DENYING, _DENIED) and self._socket.closed is None:
            report("the application returned without answering the handshake", self._scope)
        self._give_up(1000, "")

    def _give_up(self, code: int, reason: str) -> None:
        """Bring what the application has left behind to the best end there is."""
        if self._socket.closed is not None:
            return
        if self._phase in (_CONNECTING, _DENYING):
            self._deny_with(500)
        elif self._phase is _DENIED:
            self._socket.reset()
        elif self._phase is _OPEN:
            self._socket.close(code, reason)

    def _deny_with(self, status: int) -> None:
        self._socket.start_denial(status, ())
        self._socket.send_denial(b"", False)
        self.answered(status)


_HANDLERS = {
    "websocket.accept": WebSocketCycle._accept,  # noqa: SLF001 - its own
    "websocket.close": WebSocketCycle._close,  # noqa: SLF001
    "websocket.http.response.start": WebSocketCycle._start_denial,  # noqa: SLF001
    "websocket.http.response.body": WebSocketCycle._deny,  # noqa: SLF001
}


def websocket_scope(request: Scope, subprotocols: list[str]) -> Scope:
    """The scope of the WebSocket that *request*, an HTTP request's scope, asks for."""
    scope = {key: value for key, value in request.items() if key != "method"}
    return scope | {
        "type": "websocket",
        # Unlike that of an HTTP request, send() raises OSError once the client is gone.
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "scheme": "wss" if request["scheme"] == "https" else "ws",
        "subprotocols": subprotocols,
        "extensions": request["extensions"] | {"websocket.http.response": {}},
    }
