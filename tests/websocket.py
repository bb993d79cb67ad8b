"""WebSocket frames as a client that controls every byte sends and reads them."""

import struct

from tests.live import Client

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x11\x22\x33\x44"

HANDSHAKE = (
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, masked: bool = True) -> bytes:
    """A client's frame; bits besides the opcode's make it a strange one."""
    head = bytes([fin << 7 | opcode])
    bit = masked << 7
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", len(data))
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", len(data))
    if not masked:
        return head + data
    repeated = MASK * (len(data) // 4 + 1)
    masked_data = int.from_bytes(data) ^ int.from_bytes(repeated[: len(data)])
    return head + MASK + masked_data.to_bytes(len(data))


def closing(code: int, reason: str = "") -> bytes:
    """A client's close frame."""
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


class Peer:
    """The client's end of a WebSocket, on a raw connection."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def open(self, target: str = "/", *fields: str) -> bytes:
        """Ask for the WebSocket; the head of the answer."""
        await self.client.ask(target, *HANDSHAKE, *fields)
        return await self.client.read_until(b"\r\n\r\n")

    async def send(self, opcode: int, data: bytes = b"", *, fin: bool = True) -> None:
        """Send one frame."""
        await self.client.send(frame(opcode, data, fin=fin))

    async def receive(self) -> tuple[int, bytes]:
        """The next frame's first byte and content."""
        first, second = await self._take(2)
        assert second < 128, "a server masks nothing"
        if second == 126:
            (second,) = struct.unpack("!H", await self._take(2))
        elif second == 127:
            (second,) = struct.unpack("!Q", await self._take(8))
        return first, await self._take(second)

    async def closed(self) -> tuple[int, str]:
        """The code and reason of the close frame that comes next."""
        first, data = await self.receive()
        assert first == 0x80 | CLOSE, (first, data)
        return struct.unpack("!H", data[:2])[0], data[2:].decode()

    async def _take(self, size: int) -> bytes:
        client = self.client
        while len(client.received) < size:
            assert await client.more(), f"closed after {client.received!r}"
        taken, client.received = client.received[:size], client.received[size:]
        return taken
