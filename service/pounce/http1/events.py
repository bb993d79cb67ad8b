"""What a request reader says: frozen events, free of any parser's types.

Those that are made for every request are tuples: a frozen dataclass takes five times as long.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, NamedTuple, TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]

MOST_ELEMENTS = 100
"""How many elements are read of lists in a request's fields; RFC 9110 section 5.6.1.2."""


class RequestHead(NamedTuple):
    """A request's line and fields, checked.

    *target* is as the client sent it (RFC 9112 section 3.2); names in *headers* are lower-case;
    *keep_alive* and *expect_continue* are what the client asked for; *has_body* says whether
    :class:`Body` events and an :class:`EndOfRequest` follow, or the request is its head alone.
    *forwarded* is whether it has fields by which proxies tell of the client, and *websocket*
    whether the client asks to go on with WebSocket.
    """

    method: str
    target: bytes
    headers: Headers
    http_version: Literal["1.0", "1.1"]
    keep_alive: bool
    expect_continue: bool
    has_body: bool
    forwarded: bool = False
    websocket: bool = False

    @property
    def line(self) -> bytes:
        """The request line."""
        return b"%b %b HTTP/%b" % (self.method.encode(), self.target, self.http_version.encode())


class Body(NamedTuple):
    """A piece of the request's content, never empty, its transfer coding removed."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndOfRequest:
    """A request with content is complete; trailer fields, if any, were checked and dropped."""


class NeedData(Enum):
    """The type of :data:`NEED_DATA`."""

    NEED_DATA = auto()


NEED_DATA: Final = NeedData.NEED_DATA
END_OF_REQUEST: Final = EndOfRequest()

Event: TypeAlias = RequestHead | Body | EndOfRequest


class BadRequest(Exception):
    """The input cannot be served: answer *status* and close; *reason* is safe to send back."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
