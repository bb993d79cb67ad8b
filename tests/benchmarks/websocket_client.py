"""Sends on N connections a text and waits for its echo, again and again.

    websocket_client.py PORT CONNECTIONS SECONDS SIZE

It prints how many came back, and in how many seconds.
"""

import asyncio
import sys
import time
from typing import cast

import uvloop

REQUEST = (
    b"GET /talk HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MASK = b"\x01\x02\x03\x04"


class Client(asyncio.Protocol):
    """One connection; *size* is below 126, so that a frame's head is two bytes."""

    def __init__(self, size: int) -> None:
        text = b"x" * size
        masked = bytes(octet ^ MASK[index % 4] for index, octet in enumerate(text))
        self.frame = bytes((0x81, 0x80 | size)) + MASK + masked
        self.echo = bytes((0x81, size)) + text
        self.echoes = 0
        self.open = False
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.open:
            head, end, self.received = self.received.partition(b"\r\n\r\n")
            self.open = bool(end)
            if self.open and b" 101 " not in head:
                raise ConnectionError(head)
            self.transport.write(self.frame if self.open else b"")
        elif self.received == self.echo:
            self.received = b""
            self.echoes += 1
            self.transport.write(self.frame)
        elif not self.echo.startswith(self.received):
            raise ConnectionError(self.received)


async def main(port: int, connections: int, seconds: float, size: int) -> None:
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Client(size), "127.0.0.1", port)
        for _ in range(connections)
    ]
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    echoes = [client.echoes for _, client in made]
    if not all(echoes):
        raise ConnectionError(f"{echoes.count(0)} connections got no echo")
    sys.stdout.write(f"{sum(echoes)} {time.perf_counter() - started}\n")


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
