"""Persistent connections, pipelining, framing and ends, as a client sees them."""

import asyncio
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pounce.application.types import Receive, Scope, Send
from pounce.asgi import departure
from pounce.http1.connection import HTTP1Connection
from pounce.http1.stream import RECEIVE_BUFFER, UNREAD_BODY
from tests.live import GET, echo, hello, live, read_body, respond, serve, until

POST = b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: %d\r\n%b\r\n"


def record(into: list[Any]) -> Any:
    """An application that notes each scope and answers its path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        into.append(scope)
        await respond(send, scope["path"].encode())

    return app


@live
async def test_a_connection_serves_many_requests() -> None:
    async with serve(hello) as server, await server.connect() as client:
        for _ in range(3):
            response = await client.get()
            assert response.startswith(b"HTTP/1.1 200 OK\r\n")
            assert response.endswith(b"\r\n\r\nhello")
            assert b"connection:" not in response
        assert server.context.requests == 3


@live
async def test_no_scope_is_another_requests() -> None:
    scopes: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append({key: str(value) for key, value in scope.items()})
        for value in scope.values():
            if isinstance(value, list):
                value.append((b"x", b"y"))
            elif isinstance(value, dict):
                value["x"] = "y"
        scope["x"] = "y"
        await hello(scope, receive, send)

    async with serve(app) as server, await server.connect() as client:
        # To the server, the same request is not a new one each time; to the application it is.
        for _ in range(4):
            await client.get()
    assert scopes == [scopes[0]] * 4


PIECES = (
    GET,
    GET[:9],
    GET[9:],
    GET.replace(b"/ ", b"/other "),
    GET * 2,
    b"POST /x HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\n\r\nhi",
    b"POST /y HTTP/1.1\r\nhost: a.example\r\ncontent-length: %d\r\n\r\n" % len(GET),
    b"POST /z HTTP/1.1\r\nhost: a.example\r\ncontent-length: %d\r\n\r\n" % len(GET),
    b"\r\n",
)


@pytest.mark.parametrize("waits", [False, True])
@partial(live, loops=["uvloop"])
async def test_a_request_that_comes_again_is_one_wherever_it_was_cut(*, waits: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if waits:
            for _ in range(3):
                await asyncio.sleep(0)
        content = (await read_body(receive) or b"") if scope["path"] == "/y" else b""
        await respond(send, scope["path"].encode() + content)

    async with serve(app, date_header=False) as server:

        async def answers(*pieces: bytes) -> tuple[bytes, bytes]:
            async with await server.connect() as client:
                connection = await server.connection()
                for piece in pieces:
                    connection.data_received(piece)
                    await asyncio.sleep(0)
                client.half_close()
                answered = await client.rest()
            await server.departures()
            # Why a request is bad may well be found at another place.
            good, bad, _ = answered.partition(b"HTTP/1.1 400 ")
            return good, bad

        for between in product(PIECES, repeat=2):
            pieces = (GET, *between, GET)
            assert await answers(*pieces) == await answers(b"".join(pieces)), pieces


@live
async def test_nothing_of_a_request_is_kept_for_an_idle_client() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await hello(scope, receive, send)

    async with serve(app) as server, await server.connect() as client:
        await client.ask()
        await client.ask()
        await client.response()
        await client.response()
        (connection,) = server.context.connections
        assert isinstance(connection, HTTP1Connection)
        await until(lambda: connection._pristine is None and connection._reader._head is None)
        assert connection._task is None
        assert await client.get()


@live
async def test_pipelined_requests_are_answered_in_order() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The first takes the longest.
        await asyncio.sleep(0.05 if scope["path"] == "/0" else 0)
        await respond(send, scope["path"].encode())

    async with serve(app) as server, await server.connect() as client:
        await client.send(b"".join(GET.replace(b"/ ", b"/%d " % i) for i in range(5)))
        bodies = [(await client.response()).rpartition(b"\r\n\r\n")[2] for _ in range(5)]
        assert bodies == [b"/0", b"/1", b"/2", b"/3", b"/4"]


@live
async def test_many_pipelined_requests_do_not_recurse() -> None:
    async with serve(hello) as server, await server.connect() as client:
        await client.send(GET * 2000)
        for _ in range(2000):
            assert (await client.response()).endswith(b"hello")


@live
async def test_a_background_task_does_not_hold_up_the_connection() -> None:
    released = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        if scope["path"] == "/background":
            await released.wait()
            assert (await receive())["type"] == "http.disconnect"

    async with serve(app) as server:
        async with await server.connect() as client:
            await client.get("/background")
            await client.get()
        await until(lambda: not server.context.connections)
        assert server.context.tasks
        assert not server.context.idle
        released.set()
        await server.departures()


@live
@pytest.mark.parametrize(
    ("request_text", "connection"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"close"),
        (b"GET / HTTP/1.0\r\n\r\n", b"close"),
        (b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", b"keep-alive"),
    ],
)
async def test_connection_field(request_text: bytes, connection: bytes) -> None:
    async with serve(hello) as server, await server.connect() as client:
        await client.send(request_text)
        assert b"\r\nconnection: %b\r\n" % connection in await client.response()
        if connection == b"close":
            assert await client.rest() == b""
        else:
            await client.get()


@live
async def test_max_requests_per_connection() -> None:
    async with (
        serve(hello, max_requests_per_connection=2) as server,
        await server.connect() as client,
    ):
        assert b"connection:" not in await client.get()
        assert b"\r\nconnection: close\r\n" in await client.get()
        assert await client.rest() == b""


@live
async def test_an_upgrade_is_answered_as_plain_http() -> None:
    async with serve(hello) as server, await server.connect() as client:
        fields = ("connection: upgrade", "upgrade: h2c")
        assert (await client.get("/", *fields)).startswith(b"HTTP/1.1 200 ")
        await client.get()


@live
async def test_http10_streaming_ends_with_the_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for part in (b"a", b"b"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async with serve(app) as server, await server.connect() as client:
        await client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        head, _, body = (await client.rest()).partition(b"\r\n\r\n")
        assert b"connection: close" in head
        assert b"transfer-encoding" not in head
        assert body == b"ab"


@live
async def test_a_chunk_does_not_wait_for_the_next() -> None:
    read = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for text in (b"one", b"two", b"three"):
            await send({"type": "http.response.body", "body": text, "more_body": True})
        await read.wait()
        await send({"type": "http.response.body"})

    async with serve(app) as server, await server.connect() as client:
        await client.ask()
        chunks = b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n"
        assert (await client.read_until(b"three\r\n")).endswith(chunks)
        read.set()
        assert await client.read_until(b"\r\n\r\n") == b"0\r\n\r\n"


@live
async def test_chunks_keep_their_order_whatever_their_size() -> None:
    bodies = [
        bytes([65 + number]) * size
        for number, size in enumerate(
            [1, 20_000, 0, 5, 16_384, 16_383, 1, 70_000, 3, 9000, 9000, 9000, 2]
        )
    ]
    expected = b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies if body)
    expected += b"3\r\nend\r\n0\r\n\r\n"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})

    async with serve(app) as server, await server.connect() as client:
        for _ in range(2):
            head, _, content = (await client.get()).partition(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            assert content == expected


@live
async def test_bodies_arrive_whole() -> None:
    async with serve(echo) as server, await server.connect() as client:
        await client.send(POST % (5, b"") + b"he")
        await client.send(b"llo")
        assert (await client.response()).endswith(b"\r\n\r\nhello")
        chunked = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(chunked + b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nx-trailer: 1\r\n\r\n")
        assert (await client.response()).endswith(b"\r\n\r\nhello")


@live
async def test_continue_is_sent_when_the_application_reads() -> None:
    async with serve(echo) as server, await server.connect() as client:
        await client.send(POST % (5, b"expect: 100-continue\r\n"))
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        assert (await client.response()).endswith(b"hello")
        await client.get()


@live
async def test_a_refused_expectation_closes() -> None:
    async with serve(hello) as server, await server.connect() as client:
        await client.send(POST % (5, b"expect: 100-continue\r\n"))
        assert b"\r\nconnection: close\r\n" in await client.response()
        assert await client.rest() == b""


@live
async def test_a_small_unread_body_is_dropped() -> None:
    async with serve(hello) as server, await server.connect() as client:
        await client.send(POST % (100_000, b""))
        await client.response()
        await client.send(b"x" * 100_000)
        assert (await client.get()).endswith(b"hello")


@live
async def test_a_large_unread_body_closes_and_the_response_can_be_read() -> None:
    async with serve(hello) as server, await server.connect() as client:
        # Far more than the sockets' buffers hold: with a reset the client would lose the answer.
        size = UNREAD_BODY + 20_000_000
        sending = asyncio.ensure_future(client.send(POST % (size, b"") + b"x" * size))
        await asyncio.wait([sending])
        assert (await client.rest()).endswith(b"hello")


@live
async def test_an_error_reaches_a_client_that_still_uploads() -> None:
    async with serve(echo, max_body_size=1000) as server, await server.connect() as client:
        sending = asyncio.ensure_future(client.send(POST % (9_000_000, b"") + b"x" * 9_000_000))
        await asyncio.wait([sending])
        assert (await client.rest()).startswith(b"HTTP/1.1 413 ")


@live
async def test_a_half_closing_client_gets_its_response() -> None:
    events = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await read_body(receive) == b"hi"
        events.append((await receive())["type"])
        await respond(send, b"still here")

    async with serve(app) as server, await server.connect() as client:
        await client.send(POST % (2, b"") + b"hi")
        client.half_close()
        assert (await client.rest()).endswith(b"still here")
        assert events == ["http.disconnect"]
        await server.departures()


@live
async def test_an_unfinished_request_is_a_bad_one(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(echo) as server:
        for part in (b"GET / HTTP/1.1\r\nhost", POST % (5, b"") + b"he"):
            async with await server.connect() as client:
                await client.send(part)
                client.half_close()
                assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    assert not caplog.records


@live
async def test_receive_and_send_learn_that_the_client_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    outcome: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send({"type": "http.response.start", "status": 200})
        outcome.append((await receive())["type"])
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    async with serve(app) as server:
        async with await server.connect() as client:
            await client.ask()
            await server.connection()
        await until(lambda: len(outcome) == 2)
        assert outcome == ["http.disconnect", "cancelled"]
        await server.departures()


@live
async def test_a_slow_reader_holds_up_the_application() -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            sent += 65536
        await send({"type": "http.response.body"})

    async with serve(app) as server, await server.connect(receive_buffer=4096) as client:
        await client.ask()
        connection = await server.connection()
        await until(lambda: connection.write_paused)
        stalled = sent
        # What the kernel holds, and one message above the transport's limit.
        assert connection._transport.get_write_buffer_size() < 200_000
        assert stalled < 10_000_000
        while not client.received.endswith(b"0\r\n\r\n"):
            client.received = client.received[-16:]
            assert await client.more()
        assert sent == 65_536_000


@live
async def test_a_slow_application_holds_up_the_client() -> None:
    reads = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reads.wait()
        await echo(scope, receive, send)

    async with serve(app) as server, await server.connect() as client:
        size = 20_000_000
        sending = asyncio.ensure_future(client.send(POST % (size, b"") + b"x" * size))
        connection = await server.connection()
        await until(lambda: connection._reading_paused)
        # One read of the transport may come on top (256 KiB in asyncio, 250,000 in uvloop).
        assert len(connection._reader.buffer) <= RECEIVE_BUFFER + 262_144
        assert not sending.done()
        reads.set()
        head = await client.read_until(b"\r\n\r\n")
        assert b"content-length: %d" % size in head
        await sending
        connection.abort()


@live
async def test_pipelining_does_not_fill_the_buffer() -> None:
    goes_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await goes_on.wait()
        await hello(scope, receive, send)

    async with serve(app) as server, await server.connect() as client:
        count = 100_000
        sending = asyncio.ensure_future(client.send(GET * count))
        connection = await server.connection()
        await until(lambda: connection._reading_paused)
        assert len(connection._reader.buffer) <= RECEIVE_BUFFER + 262_144
        sending.cancel()
        await asyncio.wait([sending])
        goes_on.set()
        await client.response()


@live
async def test_chunk_extensions_beyond_the_receive_buffer() -> None:
    async with (
        serve(echo, max_header_size=300_000) as server,
        await server.connect() as client,
    ):
        head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head + b"2;" + b"x" * 250_000 + b"\r\nhi\r\n0\r\n\r\n")
        assert (await client.response()).endswith(b"hi")


@live
async def test_unix_socket(tmp_path: Path) -> None:
    scopes: list[Scope] = []
    path = str(tmp_path / "s")
    async with serve(record(scopes), path=path) as server, await server.connect() as client:
        await client.get()
    assert scopes[0]["client"] is None
    assert scopes[0]["server"] == (path, None)


@live
async def test_the_scope_names_both_ends() -> None:
    scopes: list[Scope] = []
    async with serve(record(scopes), state={"db": 1}) as server:
        async with await server.connect() as client:
            await client.get()
            assert scopes[0]["client"] == client.sock.getsockname()
            assert scopes[0]["server"] == client.sock.getpeername()
        assert scopes[0]["state"] == {"db": 1}
        assert scopes[0]["state"] is not server.context.state


@live
async def test_only_a_trusted_gateway_may_speak_of_a_secure_connection() -> None:
    scopes: list[Scope] = []
    for allow, status in (("127.0.0.1", b"200"), ("192.0.2.1", b"421")):
        async with (
            serve(record(scopes), forwarded_allow=(allow,)) as server,
            await server.connect() as client,
        ):
            await client.send(POST.replace(b" / ", b" HTTPS://a.example/p ") % (4, b""))
            await client.send(b"data")
            assert (await client.response()).startswith(b"HTTP/1.1 %b " % status)
    assert [(scope["scheme"], scope["path"]) for scope in scopes] == [("https", "/p")]


@live
async def test_forwarded_fields_count_from_trusted_peers_only() -> None:
    scopes: list[Scope] = []
    for allow in (("127.0.0.1",), ("192.0.2.1",)):
        async with (
            serve(record(scopes), forwarded_allow=allow) as server,
            await server.connect() as client,
        ):
            await client.get("/", "x-forwarded-for: 203.0.113.9", "x-forwarded-proto: https")
            await client.get("/", 'forwarded: for="[2001:db8::9]:80";proto=https')
    assert [(scope["client"], scope["scheme"]) for scope in scopes[:2]] == [
        (("203.0.113.9", 0), "https"),
        (("2001:db8::9", 80), "https"),
    ]
    for scope in scopes[2:]:
        assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")
