"""The interface of applications that answer one request at a time, in blocking code.

It is the shortest way from a request to a response: two frozen records and one call, without an
environ and without coroutines.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

RawHeaders: TypeAlias = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request, whole.

    *path* is as the client sent it, percent-encoded and without *query_string*; names in
    *headers* are lower-case; *body* has its transfer coding removed. *client* is None, and
    *server* a path and None, on a unix socket.
    """

    method: bytes
    path: bytes
    query_string: bytes
    headers: RawHeaders
    body: bytes
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    http_version: str
    scheme: str


@dataclass(frozen=True, slots=True)
class RawResponse:
    """One response, whole; its Content-Length is added where *headers* have none."""

    status: int
    headers: RawHeaders = ()
    body: bytes = b""


class SyncApp(Protocol):
    """An application that pounce calls in a thread, with one complete request at a time."""

    def handle_sync(self, request: RawRequest) -> RawResponse | None:
        """The response; None leaves the request to the ASGI application, if there is one.

        Several threads call it at once. An exception is answered with 500.
        """
