"""Clients that begin connections over HTTP/3 and ask for nothing make room for others."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection

from pounce.application.types import Receive, Scope, Send
from pounce.workers import switchboard
from tests.http3 import Server, client_configuration, connected, serve
from tests.live import hello, live, until

FLOODER = "127.0.0.2"


@contextmanager
def half_open(server: Server, address: str = FLOODER) -> Iterator[None]:
    """A client that begins a handshake, and does no more than to answer a Retry."""
    loop = asyncio.get_running_loop()
    quic = QuicConnection(configuration=client_configuration())
    quic.connect(server.address, loop.time())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.connect(server.address)
        sock.setblocking(False)

        def send() -> None:
            for data, _ in quic.datagrams_to_send(loop.time()):
                sock.send(data)

        def answer() -> None:
            data = sock.recv(65_536)
            if data[0] & 0xF0 == 0xF0:  # a Retry packet of version 1, RFC 9000 section 17.2.5
                quic.receive_datagram(data, server.address, loop.time())
                send()

        loop.add_reader(sock.fileno(), answer)
        send()
        try:
            yield
        finally:
            loop.remove_reader(sock.fileno())


def handshakes(server: Server) -> int:
    return len(server.workers[0].switchboard._handshakes)


async def under_way(server: Server, count: int) -> None:
    """Wait for so many handshakes."""
    await until(lambda: handshakes(server) >= count)


def limit(monkeypatch: pytest.MonkeyPatch, retry_from: int, most: int) -> None:
    monkeypatch.setattr(switchboard, "_RETRY_FROM", retry_from)
    monkeypatch.setattr(switchboard, "_MAX_HANDSHAKES", most)


@live
async def test_one_address_cannot_take_all_handshakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    limit(monkeypatch, retry_from=4, most=40)
    async with serve(hello, tmp_path) as server:
        with ExitStack() as stack:
            for number in range(60):
                stack.enter_context(half_open(server))
                await under_way(server, min(number + 1, 40))
            for _ in range(5):
                async with connected(server.address) as client:
                    assert (await client.get()).body == b"hello"
                    assert client.quic._retry_count == 1
            assert handshakes(server) <= 40
            await until(lambda: "closed without a request" in caplog.text)
    [record] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.getMessage().startswith("more HTTP/3 handshakes than 40 at once: ")


@live
async def test_forged_addresses_are_to_nobodys_disadvantage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can begin handshakes in the name of an address, but not answer a Retry there."""
    limit(monkeypatch, retry_from=20, most=21)
    async with serve(hello, tmp_path) as server:
        with ExitStack() as stack:
            for number in range(20):
                stack.enter_context(half_open(server, "127.0.0.1"))
                await under_way(server, number + 1)
            stack.enter_context(half_open(server, "127.0.0.1"))
            await until(lambda: handshakes(server) == 21)
            [proven] = [
                each
                for each in server.workers[0].connections
                if each._quic._retry_source_connection_id
            ]
            stack.enter_context(half_open(server, "127.0.0.3"))
            # One of the unproven goes, not the only one that is known to be at 127.0.0.1.
            await until(lambda: len(server.workers[0].connections) == 21)
            assert proven.handshaking


@live
async def test_handshakes_make_room_where_max_connections_is_reached(tmp_path: Path) -> None:
    async with serve(hello, tmp_path, max_connections=3) as server:
        with ExitStack() as stack:
            for number in range(3):
                stack.enter_context(half_open(server))
                await under_way(server, number + 1)
            async with connected(server.address) as client:
                assert (await client.get()).body == b"hello"
        assert len(server.workers[0].connections) <= 3


@live
async def test_connections_without_a_request_make_room(tmp_path: Path) -> None:
    async with (
        serve(hello, tmp_path, max_connections=2) as server,
        connected(server.address) as asking,
        connected(server.address) as silent,
    ):
        assert (await asking.get()).body == b"hello"
        await until(lambda: len(server.workers[0].connections) == 2)
        first_moments = asyncio.get_running_loop().time() + 1.1
        await until(lambda: asyncio.get_running_loop().time() > first_moments)
        async with connected(server.address) as client:
            assert (await client.get()).body == b"hello"
        await silent.gone()
        assert (await asking.get()).body == b"hello"


@live
async def test_where_all_are_busy_the_log_says_who_was_refused(tmp_path: Path, caplog: Any) -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await hello(scope, receive, send)

    async with (
        serve(app, tmp_path, max_connections=1) as server,
        connected(server.address) as client,
    ):
        exchange = client.start()
        await until(lambda: server.workers[0].connections[0].busy)
        with half_open(server):
            await until(lambda: "refused without an answer" in caplog.text)
        assert handshakes(server) == 0
        gate.set()
        assert (await exchange.result()).body == b"hello"
    [record] = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.getMessage().startswith("more connections than max_connections (1) ")
