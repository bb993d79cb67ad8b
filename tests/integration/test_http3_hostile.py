"""Clients that mean no good over HTTP/3: memory stays bounded, and others are served."""

import asyncio
import os
from functools import partial
from pathlib import Path

import pytest
from aioquic.buffer import encode_uint_var

from pounce.application.types import Receive, Scope, Send
from pounce.http3.engine import HTTP3Reader
from pounce.http3.errors import Code
from pounce.http3.frames import Type, encode_frame
from pounce.http3.quic import MAX_REQUESTS
from tests.http3 import Server, connected, on_uvloop, serve
from tests.live import hello, read_body, respond, until


async def others_are_served(server: Server) -> None:
    async with connected(server.address) as client:
        assert (await client.get()).body == b"hello"


def connections(server: Server) -> int:
    return len(server.workers[0].connections)


@on_uvloop
async def test_more_streams_than_allowed(tmp_path: Path) -> None:
    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    async with serve(never, tmp_path) as server, connected(server.address) as client:
        for _ in range(MAX_REQUESTS + 50):
            client.start()
        [connection] = server.workers[0].connections
        await until(lambda: len(connection._streams) == MAX_REQUESTS)
        # One that does not care for the limit is not heard any further.
        client.quic._remote_max_streams_bidi = 10_000
        client.quic._unblock_streams(is_unidirectional=False)
        client.transmit()
        assert (await client.gone()).error_code == 4  # STREAM_LIMIT_ERROR, RFC 9000 section 20.1
        await until(lambda: connections(server) == 0)


@on_uvloop
async def test_requests_that_are_given_up_at_once(tmp_path: Path) -> None:
    started = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal started
        started += 1
        while (await receive())["type"] != "http.disconnect":
            pass

    def has_started(requests: int) -> bool:
        return started == requests

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        [connection] = server.workers[0].connections
        for round_ in range(6):
            exchanges = [client.start(method="POST", ended=False) for _ in range(50)]
            await until(partial(has_started, 50 * (round_ + 1)))
            for exchange in exchanges:
                client.quic.reset_stream(exchange.stream_id, Code.REQUEST_CANCELLED)
                client.quic.stop_stream(exchange.stream_id, Code.REQUEST_CANCELLED)
            client.transmit()
            await until(lambda: not connection.busy)
        await until(lambda: not server.workers[0].context.tasks)
        assert len(connection._quic._streams) < MAX_REQUESTS + 20


@on_uvloop
async def test_requests_that_have_ended_leave_nothing_behind(tmp_path: Path) -> None:
    """A connection may last for days."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await respond(send, await read_body(receive) or b"")

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        [connection] = server.workers[0].connections
        for _ in range(30):
            exchange = client.start(method="POST", ended=False)
            exchange.send(b"begin")
            await client.ping()  # it has been read, and its stream goes on
            exchange.send(b"end", ended=True)
            await exchange.result()
        await until(lambda: not connection.busy)
        await client.ping()
        assert len(connection._quic._consumed) < 10
        assert len(connection._quic._streams) < 10


BOMBS = {
    # A reference to the static table is one byte, and stands for up to 60.
    "references": b"\0\0" + b"\xdd" * 30_000,
    "an enormous integer": b"\0\0\xff" + b"\xff" * 20 + b"\x7f",
    "an enormous name": b"\0\0\x27" + b"\xff" * 9 + b"\x01",
    "the dynamic table": b"\x05\x00" + b"\x80" * 1000,
    "noise": os.urandom(5000),
}


@pytest.mark.parametrize("name", BOMBS)
@on_uvloop
async def test_bombs_of_fields(name: str, tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        exchange = client.stream()
        exchange.send_raw(encode_frame(Type.HEADERS, BOMBS[name]), ended=True)
        await until(lambda: exchange.response.status == 431 or client.ended is not None)
        await others_are_served(server)


@on_uvloop
async def test_fields_without_an_end(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        exchange = client.stream()
        exchange.send_raw(encode_uint_var(Type.HEADERS) + encode_uint_var(1 << 40) + bytes(9000))
        assert (await exchange.result()).status == 431


@on_uvloop
async def test_an_encoder_stream_that_fills_the_table(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        # Set Dynamic Table Capacity, RFC 9204 section 4.3.1, on the client's encoder stream.
        client.quic.send_stream_data(6, b"\x3f\xe1\xff\x03")
        client.transmit()
        assert (await client.gone()).error_code == Code.QPACK_ENCODER_STREAM_ERROR
        await others_are_served(server)


@on_uvloop
async def test_a_control_stream_without_an_end(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        for _ in range(100):  # grease, RFC 9114 section 7.2.8, may go on for ever
            client.quic.send_stream_data(2, encode_frame(0x21, bytes(5000)))
            client.transmit()
            assert (await client.get()).body == b"hello"
        client.quic.send_stream_data(2, encode_uint_var(Type.MAX_PUSH_ID) + encode_uint_var(9999))
        client.transmit()
        assert (await client.gone()).error_code == Code.EXCESSIVE_LOAD


@on_uvloop
async def test_clients_that_send_without_being_read(tmp_path: Path) -> None:
    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(60)

    async with serve(deaf, tmp_path) as server, connected(server.address) as client:
        for _ in range(10):
            client.start(method="POST", ended=False).send(b"x" * 500_000)
        [connection] = server.workers[0].connections
        await until(lambda: connection._quic._local_max_data.used > 1_000_000)
        await client.ping()  # its answer comes after all that the server has to say to that
        assert connection._quic._local_max_data.used <= 1_048_576
        assert sum(stream._buffered for stream in connection._streams.values()) <= 1_048_576


@on_uvloop
async def test_packets_with_holes(tmp_path: Path) -> None:
    """Each range of packet numbers is remembered until it is acknowledged."""
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        await client.get()
        [connection] = server.workers[0].connections
        for _ in range(200):
            client.quic._packet_number += 1
            client.quic.send_ping(1)
            client.transmit()
        assert (await client.get()).body == b"hello"
        spaces = connection._quic._spaces.values()
        assert max(len(space.ack_queue) for space in spaces) <= 32


@on_uvloop
async def test_a_mistake_of_the_server_ends_one_connection_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def mistake() -> HTTP3Reader:
        raise ZeroDivisionError

    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        await client.get()
        [connection] = server.workers[0].connections
        connection.engine.request_reader = mistake  # type: ignore[method-assign]
        client.start()
        await until(lambda: connections(server) == 0)
        await others_are_served(server)
    [record] = [each for each in caplog.records if each.name == "pounce.worker"]
    assert record.getMessage().startswith("the HTTP/3 connection of 127.0.0.1:")
    assert record.levelname == "ERROR"
    assert "ZeroDivisionError" in caplog.text
