"""However much one client sends, others are served between two turns of its connection.

Nothing here is timed: it is counted how often another client is answered while the server has yet
to handle what it has received of the flood.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pounce.application.sync_app import RawRequest, RawResponse
from pounce.application.types import Receive, Scope, Send
from pounce.http1.connection import HTTP1Connection
from pounce.net.tls import TLS, Certificates, ListenerTLS, TLSFiles
from pounce.net.tls_transport import TLSTransport
from pounce.threads.raw import SyncAppHandler
from tests import openssl
from tests.certificates import Authority
from tests.live import (
    Client,
    LiveServer,
    live,
    read_body,
    respond,
    serve,
    serve_in_threads,
    until,
)
from tests.websocket import (
    BINARY,
    CONTINUATION,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    Peer,
    closing,
    frame,
)

OFTEN = 10
"""How often another client is answered at least; without turns it is once or not at all."""


@pytest.fixture(autouse=True)
def _one_turn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes no time on a fast machine comes one after the other all the same."""
    monkeypatch.setattr("pounce.net.turns.SHARE", 0.0)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """A WebSocket that takes whatever comes, or an answer to all of a request."""
    if scope["type"] == "http":
        body = await read_body(receive)
        assert body is not None
        await respond(send, b"%d" % len(body))
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


class Count:
    """A SyncApp that answers as `app` does."""

    def handle_sync(self, request: RawRequest) -> RawResponse:
        return RawResponse(200, body=b"%d" % len(request.body))


async def answers_until(client: Client, over: Callable[[], bool]) -> int:
    """How many requests of *client* are answered before *over*."""
    answers = 0
    while not over():
        await client.get()
        answers += 1
    return answers


FLOODS = {
    "messages": frame(TEXT, b"a"),
    "empty messages": frame(BINARY),
    "pings": frame(PING),
    "pongs": frame(PONG, b"a"),
    "empty fragments": frame(CONTINUATION, fin=False),
    "tiny fragments": frame(CONTINUATION, b"a", fin=False),
}


@pytest.mark.parametrize("kind", FLOODS)
@live
async def test_others_are_answered_between_frames(kind: str) -> None:
    async with serve(app) as server, await server.connect() as flooder:
        peer = Peer(flooder)
        await peer.open()
        (connection,) = server.context.connections
        begun = frame(BINARY, fin=False) if "fragments" in kind else b""
        async with await server.connect() as other:
            await other.get()
            await flooder.send(begun + FLOODS[kind] * 4000 + closing(1000))
            over = lambda: connection.closed is not None  # type: ignore[attr-defined]  # noqa: E731
            assert await answers_until(other, over) >= OFTEN


@live
async def test_frames_that_came_before_the_accept_and_after_the_close() -> None:
    asked, accept = asyncio.Event(), asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, b"")
            return
        await receive()
        asked.set()
        await accept.wait()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    async with serve(late) as server, await server.connect() as flooder:
        await flooder.ask("/", *HANDSHAKE)
        await asked.wait()
        (connection,) = server.context.connections
        await flooder.send(frame(PING) * 4000 + closing(1000))
        async with await server.connect() as other:
            await other.get()
            accept.set()
            assert await answers_until(other, lambda: connection.gone) >= OFTEN  # type: ignore[attr-defined]


# TLS.


@pytest.fixture
def tls(tmp_path: Path) -> TLS:
    Authority().issue("a.example").write(tmp_path, "a")
    files = TLSFiles([(str(tmp_path / "a.pem"), str(tmp_path / "a.key"))])
    return ListenerTLS(Certificates(files))


@pytest.fixture
def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@live
async def test_others_are_answered_between_records(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with (
        serve(app, tls=tls) as server,
        await server.connect_securely(trusting) as flooder,
        await server.connect_securely(trusting) as other,
    ):
        await other.get()
        await flooder.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n")
        for _ in range(2000):
            flooder.connection.write(b"x")
        sending = asyncio.create_task(flooder.send(b""))
        answering = asyncio.create_task(flooder.response())
        assert await answers_until(other, answering.done) >= OFTEN
        await sending
        assert (await answering).endswith(b"\r\n\r\n2000")
        assert (await flooder.get()).endswith(b"\r\n\r\n0")


@live
async def test_records_before_the_end_are_not_lost(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with (
        serve(app, tls=tls) as server,
        await server.connect_securely(trusting) as client,
    ):
        await client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n")
        for _ in range(2000):
            client.connection.write(b"x")
        await client.notify()
        client.half_close()
        assert (await client.response()).endswith(b"\r\n\r\n2000")


@pytest.mark.skipif(not openssl.AVAILABLE, reason="there is no libssl")
@live
async def test_answers_to_key_updates_that_nobody_reads_take_no_memory(
    tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    async with (
        serve(app, tls=tls, write_timeout=600.0) as server,
        await server.connect(receive_buffer=4096) as flooder,
        await server.connect_securely(trusting) as other,
    ):
        flooder.sock.setblocking(True)
        flooder.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        # Not settimeout(), which makes the socket a non-blocking one.
        flooder.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        flooding = asyncio.create_task(asyncio.to_thread(update_keys, flooder.sock))
        await until(lambda: len(server.context.connections) == 2)
        for each in transports(server):
            sock = each.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await until(lambda: any(each._stuffed for each in transports(server)))
        (transport,) = (each for each in transports(server) if each._stuffed)
        high = transport.get_write_buffer_limits()[1]
        await other.get()
        assert high < transport.get_write_buffer_size() < high + 65_536
        await flooding  # the kernel's buffers are full: nobody reads on either side
        assert transport.get_write_buffer_size() < high + 65_536
        # Where the client reads after all, so does the server.
        flooder.sock.setblocking(False)
        reading = asyncio.create_task(drop(flooder))
        await until(lambda: not transport._stuffed)
        reading.cancel()


def update_keys(sock: socket.socket) -> None:
    """Send KeyUpdates until the server reads no more."""
    session = openssl.Session(sock)
    while session.update_keys():
        pass


async def drop(client: Client) -> None:
    while await client.more():
        client.received = b""


def transports(server: LiveServer) -> list[TLSTransport]:
    """The server's side of all connections."""
    return [each._transport for each in server.context.connections]  # type: ignore[attr-defined]


# HTTP/1.1.


@live
async def test_others_are_answered_between_pipelined_requests() -> None:
    async with (
        serve(app) as server,
        await server.connect() as flooder,
        await server.connect() as other,
    ):
        await other.get()
        await flooder.send(b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n" * 1000)
        answering = asyncio.create_task(pipelined(flooder, 1000))
        assert await answers_until(other, answering.done) >= OFTEN


async def pipelined(client: Client, count: int) -> None:
    for _ in range(count):
        await client.response()


HEADS = {
    "long fields": ["x: " + "a," * 30_000],
    "long targets": [],
    "handshakes": [*HANDSHAKE, "x: " + "a," * 30_000],
    "lists": ["connection: " + "a," * 30_000],
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("end", ["clear", "half-closed", "secure"])
@live
async def test_others_are_answered_between_heads_that_become_whole_at_once(
    kind: str, end: str, tls: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    target = "/" + "a" * (8000 if kind == "long targets" else 1)
    head = "\r\n".join([f"GET {target} HTTP/1.1", "host: a", *HEADS[kind]]).encode()
    async with (
        serve(app, tls=tls if end == "secure" else None) as server,
        AsyncExitStack() as stack,
    ):

        async def client() -> Client:
            if end == "secure":
                return await stack.enter_async_context(await server.connect_securely(trusting))
            return await stack.enter_async_context(await server.connect())

        other = await client()
        await other.get()
        flooders = [await client() for _ in range(6 * OFTEN)]
        await until(lambda: len(server.context.connections) == len(flooders) + 1)
        for each in flooders:
            await each.send(head)
        begun = [each for each in server.context.connections if isinstance(each, HTTP1Connection)]
        await until(
            lambda: sum(len(each._reader.buffer) == len(head) for each in begun) == len(flooders)
        )
        # Nothing here waits: the server's next turn finds the ends of all.
        for each in flooders:
            await each.send(b"\r\n\r\n")
            if end == "half-closed":
                each.half_close()
        read = lambda: all(each.gone or not each._reader.buffer for each in begun)  # noqa: E731
        assert await answers_until(other, read) >= OFTEN
        expected = {"handshakes": b"101", "lists": b"400"}.get(kind, b"200")
        if (kind, end) == ("handshakes", "half-closed"):
            return  # a client that has closed its side gets no WebSocket
        for each in flooders:
            assert (await each.read_until(b"\r\n")).split()[1] == expected


@pytest.mark.parametrize("piece", [1000, 5000, 1_000_000])
@live
async def test_requests_with_long_heads_are_whole(piece: int) -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\nx: %b\r\ncontent-length: 9000\r\n\r\n" % (b"a" * 9000)
    async with serve(app) as server, await server.connect() as client:
        data = (head + bytes(9000)) * 3
        for start in range(0, len(data), piece):
            await client.send(data[start : start + piece])
            await asyncio.sleep(0)
        for _ in range(3):
            assert (await client.response()).endswith(b"\r\n\r\n9000")


CHUNKED = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKS = b"1\r\nx\r\n" * 400_000 + b"0\r\n\r\n"  # 800 turns


@pytest.mark.parametrize("threads", [False, True])
@live
async def test_others_are_answered_between_chunks(threads: bool) -> None:
    async with (
        serve_in_threads(SyncAppHandler(Count(), falls_through=False))
        if threads
        else serve(app) as server,
        await server.connect() as flooder,
        await server.connect() as other,
    ):
        await other.get()
        await flooder.send(CHUNKED + CHUNKS[:60_000])
        sending = asyncio.create_task(flooder.send(CHUNKS[60_000:]))
        answering = asyncio.create_task(flooder.response())
        assert await answers_until(other, answering.done) >= OFTEN
        await sending
        assert (await answering).endswith(b"\r\n\r\n400000")


@live
async def test_what_comes_after_the_last_response_is_dropped_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting: list[Callable[[], None]] = []
    async with (
        serve(app) as server,
        await server.connect() as flooder,
        await server.connect() as other,
    ):
        await flooder.get("/", "connection: close")
        monkeypatch.setattr("pounce.net.turns.Turns.later", lambda _, each: waiting.append(each))
        sending = asyncio.create_task(flooder.send(bytes(40_000_000)))
        await until(lambda: bool(waiting))
        for _ in range(20):
            await other.get()
        assert not sending.done()  # nobody reads: it is not its turn yet
        assert len(waiting) == 1
        while not sending.done():
            while waiting:
                waiting.pop()()
            await asyncio.sleep(0)
