"""Timeouts, limits, failing applications and stopping workers, as a client sees them."""

import asyncio
import logging
import re
from typing import Any

import pytest

from pounce.application.types import Receive, Scope, Send
from pounce.asgi import departure
from pounce.http1 import connection as connection_module
from pounce.http1 import linger
from tests.live import GET, Client, LiveServer, echo, hello, live, read_body, serve, until

POST = b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n"


@live
@pytest.mark.parametrize(
    ("option", "sent", "status"),
    [
        ("header_timeout", b"GET / HTTP/1.1\r\nhost", b"408"),
        ("header_timeout", b"", None),
        ("body_timeout", POST, b"408"),
        ("body_timeout", POST + b"he", b"408"),
        ("body_timeout", CHUNKED + b"2\r\nhe\r\n1", b"408"),
        ("keep_alive_timeout", GET, b"200"),
    ],
)
async def test_timeouts_of_input(option: str, sent: bytes, status: bytes | None) -> None:
    options: dict[str, Any] = {option: 0.1}
    async with serve(echo, **options) as server, await server.connect() as client:
        await client.send(sent)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 %b " % status) if status else answer == b""
        assert answer.count(b"HTTP/1.1") == (1 if status else 0)


@live
async def test_a_head_sent_slowly_is_late_as_a_whole() -> None:
    async with serve(hello, header_timeout=0.2) as server, await server.connect() as client:

        async def trickle() -> None:
            for byte in GET[:-1]:
                await client.send(bytes([byte]))
                await asyncio.sleep(0.02)

        trickling = asyncio.ensure_future(trickle())
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        trickling.cancel()
        await asyncio.wait([trickling])


@live
async def test_a_body_sent_slowly_is_not_late() -> None:
    async with serve(echo, body_timeout=0.5) as server, await server.connect() as client:
        await client.send(POST)
        for byte in b"hello":
            await asyncio.sleep(0.15)
            await client.send(bytes([byte]))
        assert (await client.response()).endswith(b"hello")


@live
async def test_an_application_may_take_longer_than_any_timeout() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await asyncio.sleep(0.4)
        await hello(scope, receive, send)

    limits: dict[str, Any] = dict.fromkeys(
        ("header_timeout", "body_timeout", "keep_alive_timeout"), 0.1
    )
    async with serve(app, **limits) as server, await server.connect() as client:
        await client.send(POST + b"hello")
        assert (await client.response()).endswith(b"hello")


@live
async def test_an_application_that_stopped_waiting_is_not_cut() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.05)
        await asyncio.sleep(0.6)
        await hello(scope, receive, send)

    async with serve(app, body_timeout=0.4) as server, await server.connect() as client:
        await client.send(POST)
        assert (await client.response()).startswith(b"HTTP/1.1 200 ")


@live
async def test_a_client_that_stops_reading_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    failures: list[type[BaseException]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        except asyncio.CancelledError as error:
            failures.append(type(error))
            raise

    async with (
        serve(app, write_timeout=0.2) as server,
        await server.connect(receive_buffer=4096) as client,
    ):
        await client.ask()
        await until(lambda: bool(failures))
        assert await client.is_reset()


@live
@pytest.mark.parametrize("waits", [True, False])
async def test_a_client_that_reads_slowly_is_served(*, waits: bool) -> None:
    size = 24_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        # With more to come the application waits for the client, else only the closing does.
        await send({"type": "http.response.body", "body": b"x" * size, "more_body": waits})
        if waits:
            await send({"type": "http.response.body"})

    async with (
        serve(app, write_timeout=0.5) as server,
        await server.connect(receive_buffer=300_000) as client,
    ):
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        received = 0
        while data := await asyncio.get_running_loop().sock_recv(client.sock, 300_000):
            received += len(data)
            await asyncio.sleep(0.01)
        assert received > size


@live
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /%b HTTP/1.1\r\n" % (b"a" * 100), b"414"),
        (b"GET /" + b"a" * 100, b"414"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 300, b"431"),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 5 + b"\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n", b"413"),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\nexpect:100-continue\r\n\r\n",
            b"413",
        ),
        (CHUNKED + b"5\r\nhello\r\n4\r\n", b"413"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", b"501"),
        (CHUNKED + b"zz\r\n", b"400"),
    ],
)
async def test_limits(sent: bytes, status: bytes) -> None:
    limits: dict[str, Any] = {
        "max_request_line": 64,
        "max_header_size": 256,
        "max_header_count": 4,
        "max_body_size": 8,
    }
    async with serve(echo, **limits) as server, await server.connect() as client:
        await client.send(sent)
        answer = await client.response()
        assert answer.startswith(b"HTTP/1.1 %b " % status)
        assert b"\r\nconnection: close\r\n" in answer
        assert await client.rest() == b""
        await client.__aexit__()
        await server.departures()


class Broken(Exception):
    pass


async def fail_before(scope: Scope, receive: Receive, send: Send) -> None:
    raise Broken


async def fail_after_start(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise Broken


async def exit_before(scope: Scope, receive: Receive, send: Send) -> None:
    raise SystemExit(3)


async def return_early(scope: Scope, receive: Receive, send: Send) -> None:
    pass


async def exceed_length(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"three"})


async def fail_within(scope: Scope, receive: Receive, send: Send) -> None:
    await _begin(scope, receive, send)
    raise Broken


async def return_within(scope: Scope, receive: Receive, send: Send) -> None:
    await _begin(scope, receive, send)


async def fall_short(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"tw", "more_body": True})
    await send({"type": "http.response.body", "body": b"o"})


async def _begin(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})


@live
@pytest.mark.parametrize(
    "app", [fail_before, fail_after_start, exit_before, return_early, exceed_length]
)
async def test_a_failure_before_the_head_is_a_500(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(app) as server, await server.connect() as client:
        for _ in range(2):
            assert (await client.get("/where")).startswith(b"HTTP/1.1 500 ")
    first, _ = caplog.records
    assert first.name == "pounce.error"
    assert "GET '/where' from 127.0.0.1:" in first.getMessage()
    assert vars(first)["pounce"]["POUNCE_REQUEST"] == "GET /where"
    assert (first.exc_info is None) == (app is return_early)


@live
@pytest.mark.parametrize("app", [fail_within, return_within, fall_short])
async def test_a_failure_after_the_head_is_a_reset(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(app) as server, await server.connect() as client:
        await client.ask()
        assert await client.is_reset()
        assert b"0\r\n\r\n" not in client.received
        await server.departures()
    (record,) = caplog.records
    assert record.name == "pounce.error"


@live
async def test_an_application_that_leaves_with_its_client_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serve(app) as server:
        async with await server.connect() as client:
            await client.ask()
            await started.wait()
        await server.departures()
    assert not caplog.records


@live
async def test_abort_cancels_the_application(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serve(app) as server, await server.connect() as client:
        await client.ask()
        connection = await server.connection()
        await until(lambda: connection.busy)
        connection.abort()
        await cancelled.wait()
        assert await client.is_reset()
        await server.departures()
    assert not caplog.records


async def _drain(server: LiveServer) -> list[bool]:
    """Drain; the list gets, at each departure, whether everybody has left."""
    departures: list[bool] = []
    server.context.drain(lambda: departures.append(server.context.idle))
    return departures


@live
async def test_drain_closes_a_connection_that_was_idle_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "LIKELY", 0.0)
    async with serve(hello) as server, await server.connect() as client:
        await client.get()
        connection = await server.connection()
        await until(lambda: connection.spare_since <= server.context.loop.time())
        departures = await _drain(server)
        assert await client.rest() == b""
        await server.departures()
        assert departures[-1]


@live
@pytest.mark.parametrize("asks", [True, False])
async def test_drain_answers_a_client_that_was_just_busy_once_more(
    *, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "FIRST_REQUEST", 5.0 if asks else 0.1)
    async with serve(hello) as server, await server.connect() as client:
        await client.get()
        await _drain(server)
        if asks:
            assert b"\r\nconnection: close\r\n" in await client.get()
        assert await client.rest() == b""


@live
async def test_drain_finishes_what_is_in_flight() -> None:
    goes_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await goes_on.wait()
        await hello(scope, receive, send)

    async with serve(app) as server, await server.connect() as client:
        await client.send(GET * 2)
        connection = await server.connection()
        await until(lambda: connection.busy)
        departures = await _drain(server)
        goes_on.set()
        assert b"connection: close" not in await client.response()
        assert b"\r\nconnection: close\r\n" in await client.response()
        assert await client.rest() == b""
        assert True not in departures
        await client.__aexit__()
        await server.departures()
        assert departures[-1]


@live
async def test_drain_finishes_a_response_that_promised_to_keep_alive() -> None:
    goes_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await _begin(scope, receive, send)
        await goes_on.wait()
        await send({"type": "http.response.body"})

    async with serve(app) as server, await server.connect() as client:
        await client.ask()
        await client.read_until(b"part\r\n")
        await _drain(server)
        goes_on.set()
        await client.read_until(b"0\r\n\r\n")
        # It was not told to close, and may ask once more.
        await client.ask()
        assert b"\r\nconnection: close\r\n" in await client.read_until(b"\r\n\r\n")


@live
@pytest.mark.parametrize("asks", [True, False])
async def test_drain_waits_a_little_for_a_first_request(
    *, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "FIRST_REQUEST", 5.0 if asks else 0.1)
    async with serve(hello) as server, await server.connect() as client:
        await server.connection()
        await _drain(server)
        if asks:
            assert b"\r\nconnection: close\r\n" in await client.get()
        assert await client.rest() == b""


@live
async def test_lingering_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linger, "LINGER", 0.2)
    async with serve(hello) as server, await server.connect() as client:
        await client.get("/", "connection: close")
        # The client keeps its side open; the server waits so long for it and no longer.
        assert server.context.ending
        await server.departures()


@live
async def test_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    async with serve(echo, access_log="on") as server:
        await _ask(server, b'GET /a%0a?q=" HTTP/1.1\r\nhost: a\r\n\r\n')
        await _ask(server, b"nonsense\r\n\r\n")
        await _ask(server, CHUNKED + b"nonsense\r\n")
    first, second, third = (record.getMessage() for record in caplog.records)
    assert first.startswith('127.0.0.1 "GET /a%0a?q=\\x22 HTTP/1.1" 200 0 0.0')
    assert second.startswith('127.0.0.1 "-" 400 ')
    assert third.startswith('127.0.0.1 "POST / HTTP/1.1" 400 ')


REFUSED = {
    b"POST /a?b HTTP/1.1\r\nhost: a\r\ncontent-length: 9999\r\n\r\n": (413, "POST /a?b HTTP/1.1"),
    b"GET /a HTTP/1.1\r\n\r\n": (400, "GET /a HTTP/1.1"),
    b"GET /a HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 70_000: (431, "GET /a HTTP/1.1"),
    b"GET /a HTTP/2.0\r\nhost: a\r\n\r\n": (505, "GET /a HTTP/2.0"),
    b"GET https://a/b HTTP/1.1\r\nhost: a\r\n\r\n": (421, "GET https://a/b HTTP/1.1"),
    b"GET /a HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n": (
        400,
        "GET /a HTTP/1.1",
    ),
    b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (b"a" * 9000): (414, "-"),
    b"GET /\x00 HTTP/1.1\r\nhost: a\r\n\r\n": (400, "-"),
    b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n": (400, "-"),
}


@pytest.mark.parametrize("request_", REFUSED)
@live
async def test_the_access_log_has_the_request_line_of_what_is_refused(
    request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    status, line = REFUSED[request_]
    options: dict[str, Any] = {"access_log": "on", "max_body_size": 1000, "forwarded_allow": ()}
    async with serve(echo, **options) as server:
        await _ask(server, request_)
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith(f'127.0.0.1 "{line}" {status} 0 0.0')


@live
async def test_the_access_log_has_the_request_line_of_a_head_that_comes_too_slowly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    options: dict[str, Any] = {"access_log": "on", "header_timeout": 0.1}
    async with serve(echo, **options) as server, await server.connect() as client:
        await client.send(b"GET /a HTTP/1.1\r\nhost: a\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith('127.0.0.1 "GET /a HTTP/1.1" 408 0 0.0')


@live
async def test_an_access_log_for_a_file(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    async with serve(hello, access_log="/a/file") as server, await server.connect() as client:
        await client.send(GET * 3)
        for _ in range(3):
            await client.response()
        await until(lambda: caplog.text.count("GET / HTTP/1.1") == 3)
    for record in caplog.records:
        for line in record.getMessage().splitlines():
            assert re.fullmatch(
                r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} 127\.0\.0\.1"
                r' "GET / HTTP/1\.1" 200 5 0\.\d{6}',
                line,
            )


@live
async def test_no_access_log_by_default(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    async with serve(hello) as server:
        await _ask(server, GET)
    assert not caplog.records


async def _ask(server: LiveServer, request: bytes) -> bytes:
    client: Client
    async with await server.connect() as client:
        await client.send(request)
        return await client.response()
