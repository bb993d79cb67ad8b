"""Asks 127.0.0.1:PORT once over HTTP/3, kills the service UNIT, and says how it learns of that.

It runs inside the container, on Debian's aioquic, which does not look for stateless resets.
"""

import asyncio
import ssl
import subprocess
import sys
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

PATIENCE = 20.0


class Client(QuicConnectionProtocol):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)
        self.answered = asyncio.Event()
        self.was_reset = asyncio.Event()

    def ask(self) -> None:
        fields = {":method": "GET", ":scheme": "https", ":authority": "localhost", ":path": "/who"}
        head = [(name.encode(), value.encode()) for name, value in fields.items()]
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, head, end_stream=True)
        self.transmit()

    def quic_event_received(self, event: QuicEvent) -> None:
        for each in self.http.handle_event(event):
            if isinstance(each, HeadersReceived):
                self.answered.set()

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        if data[-16:] == self._quic._peer_cid.stateless_reset_token:
            self.was_reset.set()
        super().datagram_received(data, addr)


async def main(port: int, unit: str) -> None:
    configuration = QuicConfiguration(
        alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE, idle_timeout=3 * PATIENCE
    )
    async with connect(
        "127.0.0.1", port, configuration=configuration, create_protocol=Client
    ) as client:
        assert isinstance(client, Client)
        client.ask()
        await asyncio.wait_for(client.answered.wait(), PATIENCE)
        subprocess.run(["systemctl", "kill", "--signal=KILL", unit], check=True)
        while subprocess.run(["systemctl", "is-active", "--quiet", unit]).returncode:
            await asyncio.sleep(0.05)
        client.ask()
        await asyncio.wait_for(client.was_reset.wait(), PATIENCE)
        sys.stdout.write("reset\n")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
