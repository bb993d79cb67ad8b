"""Datagrams from strangers, more than there is time for: those who are connected are served."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from aioquic.quic.connection import QuicConnection

from pounce.workers.gate import _SETTLING, Arrival, Gate
from tests.http3 import Server, client_configuration, connected, serve
from tests.live import hello, live, until

AT_ONCE = 500

# <asm-generic/socket.h>; its first number is the size of what waits, with the kernel's own part.
_SO_MEMINFO = 55


def garbage() -> bytes:
    return os.urandom(1200)


def undecipherable() -> bytes:
    """An Initial packet (RFC 9000 section 17.2.2) that nobody can have made with its keys."""
    return b"\xc0\x00\x00\x00\x01\x08" + os.urandom(8) + b"\x00\x00\x44\x80" + os.urandom(1200)


def client_hello() -> bytes:
    quic = QuicConnection(configuration=client_configuration())
    quic.connect(("127.0.0.1", 1), 0.0)
    return quic.datagrams_to_send(0.0)[0][0]


def gate(server: Server) -> Gate:
    return server.workers[0].switchboard._gate


def queued(server: Server) -> int:
    """The size of what the worker has yet to read."""
    sock = server.workers[0].switchboard._ports.all[0]._sock
    [size] = struct.unpack("I", sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4))
    return int(size)


def flood(server: Server, datagrams: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.2", 0))
        for number in range(AT_ONCE):
            sock.sendto(datagrams[number % len(datagrams)], server.address)


def oversized() -> bytes:
    """As `undecipherable`, and larger than what a client may send."""
    return undecipherable() + bytes(1000)


@pytest.mark.parametrize("make", [garbage, oversized, undecipherable, client_hello])
@live
async def test_a_flood_of_strangers(make: Callable[[], bytes], tmp_path: Path) -> None:
    datagrams = [make() for _ in range(50)]
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        for _ in range(20):
            flood(server, datagrams)
            assert (await client.get()).body == b"hello"
        assert len(server.workers[0].connections) < 70
        # When the flood is over, the kernel keeps everything again, and new clients come in.
        await until(lambda: gate(server)._chances.all)
        async with connected(server.address) as another:
            assert (await another.get()).body == b"hello"


@pytest.mark.parametrize("make", [garbage, oversized, undecipherable])
@live
async def test_the_kernel_drops_most_of_a_flood(make: Callable[[], bytes], tmp_path: Path) -> None:
    datagrams = [make() for _ in range(50)]
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        while min(gate(server)._chances[:3]) > 0.1:
            flood(server, datagrams)
            await asyncio.sleep(0)
        before = queued(server)
        flood(server, datagrams)
        assert queued(server) - before < AT_ONCE // 2 * len(datagrams[0])
        assert (await client.get()).body == b"hello"


@live
async def test_strangers_wait_until_what_has_come_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        assert (await client.get()).body == b"hello"
        port = server.workers[0].switchboard._ports.all[0]
        let_in = gate(server)._let_in
        backlogs: list[float] = []

        def watch(arrival: Arrival) -> None:
            backlogs.append(port.backlog)
            let_in(arrival)

        monkeypatch.setattr(gate(server), "_let_in", watch)
        flood(server, [undecipherable() for _ in range(50)])  # more than a turn's work
        assert (await client.get()).body == b"hello"
        await until(lambda: len(backlogs) > 0)
        assert not [backlog for backlog in backlogs if 0.0 < backlog < _SETTLING]


@live
async def test_one_network_floods_at_its_own_expense(tmp_path: Path) -> None:
    datagrams = [undecipherable() for _ in range(50)]
    async with serve(hello, tmp_path) as server:
        while gate(server)._louds.chance > 0.1:
            flood(server, datagrams)
            await asyncio.sleep(0)
        assert gate(server)._loud == socket.inet_aton("127.0.0.2")
        async with connected(server.address) as client:
            assert (await client.get()).body == b"hello"
        await until(lambda: gate(server)._chances.all)


@live
async def test_clients_that_all_come_at_once_are_no_flood(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server:
        for _ in range(40):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(client_hello(), server.address)
        await until(lambda: len(server.workers[0].connections) == 40)
        assert not gate(server).flooded
