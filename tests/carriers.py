"""One application behind everything that carries HTTP, and clients that follow a response."""

import importlib.util
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from pounce.application.types import ASGIApp
from pounce.http.connections import ServerContext
from pounce.net.tls import Certificates, ListenerTLS, TLSFiles
from pounce.threads.asgi import ASGIHandler
from tests.certificates import Authority
from tests.live import Client, LiveServer, serve, serve_in_threads

_needs_aioquic = pytest.mark.skipif(
    importlib.util.find_spec("aioquic") is None, reason="aioquic cannot be imported"
)
HTTP3 = pytest.param("http3", marks=_needs_aioquic)
every_carrier = pytest.mark.parametrize(
    "name", ["plain", "tls", HTTP3, "plain threads", "tls threads"]
)
without_threads = pytest.mark.parametrize("name", ["plain", "tls", HTTP3])


class Follower(Protocol):
    """The client's side of one response, on a connection of its own."""

    async def head(self) -> None:
        """Return once the head has come."""

    async def until(self, content: bytes) -> None:
        """Return once *content* has come."""

    async def end(self) -> str:
        """How the response ends: "whole", "cut" or "reset"."""

    def leave(self, *, abruptly: bool = False) -> None:
        """Close the connection; *abruptly* by a reset, which in HTTP/3 is the stream's alone."""


class Carrier:
    """A server, and its clients."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.context: ServerContext

    async def ask(self, target: str = "/", method: str = "GET") -> Follower:
        """Send a request."""
        raise NotImplementedError


@asynccontextmanager
async def carried(
    name: str, app: ASGIApp, directory: Path, **options: Any
) -> AsyncIterator[Carrier]:
    """Serve *app*, asynchronous as it is, by the carrier of this *name*."""
    async with AsyncExitStack() as stack:
        if name == "http3":
            yield await _OverQUIC(stack).open(app, directory, **options)
        else:
            yield await _OverTCP(stack).open(app, directory, name.split(), **options)


class _OverTCP(Carrier):
    _server: LiveServer
    _trusted: ssl.SSLContext | None = None

    async def open(
        self, app: ASGIApp, directory: Path, words: list[str], **options: Any
    ) -> Carrier:
        if "tls" in words:
            authority = Authority()
            pair = authority.issue("a.example").write(directory, "a")
            files = TLSFiles([(str(pair[0]), str(pair[1]))])
            options["tls"] = ListenerTLS(Certificates(files))
            self._trusted = ssl.create_default_context(cafile=str(authority.write(directory)))
        server = (
            serve_in_threads(ASGIHandler(app), **options)
            if "threads" in words
            else serve(app, **options)
        )
        self._server = await self._stack.enter_async_context(server)
        self.context = self._server.context
        return self

    async def ask(self, target: str = "/", method: str = "GET") -> Follower:
        if self._trusted is None:
            client = await self._server.connect()
        else:
            client = await self._server.connect_securely(self._trusted)
        await self._stack.enter_async_context(client)
        await client.send(b"%b %b HTTP/1.1\r\nhost: a\r\n\r\n" % (method.encode(), target.encode()))
        return OnTCP(client)


class OnTCP:
    """A follower on a connection of HTTP/1.1."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, data: bytes) -> None:
        """Send more on the connection."""
        await self._client.send(data)

    async def head(self) -> None:
        await self.until(b"\r\n\r\n")

    async def until(self, content: bytes) -> None:
        while content not in self._client.received:
            assert await self._client.more(), f"closed after {self._client.received!r}"

    async def end(self) -> str:
        try:
            while not self._client.received.endswith(b"\r\n0\r\n\r\n"):
                if not await self._client.more():
                    return "cut"
        except ConnectionResetError:
            return "reset"
        return "whole"

    def leave(self, *, abruptly: bool = False) -> None:
        if abruptly:
            linger = struct.pack("ii", 1, 0)
            self._client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._client.sock.close()


class _OverQUIC(Carrier):
    async def open(self, app: ASGIApp, directory: Path, **options: Any) -> Carrier:
        from tests import http3

        server = await self._stack.enter_async_context(http3.serve(app, directory, **options))
        self._connected = http3.connected
        self._address = server.address
        self.context = server.workers[0].context
        return self

    async def ask(self, target: str = "/", method: str = "GET") -> Follower:
        client = await self._stack.enter_async_context(self._connected(self._address))
        return _OnQUIC(client, client.start(target, method=method))


class _OnQUIC:
    def __init__(self, client: Any, exchange: Any) -> None:
        self._client = client
        self._exchange = exchange

    async def head(self) -> None:
        await self._exchange.head()

    async def until(self, content: bytes) -> None:
        await self._exchange._until(lambda: content in self._exchange.response.body)

    async def end(self) -> str:
        from tests.http3 import StreamError

        try:
            await self._exchange.result()
        except StreamError:
            return "reset"
        return "whole"

    def leave(self, *, abruptly: bool = False) -> None:
        from aioquic.h3.connection import ErrorCode

        if abruptly:
            stream = self._exchange.stream_id
            self._client.quic.stop_stream(stream, ErrorCode.H3_REQUEST_CANCELLED)
        else:
            self._client.close()
        self._client.transmit()
