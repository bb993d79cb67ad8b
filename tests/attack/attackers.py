"""The attackers of our own: `python -m tests.attack.attackers NAME HOST:PORT AMOUNT`.

Each is a program, so that what it costs the CPU is not taken for a delay of the clients that the
test watches. It prints as JSON what it has seen, and fails if that is not what has to come of it.
"""

import asyncio
import itertools
import json
import re
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from pounce.net.address import Address
from tests.load.background import new_event_loop

Seen = Counter[str]
Attacker = Callable[[Address, int], Coroutine[Any, Any, Seen]]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
_BIND_ADDRESS_NO_PORT = 24  # ip(7); the socket module knows it from 3.12 on
_RESET = struct.pack("ii", 1, 0)
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
CROWD = 2000
"""How many connections a crowd keeps open; more could be more than its own descriptors."""


class Wire:
    """One connection, of which there may be many thousands in a second."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, address: Address, number: int = 0, receive_buffer: int = 0) -> "Wire":
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        # A client address has 28,000 ports, each of which rests for a minute after a connection.
        sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.{1 + number % 16}.1", 0))
        await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
        return cls(sock)

    async def send(self, data: bytes) -> bool:
        """Send; false once the server has had enough."""
        try:
            await self._loop.sock_sendall(self.sock, data)
        except OSError:
            return False
        return True

    async def receive(self) -> bytes:
        """What has come; nothing at the end, however it ends."""
        with suppress(OSError):
            return await self._loop.sock_recv(self.sock, 262_144)
        return b""

    async def status(self) -> str:
        """The status of the response, or ``end`` if the connection ends without one."""
        match = _STATUS.match(await self.receive())
        return match[1].decode() if match else "end"

    def close(self, *, reset: bool = False) -> None:
        if reset:
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()


async def side_by_side(workers: int, jobs: range, do: Callable[[int], Awaitable[str]]) -> Seen:
    """Do all *jobs*, that many at a time; counts what they return."""
    seen: Seen = Counter()
    queue = iter(jobs)

    async def work() -> None:
        for job in queue:
            seen[await do(job)] += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return seen


async def connect_and_drop(address: Address, amount: int) -> Seen:
    """Connections that are closed or reset at once, or within or after a request."""
    sent = (b"", b"GET / HT", GET, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
    ways = list(itertools.product(sent, (False, True)))

    async def drop(number: int) -> str:
        data, reset = ways[number % len(ways)]
        wire = await Wire.open(address, number)
        if data:
            await wire.send(data)
        wire.close(reset=reset)
        return "reset" if reset else "closed"

    return await side_by_side(32, range(amount), drop)


async def pipeline(address: Address, amount: int) -> Seen:
    """Tiny pipelined requests on 10 connections, each of whose answers is looked at."""
    pieces, size = 10, amount // 10

    async def one(number: int) -> str:
        wire = await Wire.open(address, number)
        sending = asyncio.create_task(send(wire, number))
        expected, buffer = 0, b""
        while expected < size:
            data = await wire.receive()
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\r\n")
            for line in lines:
                if line.startswith(b"x-nonce: "):
                    assert line == b"x-nonce: %d-%d" % (number, expected), line
                    expected += 1
        await sending
        wire.close()
        assert expected == size, f"{expected} answers to {size} requests"
        return "connection served"

    async def send(wire: Wire, number: int) -> None:
        request = b"GET / HTTP/1.1\r\nHost: a\r\nX-Nonce: %d-%d\r\n\r\n"
        for first in range(0, size, 500):
            last = min(first + 500, size)
            await wire.send(b"".join(request % (number, each) for each in range(first, last)))

    return await side_by_side(pieces, range(pieces), one)


async def pipeline_unread(address: Address, amount: int) -> Seen:
    """Pipelined requests for much, on connections whose client reads nothing of it."""
    requests = b"GET /large?size=1000000 HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
    wires = [await Wire.open(address, each, receive_buffer=4096) for each in range(amount)]

    async def send(number: int) -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                while await wires[number].send(requests):
                    pass
        return "held up"

    seen = await side_by_side(amount, range(amount), send)
    for wire in wires:
        wire.close(reset=True)
    return seen


async def header_flood(address: Address, amount: int) -> Seen:
    """Heads without end: fields, one long field, a long request line; and heads at the limit."""
    start = b"GET / HTTP/1.1\r\nHost: a\r\n"
    field = b"x-flood: " + b"y" * 500 + b"\r\n"
    floods = {
        "431": (start, field * 100),
        "431 ": (start + b"x: ", b"y" * 65_536),
        "414": (b"GET /", b"a" * 65_536),
        "200": (start + field * 90 + b"\r\n", b""),
    }

    async def flood(number: int) -> str:
        (status, (data, more)) = list(floods.items())[number % len(floods)]
        wire = await Wire.open(address, number)
        going = await wire.send(data)
        for _ in range(4 if more else 0):
            going = going and await wire.send(more)
        found = await wire.status()
        wire.close(reset=True)
        # Who goes on sending may be reset before it reads what it is told.
        assert found in (status.strip(), "end" if more else ""), f"{found}, not {status}"
        return found

    return await side_by_side(16, range(amount), flood)


async def chunk_flood(address: Address, amount: int) -> Seen:
    """Content in chunks of one byte, on 4 connections."""
    head = b"POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"1\r\nx\r\n" * 10_000

    async def upload(number: int) -> str:
        wire = await Wire.open(address, number)
        await wire.send(head)
        for _ in range(amount // 40_000):
            await wire.send(piece)
        await wire.send(b"0\r\n\r\n")
        found = await wire.status()
        wire.close()
        assert found == "200", found
        return found

    return await side_by_side(4, range(4), upload)


async def crowd(address: Address, amount: int) -> Seen:
    """More connections than may be, each with half a head; whoever is refused comes again."""
    held: deque[Wire] = deque()

    async def push(number: int) -> str:
        try:
            wire = await Wire.open(address, number)
        except ConnectionResetError:  # of a flood, not everybody is told
            return "reset"
        await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nx-half: ")
        answer = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                answer = await wire.receive()
                if answer.startswith(b"HTTP/1.1 503 "):
                    assert b"\r\nretry-after: " in answer
                    wire.close()
                    return "503"
                wire.close()
                return "end"
        held.append(wire)
        if len(held) > CROWD:
            held.popleft().close()
        return "held"

    seen = await side_by_side(64, range(amount), push)
    for wire in held:
        wire.close()
    return seen


async def download(address: Address, amount: int) -> Seen:
    """Endless responses, read as fast as they come, on 4 connections for *amount* seconds."""
    end = time.monotonic() + amount

    async def read(number: int) -> str:
        wire = await Wire.open(address, number)
        # Small pieces a client reads faster than they are made: writing never has to wait.
        size = (100, 65_536)[number % 2]
        await wire.send(b"GET /flood?size=%d HTTP/1.1\r\nHost: a\r\n\r\n" % size)
        received = 0
        while time.monotonic() < end and (data := await wire.receive()):
            received += len(data)
        wire.close(reset=True)
        assert time.monotonic() >= end, "the response has ended"
        return "fed" if received else "starved"

    return await side_by_side(4, range(4), read)


ATTACKERS: dict[str, Attacker] = {
    each.__name__: each
    for each in (
        connect_and_drop,
        pipeline,
        pipeline_unread,
        header_flood,
        chunk_flood,
        crowd,
        download,
    )
}


def main(name: str, address: str, amount: str) -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        seen = runner.run(ATTACKERS[name](Address.parse(address), int(amount)))
    print(json.dumps(seen))  # noqa: T201 - for the one that started it


if __name__ == "__main__":
    main(*sys.argv[1:])
