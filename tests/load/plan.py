"""What the clients do: which requests, how many connections, for how long."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Protocol

from pounce.net.address import Address
from tests.apps.load import chunk, signature
from tests.load.response import Response


@dataclass(slots=True)
class Request:
    """One request: the bytes to send, and what the response must be."""

    nonce: bytes
    data: bytes
    pieces: tuple[bytes, ...] = ()
    """What follows *data*, with *pause* seconds between them."""
    pause: float = 0.0
    content: bytes = b""
    """The response's body, but for the signature at its end."""

    def fault(self, response: Response) -> str:
        """What is wrong with *response*; empty if nothing is."""
        headers = response.headers
        nonce, served_by = headers.get(b"x-nonce"), headers.get(b"x-served-by", b"")
        if response.status != 200:
            return f"status {response.status}"
        if nonce != self.nonce:
            return f"the response to {nonce!r} came to {self.nonce!r}"
        if response.body != self.content + signature(self.nonce, served_by):
            return f"wrong content of {len(response.body)} bytes: {response.body[:60]!r}"
        return ""


class Work(Protocol):
    """A kind of request."""

    def request(self, nonce: bytes) -> Request:
        """The request that carries *nonce*."""


def _get(target: str, nonce: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: load\r\nX-Nonce: %b\r\n\r\n" % (target.encode(), nonce)


@dataclass(frozen=True, slots=True)
class Echo:
    """The smallest request."""

    def request(self, nonce: bytes) -> Request:
        return Request(nonce, _get("/", nonce))


@dataclass(frozen=True, slots=True)
class Slow:
    """The application waits *ms* before it answers."""

    ms: int = 200

    def request(self, nonce: bytes) -> Request:
        return Request(nonce, _get(f"/slow?ms={self.ms}", nonce))


@dataclass(frozen=True, slots=True)
class Stream:
    """A response of *chunks* chunks of *size* bytes, *ms* apart."""

    chunks: int = 10
    size: int = 100
    ms: int = 20

    def request(self, nonce: bytes) -> Request:
        target = f"/stream?chunks={self.chunks}&size={self.size}&ms={self.ms}"
        content = b"".join(chunk(nonce, number, self.size) for number in range(self.chunks))
        return Request(nonce, _get(target, nonce), content=content)


@dataclass(frozen=True, slots=True)
class Upload:
    """A body of *pieces* pieces of *size* bytes, *ms* apart."""

    pieces: int = 10
    size: int = 1000
    ms: int = 20
    chunked: bool = False

    def request(self, nonce: bytes) -> Request:
        pieces = [chunk(nonce, number, self.size) for number in range(self.pieces)]
        body = b"".join(pieces)
        framing = b"Content-Length: %d" % len(body)
        if self.chunked:
            framing = b"Transfer-Encoding: chunked"
            pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
        head = b"POST /upload HTTP/1.1\r\nHost: load\r\nX-Nonce: %b\r\n%b\r\n\r\n" % (
            nonce,
            framing,
        )
        content = b"%d %b\n" % (len(body), hashlib.sha256(body).hexdigest().encode())
        return Request(nonce, head, tuple(pieces), self.ms / 1000, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Load on *address* from *connections* clients, each with one connection.

    It ends after *duration* seconds or *requests* requests (0: any number), whichever comes
    first; requests in flight then are still awaited. A client pauses between requests for
    *think* seconds, give or take a half. With ``think=math.inf`` it sends one request as it
    connects, sits, and sends another at the end.
    """

    address: Address
    work: Work = field(default_factory=Echo)
    connections: int = 32
    duration: float = 5.0
    requests: int = 0
    think: float = 0.0
    timeout: float = 10.0
    """Seconds in which a request must be answered completely."""
    connect_timeout: float = 5.0
    bind: str = ""
    """The local IP address that connections come from."""
    tls: str = ""
    """With TLS: the PEM file of the authority that has to have issued the server's certificate."""

    @property
    def sits(self) -> bool:
        """Whether its connections are idle but for the first and the last request."""
        return math.isinf(self.think)
