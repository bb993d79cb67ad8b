"""Requests and responses over HTTP/3, with a client on a real socket."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aioquic.tls import Group

from pounce.application.types import Receive, Scope, Send
from pounce.asgi import departure
from pounce.http3.errors import Code
from pounce.http3.qpack import Fields
from tests.http3 import StreamError, connected, on_uvloop, serve
from tests.live import echo, hello, read_body, respond, until


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the scope."""
    keys = ("http_version", "method", "scheme", "path", "raw_path", "query_string", "headers")
    await respond(send, repr([scope[key] for key in (*keys, "client", "server")]).encode())


@on_uvloop
async def test_the_scope(tmp_path: Path) -> None:
    async with serve(tell, tmp_path) as server, connected(server.address) as client:
        response = await client.get("/a%20b?c", (b"x-d", b"e"))
        assert response.status == 200
        told = eval(response.body)
        assert told[:6] == ["3", "GET", "https", "/a b", b"/a%20b", b"c"]
        assert told[6] == [(b"host", b"a.example"), (b"x-d", b"e")]
        assert told[7] == client.local
        assert told[8] == server.address


@on_uvloop
async def test_what_a_trusted_proxy_says(tmp_path: Path) -> None:
    async with serve(tell, tmp_path) as server, connected(server.address) as client:
        response = await client.get("/", (b"x-forwarded-for", b"192.0.2.7"))
        assert eval(response.body)[7][0] == "192.0.2.7"


@pytest.mark.parametrize("target", ["/a", "/shop/a"])
@on_uvloop
async def test_a_proxy_mounts_an_application(target: str, tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        keys = ("root_path", "path", "raw_path")
        await respond(send, repr([*(scope[key] for key in keys), scope["server"][1]]).encode())

    fields = [(b"x-forwarded-prefix", b"/shop"), (b"x-forwarded-port", b"8443")]
    async with serve(app, tmp_path) as server, connected(server.address) as client:
        response = await client.get(target, *fields)
        assert eval(response.body) == ["/shop", "/shop/a", target.encode(), 8443]


@pytest.mark.parametrize("group", [Group.X25519, Group.SECP256R1, Group.SECP384R1])
@on_uvloop
async def test_a_group_to_agree_on_keys_in(group: Group, tmp_path: Path) -> None:
    async with (
        serve(hello, tmp_path) as server,
        connected(server.address, groups=[group]) as client,
    ):
        assert (await client.get()).status == 200


@on_uvloop
async def test_a_group_that_is_not_offered(tmp_path: Path) -> None:
    async with (
        serve(hello, tmp_path) as server,
        connected(server.address, groups=[Group.X448]) as client,
    ):
        assert client.ended
        assert not client.established


@on_uvloop
async def test_many_requests_of_one_connection(tmp_path: Path) -> None:
    async with serve(echo, tmp_path) as server, connected(server.address) as client:
        for _ in range(3):
            # More than may be open at once: each that ends makes place for another.
            exchanges = [client.start() for _ in range(100)]
            assert {(await each.result()).status for each in exchanges} == {200}
        assert server.workers[0].context.requests == 300
        [connection] = server.workers[0].connections
        await until(lambda: not connection.busy)


@on_uvloop
async def test_content_in_both_directions(tmp_path: Path) -> None:
    async with serve(echo, tmp_path) as server, connected(server.address) as client:
        body = bytes(range(256)) * 8000  # 2 MB, more than any window
        response = await client.post("/", body)
        assert response.body == body
        assert response.header(b"content-length") == b"%d" % len(body)


@on_uvloop
async def test_streaming_both_ways_at_once(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        exchange = client.start(method="POST", ended=False)
        for size in range(1, 5):
            exchange.send(b"x")
            assert await exchange.body(size) == b"x" * size
        exchange.send(b"y", ended=True)
        response = await exchange.result()
        assert response.body == b"xxxxy"
        assert response.header(b"content-length") is None


@on_uvloop
async def test_trailers_are_dropped(tmp_path: Path) -> None:
    async with serve(echo, tmp_path) as server, connected(server.address) as client:
        exchange = client.start(method="POST", ended=False)
        exchange.send(b"content")
        client.http.send_headers(exchange.stream_id, [(b"x-sum", b"1")], end_stream=True)
        client.transmit()
        assert (await exchange.result()).body == b"content"


RESPONSES: dict[str, tuple[str, int, Fields, bytes, Fields, bytes]] = {
    # method, status, headers and body from the application; headers and body as they arrive
    "whole": ("GET", 200, [], b"abc", [(b"content-length", b"3")], b"abc"),
    "head": ("HEAD", 200, [], b"abc", [(b"content-length", b"3")], b""),
    "head of known length": (
        "HEAD",
        200,
        [(b"content-length", b"9")],
        b"",
        [(b"content-length", b"9")],
        b"",
    ),
    "no content": ("GET", 204, [(b"content-length", b"0")], b"", [], b""),
    "reset content": ("GET", 205, [], b"abc", [(b"content-length", b"0")], b""),
    "not modified": ("GET", 304, [(b"ETag", b" x ")], b"", [(b"etag", b"x")], b""),
    "of HTTP/1.1": (
        "GET",
        200,
        [(b"Connection", b"close"), (b"Transfer-Encoding", b"chunked"), (b"keep-alive", b"5")],
        b"",
        [(b"content-length", b"0")],
        b"",
    ),
}


@pytest.mark.parametrize("name", RESPONSES)
@on_uvloop
async def test_responses(name: str, tmp_path: Path) -> None:
    method, status, headers, body, expected, content = RESPONSES[name]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    options = {"server_header": False, "date_header": False}
    async with serve(app, tmp_path, **options) as server, connected(server.address) as client:
        response = await client.start(method=method).result()
        assert (response.status, response.headers, response.body) == (status, expected, content)


@on_uvloop
async def test_large_and_many_fields(tmp_path: Path) -> None:
    fields = [(b"set-cookie", b"a" * 9000), *((b"x-%d" % n, b"v" * n) for n in range(200))]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body"})

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        assert (await client.get()).headers[: len(fields)] == fields


@on_uvloop
async def test_a_client_that_waits_to_be_told_to_go_on(tmp_path: Path) -> None:
    async with serve(echo, tmp_path) as server, connected(server.address) as client:
        exchange = client.start("/", (b"expect", b"100-continue"), method="POST", ended=False)
        await until(lambda: exchange.response.informational == [100])
        exchange.send(b"content", ended=True)
        assert (await exchange.result()).body == b"content"


@on_uvloop
async def test_an_application_that_fails(tmp_path: Path, caplog: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise RuntimeError("of the application")

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        assert (await client.get("/early")).status == 500
        late = client.start("/late")
        with pytest.raises(StreamError, match=str(int(Code.INTERNAL_ERROR))):
            await late.result()
        assert (await client.get("/early")).status == 500
    assert caplog.text.count("RuntimeError: of the application") == 3


@on_uvloop
async def test_content_that_does_not_fit_its_length(tmp_path: Path, caplog: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        head = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"2")],
        }
        await send(head)
        await send({"type": "http.response.body", "body": b"abc"})

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        assert (await client.get()).status == 500
    assert "1 bytes longer than its content-length" in caplog.text


# Flow control


@on_uvloop
async def test_an_application_that_does_not_read_stops_the_client(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await respond(send, b"%d" % len(await read_body(receive) or b""))

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        exchange = client.start(method="POST", ended=False)
        exchange.send(b"x" * 2_000_000, ended=True)
        stream = client.quic._streams[exchange.stream_id]
        await until(lambda: stream.sender.highest_offset >= 262_144)
        await client.ping()  # its answer comes after all that the server has to say to that
        assert stream.sender.highest_offset == 262_144
        gate.set()
        assert (await exchange.result()).body == b"2000000"


@on_uvloop
async def test_a_client_that_does_not_read_stops_the_application(tmp_path: Path) -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"x" * 16_384, "more_body": True})
            sent += 16_384
        await send({"type": "http.response.body"})

    window: dict[str, Any] = {"max_stream_data": 65_536, "max_data": 65_536}
    async with serve(app, tmp_path) as server, connected(server.address, **window) as client:
        client.holds_back = True
        exchange = client.start()
        await until(lambda: len(exchange.response.content) > 60_000)
        [connection] = server.workers[0].connections
        await until(lambda: connection._streams[exchange.stream_id].write_paused)
        assert sent < 65_536 + 131_072 + 2 * 16_384
        client.holds_back = False
        client.transmit()
        assert len((await exchange.result()).body) == 200 * 16_384


@on_uvloop
async def test_a_client_that_never_reads_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    errors: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        except asyncio.CancelledError as error:
            errors.append(error)
            raise

    window: dict[str, Any] = {"max_stream_data": 65_536, "max_data": 65_536}
    options = {"write_timeout": 0.2}
    async with (
        serve(app, tmp_path, **options) as server,
        connected(server.address, **window) as client,
    ):
        client.holds_back = True
        with pytest.raises(StreamError):
            await client.start().result()
        await until(lambda: bool(errors))


@on_uvloop
async def test_a_whole_response_that_is_never_read_is_given_up(tmp_path: Path) -> None:
    """The application has returned, but the connection is busy until the content has arrived."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"x" * (300_000 if scope["path"] == "/large" else 1))

    options = {"write_timeout": 0.5, "keep_alive_timeout": 0.1}
    async with (
        serve(app, tmp_path, **options) as server,
        connected(server.address, max_stream_data=65_536) as client,
    ):
        client.holds_back = True
        exchange = client.start("/large")
        await exchange.body(60_000)
        [connection] = server.workers[0].connections
        assert server.workers[0].context.requests == 1
        assert connection.busy
        assert connection.in_flight(0.0, None).endswith("that the client has yet to acknowledge: 1")
        assert len((await client.get("/small")).body) == 1
        with pytest.raises(StreamError, match=str(int(Code.REQUEST_CANCELLED))):
            await exchange.result()
        assert (await client.gone()).error_code == Code.NO_ERROR


@on_uvloop
async def test_a_client_that_stops_a_whole_response(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, b"x" * 300_000)

    async with (
        serve(app, tmp_path) as server,
        connected(server.address, max_stream_data=65_536) as client,
    ):
        client.holds_back = True
        exchange = client.start()
        await exchange.body(60_000)
        [connection] = server.workers[0].connections
        assert connection.busy
        client.quic.stop_stream(exchange.stream_id, Code.REQUEST_CANCELLED)
        client.transmit()
        await until(lambda: not connection.busy)


# Clients that leave


@pytest.mark.parametrize("way", ["reset", "stop", "both", "close"])
@on_uvloop
async def test_a_client_that_gives_up(way: str, tmp_path: Path) -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        while (message := await receive())["type"] == "http.request":
            pass
        told.append(message["type"])

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        other = client.start(method="POST", ended=False)
        exchange = client.start(method="POST", ended=False)
        await exchange.body(5)
        if way in ("reset", "both"):
            client.quic.reset_stream(exchange.stream_id, Code.REQUEST_CANCELLED)
        if way in ("stop", "both"):
            client.quic.stop_stream(exchange.stream_id, Code.REQUEST_CANCELLED)
        if way == "close":
            client.close()
        client.transmit()
        await until(lambda: told == ["http.disconnect"] * (2 if way == "close" else 1))
        if way != "close":
            await other.body(5)
            [connection] = server.workers[0].connections
            assert list(connection._streams) == [other.stream_id]


@on_uvloop
async def test_a_client_that_closes_its_connection_is_gone_at_once(tmp_path: Path) -> None:
    """On a slow path the connection itself stays for long, to ignore what still comes."""
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        told.append((await receive())["type"])

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        client.start()
        [connection] = server.workers[0].connections
        await until(lambda: connection.busy)
        connection._quic._loss._rtt_smoothed = 60.0
        client.close()
        await until(lambda: server.workers[0].context.idle)
        assert told == ["http.disconnect"]


@on_uvloop
async def test_a_response_before_the_request_is_whole(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        exchange = client.start(method="POST", ended=False)
        exchange.send(b"x" * 1000)
        assert (await exchange.result()).body == b"hello"
        # The client is asked to send no more (RFC 9114 section 4.1), and may go on nevertheless.
        assert (await client.get()).body == b"hello"
        [connection] = server.workers[0].connections
        await until(lambda: not connection.busy)


# Limits


@on_uvloop
async def test_refusals_are_answered(tmp_path: Path) -> None:
    options = {"max_header_size": 1000, "max_body_size": 1000, "max_request_line": 2000}
    async with serve(echo, tmp_path, **options) as server, connected(server.address) as client:
        assert (await client.get("/", (b"connection", b"close"))).status == 400
        assert (await client.get("/", *[(b"x", b"y" * 400)] * 4)).status == 431
        assert (await client.get("/" + "x" * 3000)).status == 414
        assert (await client.post("/", b"x" * 2000)).status == 413
        assert (await client.post("/", b"", (b"content-length", b"5000"))).status == 413
        connect = [(b":method", b"CONNECT"), (b":authority", b"a.example:443")]
        assert (await client.start(pseudo=connect).result()).status == 501
        assert (await client.get()).status == 200


@on_uvloop
async def test_slow_clients(tmp_path: Path) -> None:
    options = {"header_timeout": 0.2, "body_timeout": 0.2}
    async with serve(echo, tmp_path, **options) as server, connected(server.address) as client:
        head = client.stream()
        head.send_raw(b"\x01\x40")  # the beginning of a HEADERS frame
        body = client.start(method="POST", ended=False)
        assert (await head.result()).status == 408
        assert (await body.result()).status == 408
        assert (await client.get()).status == 200


@on_uvloop
async def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    options = {"keep_alive_timeout": 0.3}
    async with serve(echo, tmp_path, **options) as server, connected(server.address) as client:
        assert (await client.get()).status == 200
        assert (await client.gone()).error_code == Code.NO_ERROR
        await until(lambda: server.workers[0].context.idle)


@on_uvloop
async def test_a_slow_response_keeps_its_connection(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.8)
        await respond(send, b"late")

    options = {"keep_alive_timeout": 0.3}
    async with serve(app, tmp_path, **options) as server, connected(server.address) as client:
        assert (await client.get()).body == b"late"


@on_uvloop
async def test_as_many_requests_as_a_connection_may_have(tmp_path: Path) -> None:
    options = {"max_requests_per_connection": 2}
    async with serve(echo, tmp_path, **options) as server, connected(server.address) as client:
        for _ in range(2):
            assert not client.goaways
            assert (await client.get()).status == 200
        assert (await client.gone()).error_code == Code.NO_ERROR
        assert client.goaways


@on_uvloop
async def test_one_connection_more_than_allowed(tmp_path: Path) -> None:
    options = {"max_connections": 1}
    async with serve(echo, tmp_path, **options) as server, connected(server.address) as first:
        await first.get()
        async with connected(server.address) as second:
            assert (await second.get()).status == 200
            assert (await first.gone()).error_code == Code.NO_ERROR


@on_uvloop
async def test_a_broken_connection_is_closed_with_the_reason(tmp_path: Path) -> None:
    async with serve(echo, tmp_path) as server, connected(server.address) as client:
        client.stream().send_raw(b"\x00\x01x")
        assert (await client.gone()).error_code == Code.FRAME_UNEXPECTED


@on_uvloop
async def test_the_access_log(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    options = {"access_log": "on"}
    async with serve(echo, tmp_path, **options) as server, connected(server.address) as client:
        await client.post("/a?b", b"four")
        await client.get("/c", (b"connection", b"close"))
        await client.post("/d", b"", (b"content-length", b"9" * 30))
        await client.post("/e", b"more", (b"content-length", b"1"))
        await client.get("no path")
    lines = [each.getMessage() for each in caplog.records if each.name == "pounce.access"]
    for line, start in zip(
        lines,
        (
            '"POST /a?b HTTP/3" 200 4 ',
            '"GET /c HTTP/3" 400 0 ',
            '"POST /d HTTP/3" 413 0 ',
            '"POST /e HTTP/3" 400 ',
            '"-" 400 0 ',
        ),
        strict=True,
    ):
        assert line.startswith(f"127.0.0.1 {start}")
