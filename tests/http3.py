"""HTTP/3 for tests: a client built on aioquic, certificates, and the engine on a real socket."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection, HeadersState
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)
from aioquic.tls import Group

from pounce.application.types import ASGIApp
from pounce.config.service import ServerConfig
from pounce.http.connections import ServerContext
from pounce.http3.certificates import QuicCertificates, quic_configuration
from pounce.http3.connection import HTTP3Connection
from pounce.http3.frames import FrameReader, Type, decode_varint
from pounce.http3.qpack import Fields
from pounce.http3.quic import ServerConnection
from pounce.http3.tokens import SECRET_SIZE
from pounce.ipc.mailboxes import Mailboxes
from pounce.net.tls import Certificates, TLSFiles
from pounce.workers.base import Mail
from pounce.workers.switchboard import QuicListener, Switchboard
from tests.certificates import Authority
from tests.live import SWEEP, live, until

# What requests mean is alike on every loop; where datagrams go is tested on both.
on_uvloop = partial(live, loops=["uvloop"])


@dataclass
class Response:
    """What came on one stream."""

    status: int = 0
    headers: Fields = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)
    trailers: Fields = field(default_factory=list)
    informational: list[int] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return bytes(self.content)

    def header(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)


class StreamError(Exception):
    """The server has reset the stream, with this code."""


class ConnectionGone(Exception):
    """The connection has ended, with this code and reason."""


class _H3(H3Connection):
    """It knows of HEAD and of 100."""

    def _check_content_length(self, stream: Any) -> None:
        pass

    def _handle_request_or_push_frame(self, *arguments: Any, **options: Any) -> list[H3Event]:
        events: list[H3Event] = super()._handle_request_or_push_frame(*arguments, **options)
        for event in events:
            if isinstance(event, HeadersReceived) and (b":status", b"100") in event.headers:
                self._stream[event.stream_id].headers_recv_state = HeadersState.INITIAL
        return events


# It raises limits only where it is told to, which a slow client has use for, too.
_reluctant: Any = ServerConnection


class _Quic(QuicConnection):
    """It can be slow to read, and change its connection id as soon as it has another.

    *loses* says of each datagram, in either direction, whether it is lost on the way. *groups* are
    those that it offers to agree on keys in.
    """

    client: "Client"
    groups: Sequence[Group] = ()
    restless = False
    loses: Callable[[], bool] | None = None

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if self.groups:
            self.tls._supported_groups = list(self.groups)

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        if self.loses is not None and self.loses():
            return
        super().receive_datagram(data, addr, now)
        if self.restless and self._peer_cid_available:
            self.change_connection_id()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        datagrams = super().datagrams_to_send(now)
        if self.loses is None:
            return datagrams
        return [each for each in datagrams if not self.loses()]

    def _write_connection_limits(self, *arguments: Any, **options: Any) -> None:
        if self.client.holds_back:
            _reluctant._write_connection_limits(self, *arguments, **options)
        else:
            super()._write_connection_limits(*arguments, **options)

    def _write_stream_limits(self, *arguments: Any, **options: Any) -> None:
        if self.client.holds_back:
            _reluctant._write_stream_limits(self, *arguments, **options)
        else:
            super()._write_stream_limits(*arguments, **options)


class Exchange:
    """One request under way."""

    def __init__(self, client: "Client", stream_id: int) -> None:
        self.client = client
        self.stream_id = stream_id
        self.response = Response()
        self.error: Exception | None = None
        self.ended = False
        self.changed = asyncio.Event()

    def send(self, data: bytes, ended: bool = False) -> None:
        """Send content."""
        self.client.http.send_data(self.stream_id, data, ended)
        self.client.transmit()

    def send_raw(self, data: bytes, ended: bool = False) -> None:
        """Send bytes as they are."""
        self.client._quic.send_stream_data(self.stream_id, data, ended)
        self.client.transmit()

    async def head(self) -> Response:
        """The response, as soon as its head has come."""
        await self._until(lambda: self.response.status != 0)
        return self.response

    async def body(self, size: int) -> bytes:
        """The response's content, as soon as it has so many bytes, or all."""
        await self._until(lambda: len(self.response.content) >= size or self.ended)
        return self.response.body

    def grant(self, size: int) -> None:
        """Let the server send *size* more bytes than it was told; see `Client.holds_back`."""
        stream = self.client.quic._streams.get(self.stream_id)
        if stream is not None:
            stream.max_stream_data_local += size
            self.client.transmit()

    async def result(self) -> Response:
        """The whole response; raises StreamError or ConnectionGone."""
        await self._until(lambda: self.ended)
        return self.response

    async def _until(self, condition: Any) -> None:
        while not condition():
            if self.error is not None:
                raise self.error
            self.changed.clear()
            await self.changed.wait()


def _pseudo(method: str, path: str) -> Fields:
    return [
        (b":method", method.encode()),
        (b":scheme", b"https"),
        (b":authority", b"a.example"),
        (b":path", path.encode()),
    ]


class Client(QuicConnectionProtocol):
    """One connection."""

    _quic: _Quic

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.exchanges: dict[int, Exchange] = {}
        self.ended: ConnectionTerminated | None = None
        self.established = False
        self.changed = asyncio.Event()
        self.holds_back = False
        """Whether the server is told of no more room than there was at first, or was granted."""
        self.http = _H3(self._quic)
        # GOAWAY, which aioquic passes over, comes on the server's first stream.
        self._control = FrameReader(100)
        self.goaways: list[int] = []
        self._quic.client = self

    @property
    def local(self) -> tuple[str, int]:
        """The client's address."""
        assert self._transport is not None
        address: tuple[str, int] = self._transport.get_extra_info("sockname")
        return "127.0.0.1", address[1]

    @property
    def quic(self) -> QuicConnection:
        return self._quic

    def start(
        self,
        path: str = "/",
        *fields: tuple[bytes, bytes],
        method: str = "GET",
        ended: bool = True,
        pseudo: Fields | None = None,
    ) -> Exchange:
        """Send a request's head."""
        head = pseudo or _pseudo(method, path)
        exchange = self.stream()
        self.http.send_headers(exchange.stream_id, [*head, *fields], end_stream=ended)
        self.transmit()
        return exchange

    def start_all(self, paths: Iterable[str]) -> list[Exchange]:
        """Send a GET request for each of *paths*, as many in a packet as it has room for."""
        exchanges = []
        for path in paths:
            exchanges.append(self.stream())
            self.http.send_headers(exchanges[-1].stream_id, _pseudo("GET", path), end_stream=True)
        self.transmit()
        return exchanges

    def stream(self) -> Exchange:
        """An empty request stream."""
        exchange = Exchange(self, self._quic.get_next_available_stream_id())
        self.exchanges[exchange.stream_id] = exchange
        return exchange

    async def get(self, path: str = "/", *fields: tuple[bytes, bytes]) -> Response:
        """Send a GET request; the whole response."""
        return await self.start(path, *fields).result()

    async def post(self, path: str, body: bytes, *fields: tuple[bytes, bytes]) -> Response:
        """Send *body*; the whole response."""
        exchange = self.start(path, *fields, method="POST", ended=False)
        exchange.send(body, ended=True)
        return await exchange.result()

    async def rebind(self) -> None:
        """Go on from another port, as behind a NAT that has forgotten the connection."""
        old = self._transport
        await self._loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        assert old is not None
        old.close()

    async def move(self) -> None:
        """Go on from another port, and be heard from there at once."""
        await self.rebind()
        self.quic.send_ping(1)
        self.transmit()

    async def until(self, condition: Any) -> None:
        """Wait until *condition* holds, which a datagram may change."""
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def gone(self) -> ConnectionTerminated:
        """How the connection ended."""
        await self.until(lambda: self.ended is not None)
        assert self.ended is not None
        return self.ended

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        # RFC 9000 section 10.3.1, which aioquic does not look for.
        known = [self.quic._peer_cid, *self.quic._peer_cid_available]
        assert isinstance(data, bytes)
        if data[-16:] in [each.stateless_reset_token for each in known]:
            self.quic_event_received(ConnectionTerminated(0, None, "stateless reset"))
        super().datagram_received(data, addr)
        self.changed.set()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self.established = True
        elif isinstance(event, ConnectionTerminated):
            self.ended = event
            for exchange in self.exchanges.values():
                exchange.error = exchange.error or ConnectionGone(
                    event.error_code, event.reason_phrase
                )
                exchange.changed.set()
        elif isinstance(event, StreamReset) and event.stream_id in self.exchanges:
            exchange = self.exchanges[event.stream_id]
            exchange.error = StreamError(event.error_code)
            exchange.changed.set()
        elif isinstance(event, StreamDataReceived) and event.stream_id == 3:
            self._read_control(event.data)
        self.changed.set()
        for http_event in self.http.handle_event(event):
            if isinstance(http_event, HeadersReceived | DataReceived):
                self._take(http_event)

    def _read_control(self, data: bytes) -> None:
        self._control.feed(data.removeprefix(b"\0"))  # the stream's type; no frame begins so
        while (frame := self._control.next()) is not None:
            if frame.type == Type.GOAWAY:
                [value, _] = decode_varint(frame.payload, 0) or (0, 0)
                self.goaways.append(value)

    def _take(self, event: HeadersReceived | DataReceived) -> None:
        exchange = self.exchanges[event.stream_id]
        response = exchange.response
        if isinstance(event, DataReceived):
            response.content += event.data
        else:
            status = int(dict(event.headers).get(b":status", b"0"))
            if 100 <= status < 200:
                response.informational.append(status)
            elif response.status:
                response.trailers = event.headers
            else:
                response.status = status
                response.headers = [each for each in event.headers if each[0] != b":status"]
        exchange.ended = event.stream_ended
        exchange.changed.set()


def client_configuration(**options: Any) -> QuicConfiguration:
    """What a client that believes every certificate begins with."""
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=["h3"],
        verify_mode=ssl.CERT_NONE,
        **{"server_name": "a.example", "max_datagram_size": 1350, **options},
    )


@asynccontextmanager
async def connected(
    address: tuple[str, int],
    *,
    restless: bool = False,
    loses: Callable[[], bool] | None = None,
    groups: Sequence[Group] = (),
    **options: Any,
) -> AsyncIterator[Client]:
    """A client's connection to *address*, on a socket of its own."""
    loop = asyncio.get_running_loop()
    quic = _Quic(configuration=client_configuration(**options))
    quic.restless, quic.loses, quic.groups = restless, loses, groups
    family = "::" if ":" in address[0] else "0.0.0.0"
    _, client = await loop.create_datagram_endpoint(lambda: Client(quic), local_addr=(family, 0))
    try:
        client.connect(address)
        await client.until(lambda: client.established or client.ended)
        yield client
    finally:
        client.close()
        with suppress(Exception):
            client.transmit()
        assert client._transport is not None
        client._transport.close()  # not the first one, if it has changed its port


class CountingMailboxes(Mailboxes):
    """They know how many datagrams were passed on."""

    passed = 0

    def put(self, index: int, message: bytes) -> None:
        self.passed += 1
        super().put(index, message)


class Server:
    """The engine on real sockets, without a supervisor: several workers in this loop.

    All are bound to one address (SO_REUSEPORT); only those that are open read theirs.
    """

    def __init__(self, app: ASGIApp, directory: Path, **options: Any) -> None:
        self.app = app
        self.config = ServerConfig(**options)
        self.secret = os.urandom(SECRET_SIZE)
        self.mailboxes = CountingMailboxes(8)
        certificate, key = Authority().issue("a.example").write(directory, "a.example")
        files = TLSFiles([(str(certificate), str(key))])
        self.certificates = QuicCertificates(Certificates(files))
        self.address = ("127.0.0.1", 0)
        self.workers: list[Worker] = []

    def add(self, app: ASGIApp | None = None) -> "Worker":
        """Another worker, with a socket of its own."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(self.address)
        self.address = sock.getsockname()
        return self._start(sock, app)

    def reload(self, app: ASGIApp | None = None) -> tuple["Worker", "Worker"]:
        """Have another worker take over from the only one; both."""
        [old] = self.workers
        new = self._start(old.sock.dup(), app)
        old.drain()
        return old, new

    def _start(self, sock: socket.socket, app: ASGIApp | None) -> "Worker":
        worker = Worker(self, app or self.app, sock)
        self.workers.append(worker)
        worker.switchboard.open()
        return worker


class Worker:
    """One of them."""

    def __init__(self, server: Server, app: ASGIApp, sock: socket.socket) -> None:
        self.sock = sock
        self.number = server.mailboxes.acquire()
        self.context = ServerContext(
            config=server.config, app=app, state={}, loop=asyncio.get_running_loop()
        )
        configuration = quic_configuration(server.config, server.certificates)
        self.switchboard = Switchboard(
            self.context,
            [QuicListener(sock, configuration, server.certificates.choose)],
            Mail(server.mailboxes, self.number, server.secret),
        )
        self._server = server

    @property
    def connections(self) -> list[HTTP3Connection]:
        return [each for each in self.context.connections if isinstance(each, HTTP3Connection)]

    def drain(self) -> None:
        """As in a reload."""
        self.switchboard.close()
        self.context.drain(lambda: None)

    def stop(self) -> None:
        """As at a stop: no other worker reads the socket."""
        self.switchboard.stay(stopping=False)
        self.context.drain(lambda: None)

    async def close(self) -> None:
        """As if the process had ended."""
        self.switchboard.end()
        self.context.abort()
        await until(lambda: self.context.idle)
        self._server.mailboxes.release(self.number)
        self.sock.close()
        self._server.workers.remove(self)


@asynccontextmanager
async def serve(app: ASGIApp, directory: Path, **options: Any) -> AsyncIterator[Server]:
    """Serve *app* with configuration *options* by one worker."""
    server = Server(app, directory, **options)
    server.add()
    loop = asyncio.get_running_loop()

    async def sweep() -> None:
        while True:
            for worker in server.workers:
                worker.switchboard.sweep()
                worker.context.sweep(loop.time())
            await asyncio.sleep(SWEEP)

    sweeper = asyncio.create_task(sweep())
    try:
        yield server
    finally:
        sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper
        for worker in list(server.workers):
            await worker.close()
        server.mailboxes.close()
