"""A client reads the answer that is given before it has sent all of its content."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pounce.application.types import Receive, Scope, Send
from pounce.http1 import linger
from pounce.http1.stream import UNREAD_BODY
from pounce.net.tls import TLS, Certificates, ListenerTLS, TLSFiles
from tests.certificates import Authority
from tests.live import (
    Client,
    LiveServer,
    echo,
    live,
    respond,
    serve,
    serve_in_threads,
    until,
)
from tests.wsgi import handler

PIECE = b"x" * 65_536
CLOSES = b"\r\nconnection: close\r\n"


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Look at no content."""
    await respond(send, b"no", 401)


async def refuse_in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b"no", "more_body": True})
    await send({"type": "http.response.body"})


async def look_and_refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await refuse(scope, receive, send)


def post(length: int, *fields: str) -> bytes:
    """The head of an upload."""
    lines = ["POST / HTTP/1.1", "host: a.example", f"content-length: {length}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


CHUNKED = b"POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times that a test can wait for."""
    monkeypatch.setattr(linger, "LINGER", 0.1)
    monkeypatch.setattr(linger, "INPUT_PAUSE", 0.4)


@live
@pytest.mark.parametrize("app", [refuse, refuse_in_pieces, look_and_refuse])
@pytest.mark.parametrize(
    ("head", "closes"),
    [
        pytest.param(post(UNREAD_BODY + len(PIECE) + 1), True, id="long"),
        pytest.param(post(UNREAD_BODY), False, id="short"),
        pytest.param(post(UNREAD_BODY + len(PIECE) + 1, "expect: 100-continue"), True, id="expect"),
        pytest.param(CHUNKED + b"10000\r\n", True, id="chunked"),
    ],
)
async def test_the_answer_says_whether_the_rest_is_read(
    app: Callable[[Scope, Receive, Send], Awaitable[None]], head: bytes, *, closes: bool
) -> None:
    async with serve(app) as server, await server.connect() as client:
        await client.send(head + PIECE)
        answer = await client.read_until(b"\r\n\r\n")
        if answer.startswith(b"HTTP/1.1 100 "):
            answer = await client.read_until(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert (CLOSES in answer) == closes


@live
@pytest.mark.parametrize("content", [b"", b"5\r\nhello\r\n", b"10000\r\n%b\r\n" % PIECE])
async def test_chunks_that_are_all_here_keep_the_connection(content: bytes) -> None:
    async with serve(refuse) as server, await server.connect() as client:
        for _ in range(2):
            await client.send(CHUNKED + content + b"0\r\n\r\n")
            assert CLOSES not in await client.response()


@live
async def test_a_long_upload_that_is_read_keeps_the_connection() -> None:
    async with serve(echo) as server, await server.connect() as client:
        for _ in range(2):
            await client.send(post(8 * len(PIECE)))
            await asyncio.gather(client.send(8 * PIECE), client.read_until(b"\r\n\r\n"))
            while len(client.received) < 8 * len(PIECE):
                assert await client.more()
            client.received = b""


async def _upload(client: Client, seconds: float) -> None:
    """Send for so long, without a look at the answer."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await client.send(PIECE)
        await asyncio.sleep(0.05)


@live
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_who_goes_on_sending_reads_the_answer_at_last(
    tmp_path: Path, *, secure: bool
) -> None:
    ends = _tls(tmp_path) if secure else None
    async with serve(refuse, tls=ends and ends[0]) as server:
        async with await _connect(server, ends) as client:
            await client.send(post(100_000_000))
            await _upload(client, 2.0)
            assert (await client.response()).startswith(b"HTTP/1.1 401 ")
        await server.departures()


_Ends = tuple[TLS, ssl.SSLContext]


def _tls(directory: Path) -> _Ends:
    """The server's, and the client's context."""
    authority = Authority()
    certificate, key = authority.issue("a.example").write(directory, "a")
    server = ListenerTLS(Certificates(TLSFiles([(str(certificate), str(key))])))
    return server, ssl.create_default_context(cafile=authority.write(directory))


async def _connect(server: LiveServer, ends: _Ends | None) -> Client:
    return await (server.connect_securely(ends[1]) if ends else server.connect())


@live
@pytest.mark.usefixtures("hasty")
async def test_too_much_for_a_thread_is_refused_alike() -> None:
    async with (
        serve_in_threads(handler(None), max_body_size=1000) as server,
        await server.connect() as client,
    ):
        await client.send(CHUNKED)
        for _ in range(20):
            await client.send(b"10000\r\n%b\r\n" % PIECE)
            await asyncio.sleep(0.05)
        answer = await client.response()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert CLOSES in answer


@live
@pytest.mark.usefixtures("hasty")
async def test_who_pauses_too_long_is_dropped() -> None:
    async with serve(refuse) as server, await server.connect() as client:
        await client.send(post(100_000_000) + PIECE)
        await client.response()
        await until(lambda: bool(server.context.ending))
        await server.departures()


@live
async def test_who_never_stops_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linger, "LONGEST", 0.5)
    async with serve(refuse) as server, await server.connect() as client:
        await client.send(post(100_000_000))
        with pytest.raises(ConnectionError):
            await _upload(client, 8.0)
        await server.departures()


@live
@pytest.mark.usefixtures("hasty")
async def test_a_stop_does_not_wait_for_who_never_stops() -> None:
    async with serve(refuse) as server, await server.connect() as client:
        await client.send(post(100_000_000))
        server.context.stopping = True
        with pytest.raises(ConnectionError):
            await _upload(client, 8.0)
        await server.departures()


@live
async def test_those_that_linger_longest_give_way() -> None:
    async with serve(refuse, max_connections=2) as server:
        clients = []
        for _ in range(5):
            clients.append(await server.connect())
            await clients[-1].send(post(100_000_000))
            await clients[-1].response()
            await until(lambda: not server.context.connections)
        assert len(server.context.ending) == 2
        await clients[-1].send(PIECE)
        for client in clients:
            client.sock.close()
        await server.departures()
