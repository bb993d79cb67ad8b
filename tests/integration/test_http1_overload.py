"""Clients that take more than their share: of memory, of connections, of belief."""

import asyncio
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from pounce.application.types import Receive, Scope, Send
from pounce.http1 import body
from pounce.http1 import connection as connection_module
from pounce.http1.connection import HTTP1Connection
from pounce.http1.stream import RECEIVE_BUFFER
from tests.live import GET, Client, LiveServer, echo, hello, live, respond, serve, until

POST = b"POST / HTTP/1.1\r\nhost: a.example\r\n%b\r\n\r\n"
SIZE = 100_000


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"x" * SIZE)


async def wait_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def held_up(server: LiveServer, client: Client, requests: int) -> HTTP1Connection:
    """The server's side of *client*, which asks for more than it reads."""
    await client.send(GET * requests)
    connection = await server.connection()
    await until(lambda: connection.write_paused)
    return connection


@live
async def test_responses_that_nobody_reads_hold_up_the_next_request() -> None:
    async with serve(large) as server, await server.connect(receive_buffer=4096) as client:
        connection = await held_up(server, client, 300)
        answered = server.context.requests
        for _ in range(5):
            await client.ask()  # what comes later must not make it go on, either
            await swept(server)
        assert server.context.requests == answered < 300
        assert connection._transport.get_write_buffer_size() < 3 * SIZE
        for _ in range(305):
            assert len(await client.response()) > SIZE


@live
async def test_who_reads_slowly_is_not_idle() -> None:
    timeouts: dict[str, Any] = dict.fromkeys(("keep_alive_timeout", "header_timeout"), 0.1)
    async with (
        serve(large, **timeouts) as server,
        await server.connect(receive_buffer=4096) as client,
    ):
        requests = 300
        await held_up(server, client, requests)
        late = server.context.swept + 0.3
        await until(lambda: server.context.swept > late)
        for _ in range(requests):
            assert len(await client.response()) > SIZE
        # From now on it is.
        assert await client.rest() == b""


@live
async def test_who_reads_nothing_is_dropped() -> None:
    async with (
        serve(large, write_timeout=0.2) as server,
        await server.connect(receive_buffer=4096) as client,
    ):
        await held_up(server, client, 300)
        await server.departures()
        assert await client.is_reset()


@live
async def test_a_client_that_has_left_before_it_had_a_name_is_not_served() -> None:
    # It would look like the peer of a unix socket, who is believed.
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await hello(scope, receive, send)

    loop = asyncio.get_running_loop()
    async with serve(app) as server:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with socket.create_connection(listener.getsockname()) as sock:
                sock.sendall(GET.replace(b"\r\n\r\n", b"\r\nx-forwarded-for: 192.0.2.1\r\n\r\n"))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted, _ = listener.accept()
        await loop.connect_accepted_socket(lambda: HTTP1Connection(server.context), accepted)
        await server.departures()
    assert not seen


@live
async def test_one_connection_too_many_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serve(wait_for_ever, max_connections=1) as server,
        await server.connect() as first,
    ):
        await first.ask()
        await until(lambda: any(each.busy for each in server.context.connections))
        for _ in range(3):
            async with await server.connect() as second:
                answer = await second.rest()
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nretry-after: " in answer
        await until(lambda: "max_connections (1)" in caplog.text)
        assert "refused with 503" in caplog.text


@live
async def test_who_is_silent_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        serve(hello, max_connections=2) as server,
        await server.connect() as kept,
        await server.connect() as silent,
    ):
        await kept.get()
        await swept(server)
        async with await server.connect() as newcomer:
            assert await silent.rest() == b""
            assert (await newcomer.get()).startswith(b"HTTP/1.1 200 ")
            await kept.get()
            await swept(server)
            # Both have asked for something a moment ago, so it is the newcomer who has to go.
            async with await server.connect() as another:
                assert (await another.rest()).startswith(b"HTTP/1.1 503 ")
            monkeypatch.setattr(connection_module, "LIKELY", 0.0)
            await newcomer.get()  # so that the other one has been idle for longer
            await swept(server)
            async with await server.connect() as another:
                await another.get()
            assert await kept.rest() == b""


async def swept(server: LiveServer) -> None:
    """Return once the next sweep is over."""
    before = server.context.swept
    await until(lambda: server.context.swept > before)


@live
async def test_a_connection_that_is_refused_takes_no_place() -> None:
    async with serve(wait_for_ever, max_connections=4) as server:
        busy = [await server.connect() for _ in range(4)]
        for each in busy:
            await each.ask()
        await until(lambda: sum(each.busy for each in server.context.connections) == 4)
        # None of them closes its side, so the server has to wait a while.
        refused = [await server.connect() for _ in range(12)]
        answers = [each for each in refused if not await gone_without_a_word(each)]
        assert len(answers) == 4, "of a flood, only so many are told"
        assert len(server.context.ending) == 4
        busy.pop().sock.close()
        await until(lambda: len(server.context.connections) == 3)
        async with await server.connect() as newcomer:
            await newcomer.ask()
            await until(lambda: sum(each.busy for each in server.context.connections) == 4)
        for each in busy + refused:
            each.sock.close()


async def gone_without_a_word(client: Client) -> bool:
    try:
        return await client.rest() == b""
    except ConnectionResetError:
        return True


@live
async def test_content_that_nobody_read_does_not_stop_the_reading(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        await hello(scope, receive, send)

    # Over a unix socket all of it comes at once, while the application has not answered.
    path = str(tmp_path / "s")
    async with serve(app, path=path) as server, await server.connect() as client:
        size = 2 * RECEIVE_BUFFER
        chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
        await client.send(POST % b"transfer-encoding: chunked" + chunk + b"0\r\n\r\n")
        await client.response()
        assert (await client.get()).endswith(b"hello")


@live
@pytest.mark.parametrize("reads", [True, False])
async def test_many_small_chunks_leave_others_their_turn(
    tmp_path: Path, *, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    chunks = 10_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal turns
        if scope["method"] == "POST":
            await asyncio.sleep(0.05)  # until all has come
            turns = 0
        await (echo if reads else hello)(scope, receive, send)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(body, "_MOST_CHUNKS", 100)
    async with serve(app, path=str(tmp_path / "s")) as server, await server.connect() as client:
        busy = asyncio.create_task(others())
        await client.send(POST % b"transfer-encoding: chunked" + b"1\r\nx\r\n" * chunks)
        await client.send(b"0\r\n\r\n" + GET)
        for _ in range(2):
            await client.response()
        assert turns >= chunks // 100
        busy.cancel()
        await asyncio.wait([busy])
