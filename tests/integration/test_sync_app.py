"""SyncApps, ASGI applications in threads, and what is left to the loop."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pounce.application.sync_app import RawRequest, RawResponse
from pounce.application.types import ASGIApp, Receive, Scope, Send
from pounce.threads.asgi import ASGIHandler
from pounce.threads.async_pool import AsyncPool
from pounce.threads.handler import Handler
from pounce.threads.raw import SyncAppHandler
from tests.live import Client, echo, live, read_body, respond, serve_in_threads, until
from tests.websocket import Peer


class Told:
    """Answers with what it was asked; leaves some requests, and fails at others."""

    def __init__(self) -> None:
        self.requests: list[RawRequest] = []

    def handle_sync(self, request: RawRequest) -> RawResponse | None:
        self.requests.append(request)
        if request.path == b"/left":
            return None
        if request.path == b"/fails":
            raise ValueError("no answer to this")
        if request.path == b"/text":
            return RawResponse(200, (), "text")  # type: ignore[arg-type]
        if request.path == b"/status":
            return RawResponse("200")  # type: ignore[arg-type]
        if request.path == b"/fields":
            return RawResponse(200, ((b"a", b"b\r\nc: d"),))
        return RawResponse(201, ((b"x-thread", threading.current_thread().name.encode()),), b"raw")


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    await echo(scope, receive, send)


@asynccontextmanager
async def pooled(app: ASGIApp) -> AsyncIterator[AsyncPool]:
    """*app* on a loop of its own."""
    pool = AsyncPool(app, "auto", "test-async")
    pool.start()
    try:
        yield pool
    finally:
        pool.stop()
        await until(lambda: not pool.alive)


async def post(client: Client, target: str, content: bytes = b"") -> bytes:
    head = f"POST {target} HTTP/1.1\r\nhost: a.example\r\ncontent-length: {len(content)}\r\n\r\n"
    await client.send(head.encode() + content)
    return await client.response()


# SyncApp


@live
async def test_a_whole_request_becomes_a_whole_response() -> None:
    app = Told()
    handler = SyncAppHandler(app, falls_through=False)
    async with serve_in_threads(handler) as server, await server.connect() as client:
        response = await post(client, "/a%20b?c=d", b"content")
        assert response.startswith(b"HTTP/1.1 201 Created\r\nx-thread: test-")
        assert b"\r\ncontent-length: 3\r\n" in response
        assert response.endswith(b"\r\n\r\nraw")
        (request,) = app.requests
        assert (request.method, request.path, request.query_string) == (b"POST", b"/a%20b", b"c=d")
        assert request.headers == ((b"host", b"a.example"), (b"content-length", b"7"))
        assert request.body == b"content"
        assert request.client == client.sock.getsockname()
        assert request.server == client.sock.getpeername()
        assert (request.http_version, request.scheme) == ("1.1", "http")


@live
async def test_what_it_leaves_is_for_the_asgi_application() -> None:
    handler = SyncAppHandler(Told(), falls_through=True)
    async with (
        pooled(asgi) as pool,
        serve_in_threads(handler, pool) as server,
        await server.connect() as client,
    ):
        for _ in range(2):
            assert (await post(client, "/left", b"content")).endswith(b"\r\n\r\ncontent")
            assert b"\r\ncontent-length: 0\r\n" in await client.get("/left")
            assert (await post(client, "/", b"content")).endswith(b"\r\n\r\nraw")
        assert server.context.requests == 6


@live
async def test_what_it_leaves_is_not_found_where_there_is_none() -> None:
    handler = SyncAppHandler(Told(), falls_through=False)
    async with serve_in_threads(handler) as server, await server.connect() as client:
        assert (await client.get("/left")).startswith(b"HTTP/1.1 404 Not Found\r\n")


@live
async def test_a_failure_is_answered_500(caplog: pytest.LogCaptureFixture) -> None:
    handler = SyncAppHandler(Told(), falls_through=True)
    async with serve_in_threads(handler, asgi) as server, await server.connect() as client:
        for path in ("/fails", "/text", "/status", "/fields"):
            assert (await client.get(path)).startswith(b"HTTP/1.1 500 ")
        assert (await client.get("/")).startswith(b"HTTP/1.1 201 ")
    for told in (
        "ValueError: no answer to this",
        "the body is str, not bytes",
        "the status is '200', not an int",
        "a character that no header may have",
    ):
        assert told in caplog.text


@live
async def test_an_asgi_application_that_falls_behind_is_told_of_its_client() -> None:
    told = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await read_body(receive) == b"content"
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    handler = SyncAppHandler(Told(), falls_through=True)
    async with pooled(app) as pool, serve_in_threads(handler, pool) as server:
        async with await server.connect() as client:
            await client.send(
                b"POST /left HTTP/1.1\r\nhost: a.example\r\ncontent-length: 7\r\n\r\ncontent"
            )
            await until(lambda: "<- running" not in server.context.in_flight())
        await until(told.is_set)


@live
async def test_websockets_are_the_pool_s() -> None:
    handler = SyncAppHandler(Told(), falls_through=True)
    async with pooled(asgi) as pool, serve_in_threads(handler, pool) as server:
        async with await server.connect() as client:
            assert b" 101 Switching Protocols\r\n" in await Peer(client).open()
        await server.departures()


@live
async def test_the_pool_outlives_what_its_application_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise {b"e": ValueError, b"s": SystemExit}[scope["query_string"]]("told")

    handler = SyncAppHandler(Told(), falls_through=True)
    async with (
        pooled(app) as pool,
        serve_in_threads(handler, pool) as server,
        await server.connect() as client,
    ):
        for query in "es":
            assert (await client.get(f"/left?{query}")).startswith(b"HTTP/1.1 500 ")
    assert "ValueError: told" in caplog.text
    assert "SystemExit('told')" in caplog.text


@live
async def test_the_application_of_a_pool_is_cancelled_with_its_client() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    handler = SyncAppHandler(Told(), falls_through=True)
    async with (
        pooled(app) as pool,
        serve_in_threads(handler, pool) as server,
        await server.connect() as client,
    ):
        await client.ask("/left")
        await until(begun.is_set)
        server.context.abort()
        await until(cancelled.is_set)


@live
async def test_a_pool_tells_when_it_is_stuck() -> None:
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert go.wait(25)

    async with pooled(app) as pool:
        loop = asyncio.get_running_loop()
        stuck = asyncio.ensure_future(pool({"type": "http"}, None, None))  # type: ignore[arg-type]
        await until(lambda: pool.stuck_for(loop.time()) > 0.1)
        go.set()
        await until(lambda: pool.stuck_for(loop.time()) == 0.0)
        await stuck


# ASGI in threads


@live
async def test_each_request_has_a_thread_and_a_loop() -> None:
    main = threading.get_ident()
    loops: set[int] = set()
    together = threading.Barrier(3)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert threading.get_ident() != main
        loops.add(id(asyncio.get_running_loop()))
        body = await read_body(receive)
        await asyncio.sleep(0)
        together.wait(25)
        await respond(send, body or b"")

    async with serve_in_threads(ASGIHandler(app), threads=3) as server:
        clients = [await server.connect() for _ in range(6)]
        for client in clients:
            await client.send(b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\n\r\nhi")
        for client in clients:
            assert (await client.response()).endswith(b"\r\n\r\nhi")
            client.sock.close()
    assert len(loops) == 3


async def spoils_its_scope(scope: Scope, receive: Receive, send: Send) -> None:
    content = b"%d fields" % len(scope["headers"])
    scope["headers"].clear()
    scope.clear()
    await respond(send, content)


@pytest.mark.parametrize(
    "handler", [ASGIHandler(spoils_its_scope), SyncAppHandler(Told(), falls_through=True)]
)
@live
async def test_an_application_may_do_what_it_likes_with_its_scope(handler: Handler) -> None:
    async with (
        serve_in_threads(handler, spoils_its_scope) as server,
        await server.connect() as client,
    ):
        for _ in range(4):
            assert (await client.get("/left")).endswith(b"\r\n\r\n1 fields")


@live
async def test_a_stream_does_not_keep_others_from_their_threads() -> None:
    go = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            await respond(send, b"hello")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while not go.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"ended"})

    async with serve_in_threads(ASGIHandler(app), threads=1) as server:
        streams = [await server.connect() for _ in range(5)]
        for stream in streams:
            await stream.ask("/stream")
            await stream.read_until(b"begun")
        async with await server.connect() as client:
            assert (await client.get("/")).endswith(b"hello")
        go.set()
        for stream in streams:
            assert (await stream.read_until(b"0\r\n\r\n")).endswith(b"ended\r\n0\r\n\r\n")
            stream.sock.close()


@live
async def test_streams_that_end_soon_are_made_by_the_same_threads() -> None:
    threads: set[str] = set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        threads.add(threading.current_thread().name)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"ended"})

    async with (
        serve_in_threads(ASGIHandler(app), threads=1) as server,
        await server.connect() as client,
    ):
        for _ in range(100):
            await client.ask("/stream")
            await client.read_until(b"0\r\n\r\n")
    # On a busy machine, one or another takes long.
    assert len(threads) < 25


@live
async def test_receive_tells_when_the_client_has_gone_and_send_says_nothing() -> None:
    told = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        assert (await receive())["type"] == "http.disconnect"
        await respond(send, b"hello")
        told.set()

    async with serve_in_threads(ASGIHandler(app)) as server:
        async with await server.connect() as client:
            await client.ask()
            await until(lambda: "in thread" in server.context.in_flight())
            # A client that only says no more could still read: this one resets (socket(7)).
            linger = struct.pack("ii", 1, 0)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await until(told.is_set)
        await server.departures()


def start(status: Any = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": []}


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "without sending a response"),
        ([start()], "without sending a response"),
        ([start(), start()], "http.response.start was sent at the wrong time"),
        ([{"type": "http.response.body", "body": b""}], "http.response.body was sent at the wrong"),
        ([start(), {"type": "nonsense"}], "nonsense was sent at the wrong time"),
        ([start("200")], "the status is '200', not an int"),
        ([start(), {"type": "http.response.body", "body": "text"}], "is str, not bytes"),
    ],
)
@live
async def test_what_breaks_the_rules_is_answered_500(
    messages: list[Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    async with serve_in_threads(ASGIHandler(app)) as server, await server.connect() as client:
        for _ in range(2):
            assert (await client.get("/")).startswith(b"HTTP/1.1 500 ")
    assert told in caplog.text
