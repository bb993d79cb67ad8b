"""The HTTP/1.1 engine on a real socket, and a client that controls every byte, in one loop."""

import asyncio
import contextlib
import functools
import inspect
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
import uvloop

from pounce.application.interface import no_asgi_application
from pounce.application.types import ASGIApp, Receive, Scope, Send
from pounce.config.service import ServerConfig
from pounce.http.connections import ServerContext
from pounce.http1.connection import HTTP1Connection
from pounce.http1.linger import refuse_plaintext
from pounce.net.tls_transport import TLSTransport
from pounce.threads.distributor import AcceptDistributor
from pounce.threads.handler import Handler
from pounce.websocket.upgrade import Upgrader

PATIENCE = 25.0
"""Seconds after which whatever a test waits for has failed."""

SWEEP = 0.02

GET = b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"


_LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def live(
    test: Callable[..., Awaitable[None]], loops: Sequence[str] = tuple(_LOOPS)
) -> Callable[..., None]:
    """Run an asynchronous test on asyncio's loop and on uvloop, or on those of *loops* alone."""

    @functools.wraps(test)
    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(PATIENCE):
                await test(**arguments)
            await until(lambda: len(asyncio.all_tasks()) == 1)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    parameters = list(inspect.signature(test).parameters.values())
    loop = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = inspect.Signature([*parameters, loop])  # type: ignore[attr-defined]
    factories = [_LOOPS[name] for name in loops]
    mark = pytest.mark.parametrize("loop_factory", factories, ids=loops)
    marked: Callable[..., None] = mark(run)
    return marked


async def until(condition: Callable[[], bool]) -> None:
    """Return once *condition* holds; the test's own deadline ends the wait."""
    while not condition():
        await asyncio.sleep(0.005)


class Client:
    """One connection, read and written exactly as told."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def ask(self, target: str = "/", *fields: str) -> None:
        """Send a GET request."""
        lines = [f"GET {target} HTTP/1.1", "host: a.example", *fields]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def get(self, target: str = "/", *fields: str) -> bytes:
        """Send a GET request; the response."""
        await self.ask(target, *fields)
        return await self.response()

    async def read_until(self, end: bytes) -> bytes:
        """All bytes up to and including *end*."""
        while end not in self.received:
            assert await self.more(), f"closed after {self.received!r}"
        taken, _, self.received = self.received.partition(end)
        return taken + end

    async def response(self, *, no_body: bool = False) -> bytes:
        """A response with a Content-Length or in chunks."""
        head = await self.read_until(b"\r\n\r\n")
        if no_body:
            return head
        if b"\r\ntransfer-encoding: chunked\r\n" in head:
            return head + await self.read_until(b"0\r\n\r\n")
        length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        while len(self.received) < length:
            assert await self.more(), f"closed after {head + self.received!r}"
        body, self.received = self.received[:length], self.received[length:]
        return head + body

    async def rest(self) -> bytes:
        """Everything until the server ends the connection cleanly."""
        while await self.more():
            pass
        taken, self.received = self.received, b""
        return taken

    async def is_reset(self) -> bool:
        """Whether the connection ends with a reset rather than cleanly."""
        try:
            await self.rest()
        except ConnectionResetError:
            return True
        return False

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    async def more(self) -> bool:
        """Read what has come; false at the end."""
        data = await self._loop.sock_recv(self.sock, 65536)
        self.received += data
        return data != b""


class SecureClient(Client):
    """A client over TLS; `connection` is its side of it."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.connection = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ended = False  # by close_notify, before the end of the TCP connection

    async def shake_hands(self) -> None:
        """Begin TLS; raises ssl.SSLError or ConnectionResetError where the server does not."""
        while True:
            try:
                self.connection.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._receive():
                    raise ConnectionResetError("no answer to the handshake") from None
            else:
                await self._flush()
                return

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self.connection.write(rest) :]
        await self._flush()

    async def more(self) -> bool:
        while True:
            try:
                data = self.connection.read(65536)
            except ssl.SSLWantReadError:
                if not await self._receive():
                    return False
                continue
            except ssl.SSLZeroReturnError:  # as with b"", but this client has ended first
                data = b""
            self.received += data
            self.ended = not data
            return data != b""

    async def notify(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.connection.unwrap()
        await self._flush()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self.sock, self._outgoing.read())

    async def _receive(self) -> bool:
        data = await self._loop.sock_recv(self.sock, 65536)
        self._incoming.write(data)
        return data != b""


class LiveServer:
    """The engine, swept as a worker would."""

    def __init__(self, context: ServerContext, family: Any, address: Any) -> None:
        self.context = context
        self.address = address
        self._family = family

    async def connect_securely(
        self, trusted: ssl.SSLContext, host: str = "a.example", **options: Any
    ) -> SecureClient:
        """A client that has shaken hands."""
        client = SecureClient((await self.connect(**options)).sock, trusted, host)
        try:
            await client.shake_hands()
        except BaseException:
            client.sock.close()
            raise
        return client

    async def connect(self, *, receive_buffer: int = 0) -> Client:
        """A client; with *receive_buffer*, of so many bytes, it is soon full."""
        sock = socket.socket(self._family)
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self.address)
        except BaseException:
            sock.close()
            raise
        return Client(sock)

    async def connection(self) -> HTTP1Connection:
        """The server's side of the only client there is."""
        await until(lambda: bool(self.context.connections))
        (connection,) = self.context.connections
        assert isinstance(connection, HTTP1Connection)
        return connection

    async def departures(self) -> None:
        """Return once no client is connected."""
        await until(lambda: self.context.idle)


@asynccontextmanager
async def serve_in_threads(
    handler: Handler,
    app: ASGIApp = no_asgi_application,
    *,
    threads: int = 2,
    patience: float = PATIENCE,
    **options: Any,
) -> AsyncIterator[LiveServer]:
    """As `serve`, with requests for *handler*; see `threads_for`."""
    async with (
        serve(app, **options) as server,
        threads_for(server.context, handler, threads=threads, patience=patience),
    ):
        yield server


@asynccontextmanager
async def threads_for(
    context: ServerContext, handler: Handler, *, threads: int = 2, patience: float = PATIENCE
) -> AsyncIterator[None]:
    """Have the requests of *context* answered by *handler*, in *threads* threads.

    One that is on a request for *patience* seconds is stuck.
    """
    distributor = AcceptDistributor(context.loop, handler, threads, patience, "test")
    distributor.serve(context)

    async def tick() -> None:
        while True:
            distributor.tick(context.loop.time())
            await asyncio.sleep(SWEEP)

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()
        distributor.ending = True
        context.abort()
        await until(lambda: distributor.idle)
        distributor.close()


@asynccontextmanager
async def serve(app: ASGIApp, *, path: str = "", **options: Any) -> AsyncIterator[LiveServer]:
    """Serve *app* on the loopback, or on a unix socket at *path*, with configuration *options*.

    *tls*, if given, is the server's TLS context.
    """
    loop = asyncio.get_running_loop()
    state, tls = options.pop("state", {}), options.pop("tls", None)
    config = ServerConfig(**options)
    context = ServerContext(
        config=config, app=app, state=state, loop=loop, websocket=Upgrader(config)
    )
    listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
    listener.bind(path or ("127.0.0.1", 0))
    scheme = "https" if tls else "http"
    plain = functools.partial(
        HTTP1Connection, context, scheme=scheme, server=(path, None) if path else None
    )
    refuse = functools.partial(refuse_plaintext, context)

    def protocol() -> asyncio.Protocol:
        if tls is None:
            return plain()
        transport = TLSTransport(tls, plain, refuse, context.turns)
        transport.settled.add_done_callback(asyncio.Future.exception)  # as a worker looks at it
        return transport

    server = await loop.create_server(protocol, sock=listener)

    async def sweep() -> None:
        while True:
            context.sweep(loop.time())
            await asyncio.sleep(SWEEP)

    sweeper = asyncio.create_task(sweep())
    try:
        yield LiveServer(context, listener.family, listener.getsockname())
    finally:
        context.abort()
        await until(lambda: context.idle)
        sweeper.cancel()
        server.close()
        await server.wait_closed()


def threads_of(context: ServerContext) -> Any:
    """Where the requests of *context* find a thread; None if they need none."""
    return getattr(context.make_cycle, "threads", None)


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with ``hello``."""
    await respond(send, b"hello")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's content."""
    body = await read_body(receive)
    if body is not None:
        await respond(send, body)


async def read_body(receive: Receive) -> bytes | None:
    """The whole content, or None when the client goes first."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def respond(send: Send, body: bytes, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})
