"""A client is where it has answered, whatever address its datagrams claim to come from."""

import asyncio
import socket
from pathlib import Path
from typing import Any, Self

from aioquic.h3.connection import H3Connection
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, QuicEvent

from pounce.application.types import Receive, Scope, Send
from tests.http3 import Server, client_configuration, connected, serve
from tests.live import hello, live, respond, until

OWN, PROXY = "127.0.0.2", "127.0.0.1"


class Forger:
    """A client at OWN, which may send its datagrams from PROXY as well: what is sent there is lost.

    The server trusts PROXY to tell the clients' addresses.
    """

    def __init__(self, server: Server) -> None:
        self.events: list[QuicEvent] = []
        self._loop = asyncio.get_running_loop()
        self._server = server.address
        self._own, self._proxy = self._bound(OWN), self._bound(PROXY)
        self.quic = QuicConnection(configuration=client_configuration())
        self.quic.connect(server.address, self._loop.time())

    async def __aenter__(self) -> Self:
        self._loop.add_reader(self._own.fileno(), self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.remove_reader(self._own.fileno())
        self.quic.close()
        self.send()
        self._own.close()
        self._proxy.close()

    def send(self, *, forged: bool = False, sock: socket.socket | None = None) -> None:
        """Send what there is to send."""
        sock = sock or (self._proxy if forged else self._own)
        for data, _ in self.quic.datagrams_to_send(self._loop.time()):
            sock.sendto(data, self._server)

    def receive(self) -> bool:
        """Take one datagram without answering it."""
        try:
            data = self._own.recv(65_536)
        except BlockingIOError:
            return False
        self.quic.receive_datagram(data, self._server, self._loop.time())
        while (event := self.quic.next_event()) is not None:
            self.events.append(event)
        return True

    async def connect(self) -> None:
        """Shake hands."""
        self.send()
        await until(lambda: any(isinstance(each, HandshakeCompleted) for each in self.events))
        self.http = H3Connection(self.quic)

    def ask(self, path: str, *, forged: bool = False, sock: socket.socket | None = None) -> None:
        """Send a request that claims to be proxied."""
        fields = {":method": "GET", ":scheme": "https", ":authority": "a.example", ":path": path}
        head = [(name.encode(), value.encode()) for name, value in fields.items()]
        stream = self.quic.get_next_available_stream_id()
        self.http.send_headers(stream, [*head, (b"x-forwarded-for", b"10.6.6.6")], end_stream=True)
        self.send(forged=forged, sock=sock)

    def _read(self) -> None:
        while self.receive():
            pass
        self.send()

    @staticmethod
    def _bound(address: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, 0))
        sock.setblocking(False)
        return sock


class Told:
    """An application that notes which client each path was asked for by."""

    def __init__(self) -> None:
        self.clients: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clients[scope["path"]] = scope["client"][0]
        await respond(send, b"hello")

    async def of(self, path: str) -> None:
        """Wait for the request for *path*."""
        await until(lambda: path in self.clients)


@live
async def test_a_forged_source_is_not_believed(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    told = Told()
    async with serve(told, tmp_path, access_log="on") as server, Forger(server) as client:
        await client.connect()
        client.ask("/own")
        await told.of("/own")
        client.ask("/forged", forged=True)
        await told.of("/forged")
        client.ask("/own/again")
        await told.of("/own/again")
    assert told.clients == {"/own": OWN, "/forged": OWN, "/own/again": OWN}
    lines = [each.getMessage() for each in caplog.records if each.name == "pounce.access"]
    assert [line.split()[0] for line in lines] == [OWN] * 3


@live
async def test_a_handshake_that_ends_at_a_forged_source_has_not_ended(tmp_path: Path) -> None:
    """Its last packet is proof of the address that the server's packets went to, not of others."""
    told = Told()
    async with serve(told, tmp_path) as server, Forger(server) as client:
        client._loop.remove_reader(client._own.fileno())
        client.send()
        while not any(isinstance(each, HandshakeCompleted) for each in client.events):
            await asyncio.sleep(0)
            client.receive()
        client.http = H3Connection(client.quic)
        client.ask("/forged", forged=True)
        [connection] = server.workers[0].connections
        # What was sent before this handshake has been read.
        async with connected(server.address) as other:
            await other.get("/other")
        assert connection.handshaking
        client._loop.add_reader(client._own.fileno(), client._read)
        client.quic._loss.on_loss_detection_timeout(now=client._loop.time())
        client.send()
        await until(lambda: not connection.handshaking)
        assert connection.path.client[0] == OWN
        assert told.clients.get("/forged", OWN) == OWN


@live
async def test_many_forged_sources_do_not_displace_the_real_one(tmp_path: Path) -> None:
    told = Told()
    async with serve(told, tmp_path) as server, Forger(server) as client:
        await client.connect()
        for number in range(20):
            sock = client._bound(PROXY)
            client.ask(f"/{number}", sock=sock)
            sock.close()
            await told.of(f"/{number}")
        [connection] = server.workers[0].connections
        assert len(connection._quic._network_paths) <= 8
        assert connection.path.client[0] == OWN
    assert set(told.clients.values()) == {OWN}


@live
async def test_a_client_that_answers_at_its_new_address_is_there(tmp_path: Path) -> None:
    async with serve(hello, tmp_path) as server, connected(server.address) as client:
        [connection] = server.workers[0].connections
        before = connection.path.client
        assert before == client.local
        await client.move()
        await until(lambda: connection.path.client == client.local)
        assert connection.path.client != before
