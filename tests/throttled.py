"""Clients that read so slowly that much can happen before they have all of a response."""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.apps.throttled import CONTENT
from tests.load.response import ResponseReader

RATE = 350_000
"""Bytes a second, so that CONTENT takes about three seconds."""

SHAPES = ("whole", "chunks", "echo")

# As much as the kernel may receive before the client reads it; it takes twice as much.
_RECEIVE_BUFFER = 16_384
_READ = 8192
_BEGUN = len(CONTENT) // 10


@dataclass(eq=False)
class Download:
    """One response: what has come of it, and how it ended.

    It pauses after a tenth until all have come so far, however busy the machine is.
    """

    name: str
    rate: float = RATE
    received: int = 0
    body: bytes = b""
    ended: str = ""
    _resumed: float = 0.0
    _may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def begun(self) -> bool:
        """Whether it pauses, or has ended before."""
        return self.received >= _BEGUN or bool(self.ended)

    def go_on(self) -> None:
        """Read the rest, at the rate."""
        self._resumed = time.monotonic()
        self._may_go_on.set()

    async def took(self, size: int) -> None:
        """Wait until reading *size* more bytes keeps the rate."""
        self.received += size
        if self.begun:
            await self._may_go_on.wait()
            due = self._resumed + (self.received - _BEGUN) / self.rate
            await asyncio.sleep(due - time.monotonic())

    async def run(self, read: Callable[["Download"], Awaitable[None]]) -> None:
        """Have *read* do it all, and note how it ended."""
        try:
            await read(self)
        except Exception as error:
            self.ended = f"{type(error).__name__}: {error}"
        else:
            self.ended = self.ended or "whole"

    @property
    def is_a_beginning(self) -> bool:
        """Whether what has come is CONTENT, again and again, as far as it goes."""
        times = len(self.body) // len(CONTENT) + 1
        return self.body == (CONTENT * times)[: len(self.body)]

    def verdict(self) -> str:
        """What there is to say of it; empty if it is whole and right."""
        if self.ended == "whole" and self.body == CONTENT:
            return ""
        return f"{self.name}: {self.ended}, {self.received} bytes"


@dataclass(eq=False)
class OverTCP:
    """HTTP/1.1, with *trust* over TLS."""

    address: tuple[str, int]
    shape: str
    trust: ssl.SSLContext | None = None

    async def __call__(self, download: Download) -> None:
        """Ask, and read slowly; the connection stays open until the server ends it."""
        sock = _slow_socket()
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        name = self.address[0] if self.trust else None
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=self.trust, server_hostname=name, limit=_READ
        )
        sending = asyncio.create_task(self._send(writer))
        try:
            await self._read(reader, download)
        finally:
            sending.cancel()
            writer.transport.abort()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        method = "POST" if self.shape == "echo" else "GET"
        length = len(CONTENT) if self.shape == "echo" else 0
        head = f"{method} /{self.shape} HTTP/1.1\r\nhost: a.example\r\n"
        writer.write(f"{head}content-length: {length}\r\n\r\n".encode() + CONTENT[:length])
        with suppress(ConnectionError):
            await writer.drain()

    async def _read(self, reader: asyncio.StreamReader, download: Download) -> None:
        response = ResponseReader()
        while data := await reader.read(_READ):
            if (whole := response.feed(data)) is not None:
                download.body = whole.body
                return
            await download.took(len(data))
        download.ended = "the connection ended"


@dataclass(eq=False)
class OverWebSocket:
    """A stream of messages; `ended` says with which code it was closed, where not 1000."""

    address: tuple[str, int]
    shape: str

    async def __call__(self, download: Download) -> None:
        host, port = self.address
        sock = _slow_socket()
        await asyncio.get_running_loop().sock_connect(sock, self.address)
        options: dict[str, Any] = {"max_queue": 1, "compression": None, "proxy": None}
        async with connect(f"ws://{host}:{port}/{self.shape}", sock=sock, **options) as messages:
            try:
                while True:
                    data = await messages.recv()
                    assert isinstance(data, bytes)
                    download.body += data
                    await download.took(len(data))
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
                download.ended = "whole" if code == 1000 else f"closed {code}"


@dataclass(eq=False)
class OverHTTP3:
    """One request of a connection of its own; options are those of tests.http3.connected."""

    address: tuple[str, int]
    shape: str
    options: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, download: Download) -> None:
        options = {"max_stream_data": 65_536, "max_data": 1 << 30, **self.options}
        # Here, since there is no aioquic for a free-threaded Python.
        from tests.http3 import connected

        async with connected(self.address, **options) as client:
            client.holds_back = True
            if self.shape == "echo":
                exchange = client.start("/echo", method="POST", ended=False)
                exchange.send(CONTENT, ended=True)
            else:
                exchange = client.start(f"/{self.shape}")
            while not exchange.ended:
                size = len(await exchange.body(download.received + 1)) - download.received
                await download.took(size)
                exchange.grant(size)
            download.body = exchange.response.body


def _slow_socket() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.setblocking(False)
    return sock
