"""The types of the ASGI specification, and the two errors its calls raise."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Scope: TypeAlias = dict[str, Any]
Message: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientDisconnected(OSError):
    """The client is gone; a WebSocket's ``send()`` raises it (ASGI specification, version 2.4).

    For HTTP no application gets to see it; see pounce.asgi.scope.
    """


class MessageError(RuntimeError):
    """The application sent a message that is malformed, or not the one due now."""


def as_status(status: object) -> int:
    """What an application sends as a status; raises MessageError where it is none."""
    if not isinstance(status, int):
        raise MessageError(f"the status is {status!r}, not an int")
    return status


def as_bytes(body: object) -> bytes:
    """What an application sends as a body; raises MessageError where it is none."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise MessageError(f"the body is {type(body).__name__}, not bytes")
