"""Clients that send as fast as can be: `python -m tests.attack.blaster FLOOD WAY ADDRESS SECONDS`.

Each sends the same prepared bytes again and again on its connection, and takes little CPU for that.
What is printed tells how much they have sent, and on how many connections.
"""

import asyncio
import contextlib
import json
import math
import os
import socket
import ssl
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch

from pounce.net.address import Address
from tests import openssl
from tests.http3 import connected
from tests.websocket import BINARY, CONTINUATION, HANDSHAKE, PING, PONG, TEXT, frame

CONNECTIONS = 4
_MUCH = 65_536

Ways = tuple[str, ...]
STREAMS: Ways = ("plain", "tls")


@dataclass(frozen=True, slots=True)
class Flood:
    """On each connection *first* is sent once and *block* again and again; what comes is read,
    unless it is *deaf*."""

    first: bytes
    block: bytes
    ways: Ways = STREAMS
    deaf: bool = False


def _request(target: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


def _upgrade(*fields: str) -> bytes:
    return _request("/", *HANDSHAKE, *fields)


def _bomb() -> bytes:
    """A message that inflates to as much as a message may be."""
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(bytes(16_000_000)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return frame(0x40 | BINARY, data.removesuffix(b"\x00\x00\xff\xff"))


def _many(unit: bytes) -> bytes:
    return unit * max(1, _MUCH // len(unit))


_CHUNKED = "Transfer-Encoding: chunked"
_GET = _request("/")
_FRAGMENT = frame(CONTINUATION, fin=False)

FLOODS: dict[str, Flood] = {
    "ws-messages": Flood(_upgrade(), _many(frame(TEXT, b"a"))),
    "ws-empty": Flood(_upgrade(), _many(frame(BINARY))),
    "ws-fragments": Flood(_upgrade() + frame(BINARY, fin=False), _many(_FRAGMENT)),
    "ws-pings": Flood(_upgrade(), _many(frame(PING))),
    "ws-pings-deaf": Flood(_upgrade(), _many(frame(PING, b"x" * 125)), deaf=True),
    "ws-pongs": Flood(_upgrade(), _many(frame(PONG))),
    "ws-large": Flood(_upgrade(), frame(TEXT, "ü".encode() * 4_000_000)),
    "ws-bombs": Flood(_upgrade("Sec-WebSocket-Extensions: permessage-deflate"), _bomb()),
    "pipelined-gets": Flood(b"", _many(_GET)),
    "pipelined-deaf": Flood(b"", _many(_GET), deaf=True),
    "chunks": Flood(_request("/upload", _CHUNKED, method="POST"), _many(b"1\r\nx\r\n")),
    "unwanted-chunks": Flood(_request("/", _CHUNKED, method="POST"), _many(b"1\r\nx\r\n")),
    "fields": Flood(b"", _request("/", *[f"X-{each}: {each}" for each in range(98)])),
    "odd-fields": Flood(b"", _request("/", *[f"X-{each}:\t{each}\t" for each in range(98)])),
    "heads": Flood(b"", _request("/", "X: " + "a," * 30_000)),
    "connection-lists": Flood(b"", _request("/", "Connection: " + "," * 60_000)),
    "handshake-lists": Flood(b"", _upgrade("Sec-WebSocket-Extensions: x" + ",x" * 30_000)),
    "forwarded": Flood(b"", _request("/", "Forwarded: " + "," * 60_000)),
    "x-forwarded-for": Flood(b"", _request("/", "X-Forwarded-For: " + "127.0.0.1," * 6000)),
    "garbage": Flood(b"", os.urandom(_MUCH)),
    "handshakes": Flood(b"", b"", ways=("tls-hellos",)),
    "tiny-records": Flood(
        _request("/upload", "Content-Length: 9999999999", method="POST"), b"x", ways=("tls-tiny",)
    ),
    "key-updates": Flood(b"", b"", ways=("tls-keys",)),
    "key-updates-deaf": Flood(b"", b"", ways=("tls-keys",), deaf=True),
    "initials": Flood(b"", b"", ways=("quic-initials",)),
    "client-hellos": Flood(b"", b"", ways=("quic-hellos",)),
    "datagrams": Flood(b"", b"", ways=("quic-garbage",)),
    "quic-pings": Flood(b"", b"", ways=("quic-pings",)),
    "quic-acks": Flood(b"", b"", ways=("quic-acks",)),
    "quic-empty-frames": Flood(b"", b"", ways=("quic-empty",)),
    "known-ids": Flood(b"", b"", ways=("quic-known",)),
    "known-ids-from-elsewhere": Flood(b"", b"", ways=("quic-spoofed",)),
    "tiny-frames": Flood(b"", b"\x00\x01x" * 3000, ways=("quic-stream",)),
}


class Blast:
    """One flood on one address, until its time is over."""

    def __init__(self, flood: Flood, address: Address, seconds: float) -> None:
        self.flood = flood
        self.address = address
        self.sent: Counter[str] = Counter()
        self._seconds = seconds
        self._end = math.inf

    def begin(self) -> None:
        """Say that all is prepared; the time runs from now on."""
        print("begins", flush=True)  # noqa: T201 - for the one that started it
        self._end = time.monotonic() + self._seconds

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._end

    def run(self, on_connection: Callable[["Blast", socket.socket], None]) -> None:
        """Send on all connections until the end."""
        self.begin()
        threads = [
            threading.Thread(target=self._repeat, args=(on_connection,), daemon=True)
            for _ in range(CONNECTIONS)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(max(0.0, self._end + 1 - time.monotonic()))

    def _repeat(self, on_connection: Callable[["Blast", socket.socket], None]) -> None:
        while not self.over:
            with contextlib.suppress(OSError), self._connect() as sock:
                self.sent["connections"] += 1
                on_connection(self, sock)

    def _connect(self) -> socket.socket:
        sock = socket.socket()
        # A client that never reads is one with a small buffer.
        if self.flood.deaf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            sock.connect((self.address.host, self.address.port))
            # Not settimeout(), with which a descriptor is not one that blocks for libssl.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
            # What the server has not read when this ends, nobody is to read any more.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            sock.close()
            raise
        return sock

    def listen(self, sock: socket.socket) -> None:
        """Have somebody read what comes, whatever it is."""
        if not self.flood.deaf:
            threading.Thread(target=_drain, args=(sock,), daemon=True).start()

    def send(self, sock: socket.socket, data: bytes) -> None:
        """Send *data*, however long it takes while there is time."""
        rest = memoryview(data)
        while rest and not self.over:
            with contextlib.suppress(BlockingIOError):  # SO_SNDTIMEO has passed
                size = sock.send(rest)
                rest = rest[size:]
                self.sent["bytes"] += size


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while sock.recv(262_144):
            pass


def plain(blast: Blast, sock: socket.socket) -> None:
    """The flood as it is."""
    blast.listen(sock)
    blast.send(sock, blast.flood.first)
    while not blast.over:
        blast.send(sock, blast.flood.block)


def tls(blast: Blast, sock: socket.socket) -> None:
    """The flood in records as large as can be."""
    records = _Records(sock)
    blast.listen(sock)
    blast.send(sock, records.of([blast.flood.first]) if blast.flood.first else b"")
    while not blast.over:
        blast.send(sock, records.of([blast.flood.block]))


def tls_tiny(blast: Blast, sock: socket.socket) -> None:
    """The flood's block in a record of its own each time."""
    records = _Records(sock)
    blast.listen(sock)
    blast.send(sock, records.of([blast.flood.first]))
    while not blast.over:
        blast.send(sock, records.of([blast.flood.block] * 2000))


def tls_keys(blast: Blast, sock: socket.socket) -> None:
    """KeyUpdates, and nothing else."""
    session = openssl.Session(sock)
    blast.listen(sock)
    while not blast.over:
        if not session.update_keys():
            return
        blast.sent["key updates"] += 1


def tls_hellos(blast: Blast, sock: socket.socket) -> None:
    """The beginning of a handshake, up to the server's answer."""
    sock.sendall(_client_hello())
    sock.recv(_MUCH)
    blast.sent["handshakes"] += 1


@cache
def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    connection = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="a"
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


class _Records:
    """TLS records, made without sending them."""

    def __init__(self, sock: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing)
        while not self._shook_hands(sock):
            data = sock.recv(_MUCH)
            if not data:
                raise ConnectionError("no TLS handshake")
            self._incoming.write(data)

    def _shook_hands(self, sock: socket.socket) -> bool:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            sock.sendall(self._outgoing.read())
        return True

    def of(self, pieces: list[bytes]) -> bytes:
        """The records that hold *pieces*, none of which shares one with another."""
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[self._ssl.write(rest) :]
        return self._outgoing.read()


def quic(datagrams: Callable[[], bytes]) -> Callable[[Blast], None]:
    """Datagrams from ports that change."""

    def blast_all(blast: Blast) -> None:
        prepared = cycle([datagrams() for _ in range(100)])
        blast.begin()
        for batch in _batches(prepared, 500):
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.connect((blast.address.host, blast.address.port))
                for each in batch:
                    if blast.over:
                        return
                    with contextlib.suppress(OSError):
                        sock.send(each)
                        blast.sent["datagrams"] += 1

    return blast_all


def _batches(datagrams: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    while True:
        yield [next(datagrams) for _ in range(size)]


def quic_stream(blast: Blast) -> None:
    """Content in HTTP/3 frames of one byte, on a connection that is established."""

    async def upload() -> None:
        async with connected((blast.address.host, blast.address.port)) as client:
            exchange = client.start("/upload", method="POST", ended=False)
            stream = exchange.stream_id
            blast.begin()
            while not blast.over and client.ended is None:
                exchange.send_raw(blast.flood.block)
                blast.sent["bytes"] += len(blast.flood.block)
                # Flow control holds back what the server has not read.
                while client.quic._streams[stream].sender._buffer and not blast.over:
                    await asyncio.sleep(0.001)

    asyncio.run(upload())


# Of so many bytes there is one packet in each datagram.
_SMALL = 100
# Datagrams that are sent before others on the connection have their turn.
_AT_ONCE = 50


def quic_frames(frame_type: int, write: Callable[[Any], None]) -> Callable[[Blast], None]:
    """Packets with one frame each that asks for little, on a connection that is established."""

    def packets(quic: Any) -> list[bytes]:
        builder = QuicPacketBuilder(
            host_cid=quic.host_cid,
            is_client=True,
            packet_number=quic._packet_number,
            peer_cid=quic._peer_cid.cid,
            version=quic._version,
            max_datagram_size=_SMALL,
        )
        for _ in range(_AT_ONCE):
            builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
            write(builder.start_frame(frame_type, capacity=32))
        datagrams, _ = builder.flush()
        quic._packet_number = builder.packet_number
        return list(datagrams)

    return _on_a_connection(lambda client: packets(client.quic))


def _on_a_connection(make: Callable[[Any], list[bytes]]) -> Callable[[Blast], None]:
    """What *make* makes of an established client, as fast as it can."""

    async def send(blast: Blast) -> None:
        address = blast.address.host, blast.address.port
        async with connected(address) as client:
            transport: Any = client._transport
            blast.begin()
            while not blast.over and client.ended is None:
                datagrams = make(client)
                for each in datagrams:
                    transport.sendto(each, address)
                blast.sent["datagrams"] += len(datagrams)
                await asyncio.sleep(0)

    return lambda blast: asyncio.run(send(blast))


def _with_known_id(client: Any) -> list[bytes]:
    known = b"\x40" + client.quic._peer_cid.cid
    return [known + os.urandom(40) for _ in range(_AT_ONCE)]


def quic_spoofed(blast: Blast) -> None:
    """Garbage with the id of a connection, from elsewhere."""

    async def send() -> None:
        address = blast.address.host, blast.address.port
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.connect(address)
            async with connected(address) as client:
                blast.begin()
                while not blast.over:
                    for each in _with_known_id(client):
                        with contextlib.suppress(OSError):
                            sock.send(each)
                            blast.sent["datagrams"] += 1
                    await asyncio.sleep(0)

    asyncio.run(send())


def _ack(buffer: Any) -> None:
    """That the first packet has come, once more (RFC 9000 section 19.3)."""
    for _ in range(4):
        buffer.push_uint_var(0)


def _empty_frame(buffer: Any) -> None:
    """No content for a stream that is open, with its length (RFC 9000 section 19.8)."""
    buffer.push_uint_var(2)  # the client's control stream
    buffer.push_uint_var(0)


def _initial() -> bytes:
    """An Initial packet (RFC 9000 section 17.2.2) with nothing in it that can be decrypted."""
    head = b"\xc0\x00\x00\x00\x01\x08" + os.urandom(8) + b"\x08" + os.urandom(8) + b"\x00"
    size = 1200 - len(head) - 2
    return head + struct.pack("!H", 0x4000 | size) + os.urandom(size)


def _hello() -> bytes:
    """What a client sends first."""
    configuration = QuicConfiguration(alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE)
    connection = QuicConnection(configuration=configuration)
    connection.connect(("127.0.0.1", 1), now=0.0)
    return connection.datagrams_to_send(now=0.0)[0][0]


_ON_CONNECTIONS: dict[str, Callable[[Blast, socket.socket], None]] = {
    "plain": plain,
    "tls": tls,
    "tls-tiny": tls_tiny,
    "tls-keys": tls_keys,
    "tls-hellos": tls_hellos,
}
_ON_DATAGRAMS: dict[str, Callable[[Blast], None]] = {
    "quic-initials": quic(_initial),
    "quic-hellos": quic(_hello),
    "quic-garbage": quic(lambda: os.urandom(1200)),
    "quic-stream": quic_stream,
    "quic-pings": quic_frames(QuicFrameType.PING, lambda _: None),
    "quic-acks": quic_frames(QuicFrameType.ACK, _ack),
    "quic-empty": quic_frames(QuicFrameType.STREAM_BASE | 2, _empty_frame),
    "quic-known": _on_a_connection(_with_known_id),
    "quic-spoofed": quic_spoofed,
}


def main(name: str, way: str, address: str, seconds: str) -> None:
    os.nice(10)  # others on this core are asked how long the server takes
    blast = Blast(FLOODS[name], Address.parse(address), float(seconds))
    if way in _ON_DATAGRAMS:
        _ON_DATAGRAMS[way](blast)
    else:
        blast.run(_ON_CONNECTIONS[way])
    print(json.dumps(blast.sent), flush=True)  # noqa: T201
    os._exit(0)  # threads may still wait for a server that reads no more


if __name__ == "__main__":
    main(*sys.argv[1:])
