"""Datagrams find the worker whose connection they are for, or whoever begins one."""

import asyncio
import os
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import pull_quic_transport_parameters

from pounce.application.types import ASGIApp, Receive, Scope, Send
from pounce.http3 import packets
from pounce.http3.connection import HANDSHAKE_TIMEOUT
from pounce.http3.errors import Code
from pounce.http3.quic import MAX_REQUESTS
from pounce.workers import switchboard
from tests.http3 import ConnectionGone, Server, client_configuration, connected, serve
from tests.live import hello, live, respond, until


async def other(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, b"other")


def gated(gate: asyncio.Event) -> ASGIApp:
    """It answers ``old`` once *gate* is open."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await respond(send, b"old")

    return app


class Peer:
    """A socket that sends what it is told, and says what comes back."""

    def __init__(self, server: Server) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.connect(server.address)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    async def ask(self, datagram: bytes) -> bytes:
        self.sock.send(datagram)
        return await asyncio.get_running_loop().sock_recv(self.sock, 65_536)


def first_packet() -> bytes:
    """An Initial packet as far as anybody can see who has not derived its keys."""
    header = b"\xc0\0\0\0\1\x10" + os.urandom(16) + b"\x08" + os.urandom(8)
    return header + b"\0\x44\x84" + os.urandom(1200)


# Clients that move


@live
async def test_a_client_that_changes_its_port(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        server.add(other)
        served = (await client.get()).body
        while not server.mailboxes.passed:
            await client.rebind()
            assert (await client.get()).body == served
        [connection] = [each for worker in server.workers for each in worker.connections]
        await until(lambda: connection.path.client == client.local)


@live
async def test_a_client_that_uses_each_connection_id_at_once(tmp_path: Path) -> None:
    async with (
        serve(hello, tmp_path) as server,
        connected(server.address, restless=True) as client,
    ):
        for _ in range(5):
            assert (await client.get()).body == b"hello"
        assert client.ended is None
        assert client.quic._peer_cid.sequence_number


@live
async def test_a_client_that_moves_while_it_downloads(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
        await gate.wait()
        await send({"type": "http.response.body", "body": b"y" * 500_000})

    async with serve(app, tmp_path) as server, connected(server.address) as client:
        server.add(other)
        exchange = client.start()
        await exchange.body(50_000)
        await client.move()
        gate.set()
        assert (await exchange.result()).body == b"x" * 50_000 + b"y" * 500_000


# Reloads


@live
async def test_a_reload_lets_requests_finish_and_sends_the_next_to_the_new(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serve(gated(gate), tmp_path) as server, connected(server.address) as client:
        exchange = client.start()
        await until(lambda: server.workers[0].context.idle is False)
        old, _ = server.reload(other)
        await client.until(lambda: client.goaways)
        async with connected(server.address) as second:
            assert (await second.get()).body == b"other"
        # The client was on its way before it learned of it.
        late = client.start()
        gate.set()
        assert (await exchange.result()).body == b"old"
        assert (await late.result()).body == b"old"
        assert server.mailboxes.passed > 0
        assert (await client.gone()).error_code == Code.NO_ERROR
        await until(lambda: old.context.idle)


@live
async def test_a_client_that_moves_after_a_reload(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serve(gated(gate), tmp_path) as server, connected(server.address) as client:
        exchange = client.start()
        await until(lambda: not server.workers[0].context.idle)
        server.reload(other)
        await client.move()
        gate.set()
        assert (await exchange.result()).body == b"old"


@live
@pytest.mark.parametrize("later", range(5))
async def test_a_handshake_that_a_reload_comes_upon(tmp_path: Path, later: int) -> None:
    async def get() -> bytes:
        async with connected(server.address) as client:
            return (await client.get()).body

    async with serve(hello, tmp_path) as server:
        [old] = server.workers
        task = asyncio.create_task(get())
        while not old.connections:
            await asyncio.sleep(0)  # every turn: it is over in a few of them
        assert old.connections[0].handshaking
        for _ in range(later):
            await asyncio.sleep(0)
        server.reload(hello)
        assert await task == b"hello"


# Stops


@live
async def test_at_a_stop_nobody_else_reads_the_socket(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serve(gated(gate), tmp_path) as server, connected(server.address) as client:
        [worker] = server.workers
        exchange = client.start()
        await until(lambda: worker.connections[0].busy)
        worker.stop()
        await client.until(lambda: client.goaways)
        begin(server)
        # What came before this datagram has been read.
        await client.ping()
        assert len(worker.connections) == 1
        gate.set()
        assert (await exchange.result()).body == b"old"


@live
async def test_at_a_stop_a_worker_stays_for_those_whose_clients_it_hears(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with serve(gated(gate), tmp_path) as server, connected(server.address) as client:
        server.add()
        exchange = client.start()
        await until(lambda: any(worker.connections for worker in server.workers))
        # The kernel chooses a socket by the client's address: at last it is another worker's.
        while not server.mailboxes.passed:
            await client.move()
            await client.ping()
        [owner] = [worker for worker in server.workers if worker.connections]
        [reader] = [worker for worker in server.workers if not worker.connections]
        for worker in server.workers:
            worker.stop()
        assert reader.switchboard.is_needed()
        gate.set()
        assert (await exchange.result()).body == b"old"
        await until(lambda: owner.context.idle)
        assert not owner.switchboard.is_needed()
        assert not reader.switchboard.is_needed()


# Those who are gone


@live
async def test_the_clients_of_a_worker_that_died_learn_it_at_once(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        await client.get()
        [old] = server.workers
        server._start(old.sock.dup(), other)
        old.switchboard.send = lambda _: None  # type: ignore[method-assign, assignment]
        await old.close()
        with pytest.raises(ConnectionGone):
            await client.get()
        assert client.ended is not None
        assert client.ended.reason_phrase == "stateless reset"


@live
async def test_an_answer_to_a_forgotten_connection(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server:
        [worker] = server.workers
        forgotten = worker.switchboard._ids.make(7)
        datagram = b"\x40" + forgotten + os.urandom(50)
        with Peer(server) as peer:
            answer = await peer.ask(datagram)
            assert len(answer) < len(datagram)
            assert answer.endswith(worker.switchboard._ids.reset_token(forgotten))
            # An id that was never given out, or too small a packet: no answer.
            peer.sock.send(b"\x40" + os.urandom(60))
            peer.sock.send(datagram[:21])
            assert (await peer.ask(datagram)).endswith(answer[-16:])


# Those who begin


@live
async def test_another_version(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server:
        with Peer(server) as peer:
            answer = await peer.ask(b"\xc0\x0a\x0a\x0a\x0a\x08" + b"d" * 8 + b"\x00" + bytes(1200))
        assert answer[1:5] == bytes(4)
        assert len(answer) < 1200


@live
async def test_many_handshakes_at_once_have_to_show_their_address(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server:
        [worker] = server.workers
        for _ in range(64):
            begin(server)
        await until(lambda: len(worker.switchboard._handshakes) == 64)
        async with connected(server.address) as client:
            assert (await client.get()).body == b"hello"
            assert client.quic._retry_count == 1
        assert len(worker.context.connections) == 65


@live
async def test_handshakes_that_were_given_up_are_not_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard, "_RETRY_FROM", 4)
    async with serve(hello, tmp_path) as server:
        [worker] = server.workers
        for _ in range(4):
            begin(server)
        await until(lambda: len(worker.context.connections) == 4)
        worker.context.sweep(asyncio.get_running_loop().time() + HANDSHAKE_TIMEOUT)
        assert not worker.context.connections
        async with connected(server.address) as client:
            assert (await client.get()).body == b"hello"
            assert client.quic._retry_count == 0


@live
async def test_garbage_begins_nothing(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server:
        [worker] = server.workers
        with Peer(server) as peer:
            for _ in range(100):
                peer.sock.send(first_packet())
        async with connected(server.address) as client:
            assert (await client.get()).body == b"hello"
            assert client.quic._retry_count == 0
        assert len(worker.context.connections) == 1


@live
async def test_a_forged_retry_token_begins_nothing(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server:
        with Peer(server) as peer:
            datagram = first_packet()
            forged = datagram[:31] + b"\x20" + os.urandom(32) + b"\x44\x84" + os.urandom(1200)
            assert (await peer.ask(forged))[0] & 0xF0 == 0xF0
        assert not server.workers[0].context.connections


def begin(server: Server, padding: int = 0) -> int:
    """Send a client's first flight and nothing more; its size without *padding*."""
    quic = QuicConnection(configuration=client_configuration())
    now = asyncio.get_running_loop().time()
    quic.connect(server.address, now)
    with Peer(server) as peer:
        flight = [data for data, _ in quic.datagrams_to_send(now)]
        for data in flight:
            peer.sock.send(data + bytes(padding))
        return sum(map(len, flight))


@live
async def test_answers_are_at_most_three_times_as_large_as_the_question(tmp_path: Path) -> None:
    async with serve(hello, tmp_path, header_timeout=1.0) as server:
        sent: list[bytes] = []
        [worker] = server.workers
        send = worker.switchboard._post

        def post(batch: list[bytes], path: Any) -> None:
            sent.extend(batch)
            send(batch, path)

        worker.switchboard._post = post  # type: ignore[method-assign]
        size = begin(server)
        # Until it gives up, it tries again and again to be heard.
        await until(lambda: bool(sent))
        await until(lambda: not worker.context.connections)
        assert sum(map(len, sent)) <= 3 * size


@live
async def test_half_open_connections_are_forgotten(tmp_path: Path) -> None:
    async with serve(hello, tmp_path, header_timeout=0.2) as server:
        [worker] = server.workers
        begin(server)
        await until(lambda: bool(worker.context.connections))
        await until(lambda: worker.context.idle and not worker.switchboard._connections)


# Floods


class Turns:
    """Counts the loop's turns from now on."""

    def __init__(self) -> None:
        self.count = 0
        self._over = False

    def __enter__(self) -> "Turns":
        self._count()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True

    def _count(self) -> None:
        self.count += 1
        if not self._over:
            asyncio.get_running_loop().call_soon(self._count)


@live
async def test_a_flood_of_datagrams_leaves_turns_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(hello, tmp_path) as server:
        [worker] = server.workers
        receive = worker.switchboard._receive
        handled = 0

        def slowly(*arguments: Any) -> None:
            nonlocal handled
            handled += 1
            time.sleep(0.001)  # as if each were work, as those of a handshake are
            receive(*arguments)

        monkeypatch.setattr(worker.switchboard, "_receive", slowly)
        with Peer(server) as peer, Turns() as turns:
            for _ in range(200):
                peer.sock.send(os.urandom(60))
            await until(lambda: handled == 200)
        # Two or three of them take the share of a turn.
        assert turns.count >= 60


@live
async def test_many_connections_with_something_to_do_leave_turns_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = 0

    def slowly(_: float) -> None:
        nonlocal flushed
        flushed += 1
        time.sleep(0.001)

    async with serve(hello, tmp_path) as server:
        [worker] = server.workers
        for _ in range(40):
            begin(server)
        await until(lambda: len(worker.connections) == 40)
        for connection in worker.connections:
            monkeypatch.setattr(connection, "flush", slowly)
            worker.switchboard.schedule(connection)
        with Turns() as turns:
            await until(lambda: flushed >= 40)
        assert turns.count >= 12
        monkeypatch.undo()


@live
async def test_many_requests_at_once_leave_turns_to_others(tmp_path: Path) -> None:
    begun: Counter[int] = Counter()  # requests, by the loop's turn

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun[turns.count] += 1
        time.sleep(0.001)  # as if the application had to work
        await respond(send, scope["path"].encode())

    async with serve(slow, tmp_path) as server, connected(server.address) as client:
        with Turns() as turns:
            exchanges = client.start_all(f"/{number}" for number in range(MAX_REQUESTS))
            answers = [(await each.result()).body for each in exchanges]
    assert answers == [b"/%d" % number for number in range(MAX_REQUESTS)]
    # Two or three of them take the share of a turn.
    assert max(begun.values()) <= 10


@live
async def test_what_was_read_when_a_reload_came_is_still_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel joins datagrams: what the worker had no time for is nowhere else."""
    async with serve(hello, tmp_path) as server:
        [worker] = server.workers
        other = server.add()
        taken: list[bytes] = []

        def slowly(data: bytes, *_: Any) -> None:
            taken.append(data)
            time.sleep(0.001)

        for each in (worker, other):
            monkeypatch.setattr(each.switchboard, "_receive", slowly)
        with Peer(server) as peer:
            peer.sock.setsockopt(socket.SOL_UDP, 103, 20)  # UDP_SEGMENT, <linux/udp.h>
            peer.sock.send(bytes(60 * 20))
            await until(lambda: bool(taken))
            for each in (worker, other):
                each.switchboard.close()
            await until(lambda: len(taken) == 60)


@live
async def test_datagrams_larger_than_clients_are_told_begin_nothing(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address):
        [connection] = server.workers[0].connections
        begin(server, padding=2000)
        async with connected(server.address):  # what came before has been read
            assert len(server.workers[0].connections) == 2
        told = Buffer(data=connection._quic._serialize_transport_parameters())
        assert pull_quic_transport_parameters(told).max_udp_payload_size == 1500


# What nobody should send


@live
async def test_malformed_datagrams(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        await client.get()
        [connection] = server.workers[0].connections
        ours = list(connection._ids)
        with Peer(server) as peer:
            for size in (0, 1, 2, 5, 6, 20, 50, 1200, 1400, 9000):
                for first in (0x00, 0x40, 0x80, 0xC0, 0xE0, 0xF0, 0xFF):
                    peer.sock.send((bytes((first,)) + os.urandom(size))[:size])
                    for connection_id in ours:
                        peer.sock.send(bytes((0x40,)) + connection_id + os.urandom(size))
                        head = b"\0\0\0\1" + bytes((len(connection_id),)) + connection_id
                        peer.sock.send(bytes((first,)) + head + os.urandom(size))
        assert (await client.get()).body == b"hello"


def test_an_initial_is_one() -> None:
    assert packets.initial(first_packet()) is not None
