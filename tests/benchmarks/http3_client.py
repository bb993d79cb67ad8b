"""An HTTP/3 client: PORT PATH CONNECTIONS SECONDS; writes responses, bytes, and seconds taken.

Each connection asks for the same again as soon as it has the answer.
"""

import asyncio
import ssl
import sys
import time
from typing import Any

import uvloop
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent


class Client(QuicConnectionProtocol):
    """One connection; *asked* is set to when it has asked for the last time."""

    head: list[tuple[bytes, bytes]]
    responses = received = 0
    until = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)

    def start(self, path: str, until: float) -> asyncio.Future[None]:
        self.head = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"127.0.0.1"),
            (b":path", path.encode()),
        ]
        self.until = until
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._ask()
        return self.ended

    def quic_event_received(self, event: QuicEvent) -> None:
        for each in self.http.handle_event(event):
            if isinstance(each, DataReceived):
                self.received += len(each.data)
            if isinstance(each, DataReceived | HeadersReceived) and each.stream_ended:
                self.responses += 1
                self._ask()

    def _ask(self) -> None:
        if time.monotonic() < self.until:
            stream = self._quic.get_next_available_stream_id()
            self.http.send_headers(stream, self.head, end_stream=True)
            self.transmit()
        elif not self.ended.done():
            self.ended.set_result(None)


async def main(port: int, path: str, connections: int, seconds: float) -> None:
    configuration = QuicConfiguration(
        alpn_protocols=["h3"],
        verify_mode=ssl.CERT_NONE,
        max_data=1 << 26,
        max_stream_data=1 << 26,
    )

    async def run() -> Client:
        async with connect(
            "127.0.0.1", port, configuration=configuration, create_protocol=Client
        ) as client:
            assert isinstance(client, Client)
            await client.start(path, began + seconds)
            return client

    began = time.monotonic()
    clients = await asyncio.gather(*(run() for _ in range(connections)))
    took = time.monotonic() - began
    counts = sum(c.responses for c in clients), sum(c.received for c in clients)
    sys.stdout.write(f"{counts[0]} {counts[1]} {took}\n")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
