"""WebSockets on real sockets, in both event loops, by a client that controls every byte."""

import asyncio
import gc
import logging
import socket
import weakref
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import connect

from pounce.application.types import ASGIApp, ClientDisconnected, Message, Receive, Scope, Send
from pounce.websocket.connection import WebSocketConnection
from pounce.websocket.memory import MessageMemory
from pounce.websocket.upgrade import Upgrader
from tests.live import Client, LiveServer, live, serve, until
from tests.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    Peer,
    closing,
    frame,
)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and send every message back."""
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


class Recorder:
    """Accepts, and keeps what it is told."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.messages: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            self.messages.append(await receive())
            if self.messages[-1]["type"] == "websocket.disconnect":
                break

    async def disconnect(self) -> Message:
        """The last message, once it has come."""
        await until(lambda: bool(self.messages))
        await until(lambda: self.messages[-1]["type"] == "websocket.disconnect")
        return self.messages[-1]


def answering(*messages: Message) -> ASGIApp:
    """An application that takes the connect, sends *messages*, and returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


@asynccontextmanager
async def opened(app: ASGIApp, **options: Any) -> AsyncIterator[tuple[LiveServer, Peer]]:
    """A server of *app* and one open WebSocket."""
    async with serve(app, **options) as server, await server.connect() as client:
        peer = Peer(client)
        assert (await peer.open()).startswith(b"HTTP/1.1 101 ")
        yield server, peer


# Handshakes.


@live
async def test_a_websocket_echoes() -> None:
    async with opened(echo) as (server, peer):
        await peer.send(TEXT, "Grüße".encode())
        assert await peer.receive() == (0x81, "Grüße".encode())
        await peer.send(BINARY, b"\x00" * 70_000)
        assert await peer.receive() == (0x82, b"\x00" * 70_000)
        await peer.client.send(closing(1000, "bye"))
        assert await peer.closed() == (1000, "bye")
        assert await peer.client.rest() == b""
        peer.client.sock.close()
        await server.departures()
        assert server.context.requests == 1


@live
async def test_the_scope_describes_the_handshake() -> None:
    recorder = Recorder()
    async with serve(recorder, state={"pool": 1}, root_path="/shop") as server:
        server.context.extensions["pounce"] = {"worker": 0}
        async with await server.connect() as client:
            await Peer(client).open("/a%20b?c=d", "sec-websocket-protocol: v1, v2")
            await until(lambda: bool(recorder.scopes))
        await recorder.disconnect()
    (scope,) = recorder.scopes
    assert {key: scope[key] for key in scope if key not in ("headers", "client", "server")} == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/shop/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=d",
        "root_path": "/shop",
        "subprotocols": ["v1", "v2"],
        "state": {"pool": 1},
        "extensions": {"pounce": {"worker": 0}, "websocket.http.response": {}},
    }
    assert (b"host", b"a.example") in scope["headers"]
    assert scope["client"][0] == "127.0.0.1"


@live
async def test_the_scheme_is_what_a_trusted_proxy_says() -> None:
    recorder = Recorder()
    async with serve(recorder) as server, await server.connect() as client:
        await Peer(client).open("/", "x-forwarded-proto: https")
        await until(lambda: bool(recorder.scopes))
    assert recorder.scopes[0]["scheme"] == "wss"


@live
async def test_subprotocol_and_headers_of_the_application_are_sent() -> None:
    accept = {"type": "websocket.accept", "subprotocol": "v2", "headers": [(b"X-A", b"b")]}
    async with serve(answering(accept)) as server, await server.connect() as client:
        head = await Peer(client).open("/", "sec-websocket-protocol: v1, v2")
        assert b"\r\nsec-websocket-protocol: v2\r\n" in head
        assert b"\r\nx-a: b\r\n" in head


@live
async def test_a_websocket_follows_other_requests_on_its_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"plain"})

    async with serve(app) as server, await server.connect() as client:
        assert (await client.get()).endswith(b"plain")
        peer = Peer(client)
        lines = ["GET / HTTP/1.1", "host: a.example", "", ""]
        await client.send("\r\n".join(lines).encode())  # pipelined
        head = "\r\n".join(["GET / HTTP/1.1", "host: a.example", *HANDSHAKE, "", ""])
        await client.send(head.encode() + frame(TEXT, b"at once"))
        assert (await client.response()).endswith(b"plain")
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await peer.receive() == (0x81, b"at once")


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, ["upgrade: h2c", "connection: upgrade"]),
        (200, ["upgrade: websocket"]),
        (400, ["upgrade: websocket", "connection: upgrade"]),
        (426, [field.replace("13", "12") for field in HANDSHAKE]),
    ],
)
@live
async def test_what_is_no_handshake_is_answered_as_http(status: int, fields: list[str]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async with serve(app) as server, await server.connect() as client:
        response = await client.get("/", *fields)
        assert response.startswith(b"HTTP/1.1 %d " % status)
        if status == 426:
            assert b"\r\nsec-websocket-version: 13\r\n" in response
        if status != 200:
            assert b"\r\nconnection: close\r\n" in response
            assert await client.rest() == b""


@live
async def test_a_close_instead_of_an_accept_is_a_403() -> None:
    app = answering({"type": "websocket.close", "code": 4000})
    async with serve(app) as server, await server.connect() as client:
        assert (await client.get("/", *HANDSHAKE)).startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert await client.rest() == b""


@live
async def test_the_application_can_deny_with_a_response_of_its_own() -> None:
    head = {
        "type": "websocket.http.response.start",
        "status": 401,
        "headers": [(b"www-authenticate", b"Basic"), (b"content-length", b"6")],
    }
    first = {"type": "websocket.http.response.body", "body": b"who", "more_body": True}
    last = {"type": "websocket.http.response.body", "body": b"???"}
    app = answering(head, first, last)
    async with serve(app) as server, await server.connect() as client:
        response = await client.get("/", *HANDSHAKE)
        assert response.startswith(b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Basic\r\n")
        assert response.endswith(b"\r\n\r\nwho???")
        assert await client.rest() == b""


@live
async def test_a_denial_that_is_not_finished_ends_in_a_reset() -> None:
    head = {"type": "websocket.http.response.start", "status": 401}
    part = {"type": "websocket.http.response.body", "body": b"who", "more_body": True}
    async with serve(answering(head, part)) as server, await server.connect() as client:
        await Peer(client).open()
        assert await client.is_reset()


@pytest.mark.parametrize("returns", [False, True])
@live
async def test_an_application_that_does_not_answer_is_a_500(
    returns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not returns:
            raise ValueError("broken")

    async with serve(app) as server, await server.connect() as client:
        response = await client.get("/", *HANDSHAKE)
        assert response.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    (record,) = caplog.records
    assert record.name == "pounce.error"
    assert (record.exc_info is None) == returns


@live
async def test_a_handshake_is_logged_like_a_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    async with opened(echo, access_log="on"):
        pass
    (record,) = caplog.records
    assert ' "GET / HTTP/1.1" 101 0 ' in record.getMessage()


# Messages.


@live
async def test_fragments_are_joined_with_a_ping_between_them() -> None:
    async with opened(echo) as (_, peer):
        await peer.send(TEXT, b"\xc3", fin=False)
        await peer.send(PING, b"?")
        assert await peer.receive() == (0x8A, b"?")
        await peer.send(CONTINUATION, b"\xbc")
        assert await peer.receive() == (0x81, "ü".encode())


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (1002, frame(TEXT, b"unmasked", masked=False)),
        (1002, frame(0x40 | TEXT, b"reserved bit")),
        (1007, frame(TEXT, b"\xff")),
        (1009, frame(TEXT, b"x" * 101)),
    ],
)
@live
async def test_a_violation_closes_and_the_application_is_told(code: int, data: bytes) -> None:
    recorder = Recorder()
    async with opened(recorder, websocket_max_size=100) as (_, peer):
        await peer.client.send(data)
        assert (await peer.closed())[0] == code
        assert (await recorder.disconnect())["code"] == code
        assert await peer.client.rest() == b""


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [(closing(1000, "bye"), 1000, "bye"), (closing(4000), 4000, ""), (frame(CLOSE), 1005, "")],
)
@live
async def test_the_application_is_told_why_the_client_closes(
    data: bytes, code: int, reason: str
) -> None:
    recorder = Recorder()
    async with opened(recorder) as (_, peer):
        await peer.client.send(frame(TEXT, b"last") + data)
        told = await recorder.disconnect()
    assert told == {"type": "websocket.disconnect", "code": code, "reason": reason}
    assert recorder.messages[0] == {"type": "websocket.receive", "text": "last"}


@pytest.mark.parametrize("end", ["eof", "reset", "half a frame"])
@live
async def test_an_end_without_a_close_frame_is_1006(end: str) -> None:
    recorder = Recorder()
    async with opened(recorder) as (server, peer):
        if end == "half a frame":
            await peer.client.send(frame(TEXT, b"abc")[:-1])
        if end == "reset":
            linger = b"\x01\0\0\0\0\0\0\0"
            peer.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.client.sock.close()
        assert (await recorder.disconnect())["code"] == 1006
        await server.departures()


@live
async def test_the_application_closes_and_is_told_so() -> None:
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        told.append(await receive())
        with pytest.raises(RuntimeError):
            await send({"type": "websocket.send", "text": "late"})

    async with opened(app) as (_, peer):
        assert await peer.closed() == (4001, "enough")
        await peer.client.send(closing(4001))
        assert await peer.client.rest() == b""
        await until(lambda: bool(told))
    assert told == [{"type": "websocket.disconnect", "code": 4001, "reason": "enough"}]


@pytest.mark.parametrize(("fails", "code"), [(True, 1011), (False, 1000)])
@live
async def test_an_application_that_ends_closes(
    fails: bool, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if fails:
            raise ValueError("broken")

    async with opened(app) as (_, peer):
        assert (await peer.closed())[0] == code
    assert len(caplog.records) == fails


@live
async def test_sending_to_a_closed_websocket_raises_oserror() -> None:
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            raised.append(error)
            await send({"type": "websocket.close"})  # it is what has happened
            raise

    async with opened(app) as (server, peer):
        await peer.client.send(closing(1001))
        assert (await peer.closed())[0] == 1001
        peer.client.sock.close()
        await server.departures()
    assert isinstance(raised[0], ClientDisconnected)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": 5},
        {"type": "websocket.send", "bytes": [1, 2]},
        {"type": "websocket.send", "text": "\ud800"},
        {"type": "websocket.accept"},
        {"type": "websocket.close", "code": 1006},
        {"type": "http.response.start", "status": 200},
    ],
)
@live
async def test_a_wrong_message_is_the_applications_error(
    message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(answering({"type": "websocket.accept"}, message)) as (_, peer):
        assert (await peer.closed())[0] == 1011
    assert "the application failed" in caplog.text


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [3, 1000])
@live
async def test_whatever_holds_bytes_is_sent(kind: Callable[[bytes], object], size: int) -> None:
    message = {"type": "websocket.send", "bytes": kind(b"x" * size)}
    async with opened(answering({"type": "websocket.accept"}, message)) as (_, peer):
        assert await peer.receive() == (0x80 | BINARY, b"x" * size)


@live
async def test_a_length_of_zero_in_a_handshake_is_harmless() -> None:
    async with serve(echo) as server, await server.connect() as client:
        peer = Peer(client)
        assert (await peer.open("/", "content-length: 0")).startswith(b"HTTP/1.1 101 ")
        await peer.send(TEXT, b"a")
        assert await peer.receive() == (0x80 | TEXT, b"a")


# Time.


@live
async def test_a_silent_client_is_pinged_and_given_up() -> None:
    recorder = Recorder()
    options = {"websocket_ping_interval": 0.05, "websocket_ping_timeout": 0.05}
    async with opened(recorder, **options) as (_, peer):
        for _ in range(3):
            assert await peer.receive() == (0x89, b"")
            await peer.send(PONG)
        assert await peer.receive() == (0x89, b"")
        assert (await peer.closed())[0] == 1011
        assert (await recorder.disconnect())["code"] == 1011
        assert await peer.client.rest() == b""


@live
async def test_a_client_that_never_answers_a_close_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pounce.websocket.connection.CLOSE_TIMEOUT", 0.05)
    async with opened(answering({"type": "websocket.accept"})) as (_, peer):
        assert (await peer.closed())[0] == 1000
        assert await peer.client.rest() == b""
        assert peer.client.sock.fileno() >= 0


# Flow.


@live
async def test_a_client_that_does_not_read_stops_the_application() -> None:
    # The sender's kernel takes up to 4 MB (tcp_wmem, tcp(7)); the client reads in small pieces.
    messages, sent = 150, 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(messages):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            sent += 1

    async with serve(app) as server, await server.connect(receive_buffer=4096) as client:
        peer = Peer(client)
        await peer.open()
        await settled(lambda: sent)
        assert 0 < sent < 100
        for _ in range(messages):
            await peer.receive()
        assert (await peer.closed())[0] == 1000


@live
async def test_an_application_that_does_not_read_stops_the_client() -> None:
    go_on = asyncio.Event()
    received = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal received
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        while (await receive())["type"] == "websocket.receive":
            received += 1

    async with opened(app, websocket_ping_interval=0.01, websocket_ping_timeout=0.01) as (
        server,
        peer,
    ):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while sent < 1000:
                await peer.send(BINARY, bytes(20_000))
                sent += 1

        flooding = asyncio.create_task(flood())
        await settled(lambda: sent)
        assert sent < 900
        (connection,) = server.context.connections
        assert connection._held < 200_000  # type: ignore[attr-defined]
        go_on.set()
        await flooding
        await until(lambda: received == 1000)


@live
async def test_pings_of_a_client_that_does_not_read_take_no_memory() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(50):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
        await receive()

    async with serve(app) as server, await server.connect(receive_buffer=4096) as client:
        peer = Peer(client)
        await peer.open()
        (connection,) = server.context.connections
        await until(lambda: connection.write_paused)  # type: ignore[attr-defined]
        for _ in range(300):
            await client.send(frame(PING, b"x" * 125) * 100)
        size = connection._transport.get_write_buffer_size()  # type: ignore[attr-defined]
        assert size < 400_000
        while (await peer.receive())[0] != 0x8A:
            pass


@live
async def test_what_a_small_frame_inflates_to_is_bounded() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()

    async with serve(app) as server, await server.connect() as client:
        head = await Peer(client).open("/", "sec-websocket-extensions: permessage-deflate")
        assert b"permessage-deflate" in head
        compressor = zlib.compressobj(wbits=-15)
        bombs = b""
        for _ in range(100):
            data = compressor.compress(bytes(1_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
            bombs += frame(0x40 | BINARY, data[:-4])
        await client.send(bombs)
        (connection,) = server.context.connections
        await until(lambda: connection._held > 0)  # type: ignore[attr-defined]
        assert connection._held < 20_000_000  # type: ignore[attr-defined]
        go_on.set()


async def settled(value: Callable[[], int]) -> None:
    """Return once *value* has grown and stands still."""
    last, still = 0, 0
    while still < 20:
        await asyncio.sleep(0.01)
        still = still + 1 if value() == last and last else 0
        last = value()


# Another client.


def held(server: LiveServer) -> int:
    """What messages take of the worker's share, by its own account."""
    upgrader = server.context.websocket
    assert isinstance(upgrader, Upgrader)
    return upgrader._memory.total


SHARE: dict[str, Any] = {"websocket_max_size": 600_000, "websocket_max_memory": 1_000_000}


@pytest.mark.parametrize("compressed", [False, True])
@live
async def test_unfinished_messages_are_bounded_together(compressed: bool) -> None:
    fields = ("sec-websocket-extensions: permessage-deflate",) if compressed else ()

    async def begin(client: Client, size: int) -> Peer:
        """A WebSocket that has sent so much of a message."""
        peer = Peer(client)
        await peer.open("/", *fields)
        data, bit = bytes(size), 0
        if compressed:
            compressor, bit = zlib.compressobj(wbits=-15), 0x40
            data = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
            assert len(data) < 2000
        before = held(server)
        await peer.send(bit | BINARY, data, fin=False)
        await until(lambda: held(server) != before)
        return peer

    async with serve(echo, **SHARE) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await server.connect()) for _ in range(3)]
        small, large, last = [
            await begin(client, size)
            for client, size in zip(clients, (300_000, 500_000, 450_000), strict=True)
        ]
        assert await large.closed() == (1013, "too much is under way")
        assert await large.client.rest() == b""
        for peer in (small, last):
            await peer.send(CONTINUATION, b"" if compressed else b"end")
            assert (await peer.receive())[0] & 0x0F == BINARY
        await until(lambda: held(server) == 0)


@live
async def test_messages_that_wait_for_their_application_are_bounded_together() -> None:
    told: list[Message] = []
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        told.append(await receive())

    async with serve(app, **SHARE) as server, AsyncExitStack() as stack:
        peers = []
        for _ in range(2):
            peers.append(Peer(await stack.enter_async_context(await server.connect())))
            await peers[-1].open()
            await peers[-1].send(TEXT, b"x" * 500_000)
        await until(lambda: held(server) > 800_000)
        # One wide character makes all of a text's four bytes wide.
        last = Peer(await stack.enter_async_context(await server.connect()))
        await last.open()
        await last.send(TEXT, b"x" * 150_000 + "\U0001f600".encode())
        assert (await last.closed())[0] == 1013
        assert 800_000 < held(server) < 1_000_000
        # What has come is the application's, though the client has left.
        for peer in peers:
            peer.client.sock.close()
        go_on.set()
        await until(lambda: len(told) == 3)
        await until(lambda: held(server) == 0)
    received = [each.get("text", each.get("code")) for each in told]
    assert sorted(map(str, received)) == ["1013", "x" * 500_000, "x" * 500_000]


@pytest.mark.parametrize("compressed", [False, True])
@live
async def test_who_is_alone_may_send_one_large_message_behind_the_other(compressed: bool) -> None:
    fields = ("sec-websocket-extensions: permessage-deflate",) if compressed else ()
    size, messages = 1_000_000, 3
    connections: list[WebSocketConnection] = []
    lengths: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(messages):
            await until(lambda: bool(connections) and connections[0]._held > size)
            await asyncio.sleep(0.05)  # as much is read meanwhile as may be
            lengths.append(len((await receive())["bytes"]))

    limits: dict[str, Any] = {"websocket_max_size": size, "websocket_max_memory": 1}
    async with serve(app, **limits) as server, await server.connect() as client:
        peer = Peer(client)
        await peer.open("/", *fields)
        (connection,) = server.context.connections
        assert isinstance(connection, WebSocketConnection)
        connections.append(connection)
        data, bit = bytes(size), 0
        if compressed:
            compressor, bit = zlib.compressobj(wbits=-15), 0x40
            data = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        await client.send(frame(bit | BINARY, data) * messages)
        await until(lambda: lengths == [size] * messages)


@live
async def test_what_was_received_but_not_read_counts_as_well() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    async with serve(app, **SHARE) as server, await server.connect() as client:
        peer = Peer(client)
        await peer.open()
        (connection,) = server.context.connections
        assert isinstance(connection, WebSocketConnection)
        sending = asyncio.ensure_future(client.send(frame(BINARY, bytes(1000)) * 10_000))
        await until(lambda: connection._reading_paused and connection._held > 65_536)
        waits = len(connection._unread)
        assert waits > 0
        assert held(server) == connection._held + waits - 65_536
        connection.give_up()
        assert held(server) == 0
        sending.cancel()


@pytest.mark.parametrize("denies", [False, True])
@live
async def test_what_comes_before_the_handshake_is_answered_is_bounded(denies: bool) -> None:
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if denies:
            await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
            body = {"type": "websocket.http.response.body", "body": b"no", "more_body": True}
            await send(body)
        told.append(await receive())

    async with serve(app) as server, await server.connect() as client:
        assert isinstance(server.context.websocket, Upgrader)
        server.context.websocket._memory = MessageMemory(1)
        await client.ask("/", *HANDSHAKE)
        if denies:
            await client.read_until(b"\r\n\r\n")
        with suppress(OSError):  # it may be answered before all is sent
            await client.send(bytes(200_000))
        assert denies or (await client.read_until(b"\r\n")).startswith(b"HTTP/1.1 503")
        await until(lambda: bool(told))
        assert told[0]["type"] == "websocket.disconnect"
        assert held(server) == 0


@pytest.mark.parametrize("end", ["given up", "left", "closed", "stopped"])
@live
async def test_memory_is_free_once_a_connection_has_ended(end: str) -> None:
    async with serve(echo, **SHARE) as server, await server.connect() as client:
        gc.disable()  # it would come too late
        try:
            peer = Peer(client)
            await peer.open()
            (connection,) = server.context.connections
            assert isinstance(connection, WebSocketConnection)
            assert connection._engine is not None
            library = weakref.ref(connection._engine._protocol)
            await client.send(frame(BINARY, bytes(500_000))[:-1])
            await until(lambda: held(server) > 400_000)
            if end == "given up":
                connection.give_up()
            elif end == "left":
                client.sock.close()
            elif end == "closed":
                await client.send(b"x" + closing(1000))
            else:
                connection.abort()
            await until(lambda: library() is None)
        finally:
            gc.enable()


@live
async def test_an_independent_client_agrees() -> None:
    async with serve(echo) as server:
        host, port = server.address
        async with connect(f"ws://{host}:{port}/", compression="deflate", proxy=None) as ws:
            assert ws.response is not None
            assert "permessage-deflate" in ws.response.headers["sec-websocket-extensions"]
            for size in (0, 1, 125, 126, 65_535, 65_536, 1_000_000):
                await ws.send("x" * size)
                assert await ws.recv() == "x" * size
            pong = await ws.ping()
            await pong
        assert (ws.close_code, ws.close_reason) == (1000, "")
        await server.departures()


# The worker's commands.


@live
async def test_a_disconnect_closes_with_1012() -> None:
    recorder = Recorder()
    async with opened(recorder) as (server, peer):
        server.context.disconnect()
        assert await peer.closed() == (1012, "service restart")
        assert (await recorder.disconnect())["code"] == 1012
        await peer.client.send(frame(TEXT, b"crossing") + closing(1012))
        assert await peer.client.rest() == b""
    assert len(recorder.messages) == 1


@live
async def test_a_drain_without_successor_closes_with_1012_soon() -> None:
    async with opened(echo, shutdown_timeout=0.2) as (server, peer):
        departed = asyncio.Event()
        server.context.drain(departed.set)
        assert (await peer.closed())[0] == 1012
        await peer.client.send(closing(1012))
        peer.client.half_close()
        await departed.wait()


@live
async def test_a_drain_with_successor_goes_on_until_the_last_part_of_the_window() -> None:
    loop = asyncio.get_running_loop()
    async with opened(echo, reload_timeout=1.0) as (server, peer):
        (connection,) = server.context.connections
        server.context.hand_over = lambda connection: None
        began = loop.time()
        server.context.drain(lambda: None)
        end = connection._retirement.when() - began  # type: ignore[attr-defined]
        assert 0.69 < end < 0.99
        await peer.send(TEXT, b"still here")
        assert await peer.receive() == (0x81, b"still here")
        assert (await peer.closed())[0] == 1012
        assert loop.time() - began > 0.69


@live
async def test_an_unanswered_handshake_is_denied_at_a_disconnect() -> None:
    recorder: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        recorder.append(await receive())
        recorder.append(await receive())

    async with serve(app) as server, await server.connect() as client:
        asking = asyncio.create_task(client.get("/", *HANDSHAKE))
        await until(lambda: len(recorder) == 1)
        server.context.disconnect()
        assert (await asking).startswith(b"HTTP/1.1 503 ")
        assert await client.rest() == b""
        await until(lambda: len(recorder) == 2)
    assert recorder[1]["code"] == 1012


@live
async def test_a_handshake_during_a_drain_is_refused() -> None:
    async with serve(echo) as server, await server.connect() as client:
        await until(lambda: bool(server.context.connections))
        server.context.drain(lambda: None)
        response = await client.get("/", *HANDSHAKE)
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nconnection: close\r\n" in response
        assert b"\r\nretry-after: 1\r\n" in response
        assert await client.rest() == b""


@live
async def test_an_abort_cancels_the_application() -> None:
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with opened(app) as (server, peer):
        server.context.abort()
        await cancelled.wait()
        assert await peer.client.is_reset()


@live
async def test_what_is_in_flight_is_told() -> None:
    async with opened(echo) as (server, _):
        line = server.context.in_flight()
        assert line.startswith("WebSocket / from 127.0.0.1:")
