"""Nothing crosses from one request to another, whatever clients and applications do.

Each request has a token of its own in its path, a header and its content; the application says
409 where they differ, and each response must consist of nothing but its request's token.
"""

import asyncio
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.apps.attack import KINDS, REPETITIONS
from tests.service import serving

PROJECT = Path(__file__).parents[2]
CLIENTS = 32
BATCHES = 15
DEADLINE = 50.0

_RESET = struct.pack("ii", 1, 0)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")
_TOKEN = re.compile(rb"\r\nx-token: (\w+)\r\n")


@dataclass(frozen=True, slots=True)
class Request:
    token: bytes
    data: bytes


class Requests:
    """All the different requests of one client."""

    def __init__(self, number: int) -> None:
        self.choice = random.Random(number)
        self._tokens = (b"c%03dr%06d" % (number, each) for each in range(1_000_000))

    def batch(self) -> list[Request]:
        requests = [self._request() for _ in range(self.choice.randint(1, 12))]
        # Some come more than once, to the letter.
        return [each for each in requests for _ in range(self.choice.choice([1, 1, 1, 4]))]

    def _request(self) -> Request:
        token, kind = next(self._tokens), self.choice.choice(list(KINDS))
        lines = [
            b"/token/%b/%b HTTP/1.1" % (token, kind.encode()),
            b"host: a",
            b"x-token: " + token,
        ]
        body = token * self.choice.choice([0, 1, 100, 20_000])
        if not body:
            return Request(token, b"GET " + b"\r\n".join(lines) + b"\r\n\r\n")
        if self.choice.random() < 0.5:
            lines.append(b"content-length: %d" % len(body))
        else:
            lines.append(b"transfer-encoding: chunked")
            body = b"".join(self._chunks(body)) + b"0\r\n\r\n"
        return Request(token, b"POST " + b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def _chunks(self, body: bytes) -> Iterator[bytes]:
        size = len(body) // self.choice.randint(1, 5) + 1
        for at in range(0, len(body), size):
            piece = body[at : at + size]
            yield b"%x\r\n%b\r\n" % (len(piece), piece)


class Client:
    """Sends batch after batch, and breaks off some of them."""

    def __init__(self, address: Address, number: int) -> None:
        self.seen: Counter[str] = Counter()
        self._address = address
        self._requests = Requests(number)
        self._choice = self._requests.choice

    async def run(self) -> None:
        left = BATCHES
        while left:
            reader, writer = await asyncio.open_connection(self._address.host, self._address.port)
            try:
                while left:
                    left -= 1
                    if not await self._batch(reader, writer):
                        break
            finally:
                writer.transport.abort()

    async def _batch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used further."""
        batch = self._requests.batch()
        data = b"".join(each.data for each in batch)
        breaks_off = self._choice.random() < 0.3
        if breaks_off:
            data = data[: self._choice.randrange(1, len(data))]
        sending = asyncio.create_task(self._send(writer, data))
        # Who breaks off reads some of what is due, or nothing, and leaves in one way or another.
        due = batch[: self._choice.randint(0, len(batch))] if breaks_off else batch
        try:
            async with asyncio.timeout(0.05 if breaks_off else DEADLINE):
                for each in due:
                    if not await self._check(reader, each):
                        return False
        except TimeoutError:
            assert breaks_off, "no answer"
        finally:
            sending.cancel()
            await asyncio.wait([sending])
        if breaks_off:
            self._leave(writer)
            self.seen["broken off"] += 1
        return not breaks_off

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        with suppress(ConnectionError):
            while data:
                size = self._choice.choice([1, 100, 10_000, 1_000_000])
                writer.write(data[:size])
                data = data[size:]
                await writer.drain()

    async def _check(self, reader: asyncio.StreamReader, request: Request) -> bool:
        """Read one response; whether another may follow."""
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert _TOKEN.findall(head) == [request.token], head
        length = _LENGTH.search(head)
        body = await (reader.readexactly(int(length[1])) if length else _chunked(reader))
        assert body == request.token * REPETITIONS, body[:100]
        self.seen["answered"] += 1
        return b"\r\nconnection: close\r\n" not in head

    def _leave(self, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        if self._choice.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return body


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_nothing_crosses_from_one_request_to_another(loop: str, tmp_path: Path) -> None:
    async def main(address: Address) -> Counter[str]:
        clients = [Client(address, number) for number in range(CLIENTS)]
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run())
        return sum((client.seen for client in clients), Counter())

    flags = ("--loop", loop, "--workers", "2")
    with serving(tmp_path, *flags, app="tests.apps.attack:app", apps=PROJECT) as service:
        seen = asyncio.run(main(service.address))
        assert "ERROR" not in service.log, service.log
    assert seen["answered"] > CLIENTS * BATCHES
    assert seen["broken off"] > CLIENTS
