"""What passes through real proxies: clients' addresses, bodies both ways, WebSockets."""

import hashlib
import http.client
import json
import socket
from typing import Any, Self

import pytest
from websockets.sync.client import connect

from pounce.net.address import Address
from tests.fronts.proxies import Front

# Not an address that the service trusts to be a proxy's.
CLIENT = "127.0.0.2"
MANY = 4_000_000

ROUTES = [
    ("nginx", "tcp"),
    ("nginx", "unix"),
    ("nginx", "stream"),
    ("haproxy", "tcp"),
    ("haproxy", "unix"),
    ("haproxy", "forwarded"),
    ("haproxy", "v1"),
    ("haproxy", "v2"),
    ("haproxy", "http-v2"),
]
TELLS_PORT = {"stream", "forwarded", "v1", "v2", "http-v2"}

every_route = pytest.mark.parametrize(
    ("front", "port"), ROUTES, ids=[f"{front}-{port}" for front, port in ROUTES]
)


class Browser(http.client.HTTPConnection):
    """A client at CLIENT, with one connection to *address*."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.host, address.port, timeout=10, source_address=(CLIENT, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, method: str = "GET", **arguments: Any) -> dict[str, Any]:
        """What the application says of the request."""
        self.request(method, "/", **arguments)
        answer = self.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        told: dict[str, Any] = json.loads(content)
        return told

    @property
    def name(self) -> list[object]:
        return list(self.sock.getsockname())


@every_route
def test_the_application_sees_the_client(fronts: dict[str, Front], front: str, port: str) -> None:
    address = fronts[front][port]
    with Browser(address) as browser:
        for _ in range(2):
            told = browser.ask()
            assert told["client"] == (browser.name if port in TELLS_PORT else [CLIENT, 0])
            assert told["scheme"] == "http"
            assert told["headers"]["host"] == str(address)


LIES: list[dict[str, str]] = [
    {"X-Forwarded-For": "198.51.100.7", "X-Real-IP": "198.51.100.7"},
    {"X-Forwarded-For": "198.51.100.7, unknown", "X-Forwarded-Host": "evil"},
    {"X-Forwarded-For": "", "X_Forwarded_For": "198.51.100.7"},
    {"Forwarded": "for=198.51.100.7;proto=https;host=evil"},
    {"Forwarded": 'for="', "X-Forwarded-Proto": "https"},
]


@every_route
def test_no_client_makes_itself_another(fronts: dict[str, Front], front: str, port: str) -> None:
    with Browser(fronts[front][port]) as browser:
        for lies in LIES:
            told = browser.ask(headers=lies)
            assert told["client"][0] == CLIENT
            assert told["scheme"] == "http"
            assert told["headers"]["host"] != "evil"


@every_route
def test_bodies_pass_whole(fronts: dict[str, Front], front: str, port: str) -> None:
    content = bytes(range(256)) * (MANY // 256)
    pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
    with Browser(fronts[front][port]) as browser:
        for body in (content, iter(pieces)):
            told = browser.ask("POST", body=body)
            assert told["length"] == len(content)
            assert told["sha256"] == hashlib.sha256(content).hexdigest()
        browser.request("GET", "/-/flood")
        assert len(browser.getresponse().read()) == 256 * 65_536
        assert browser.ask()["complete"]


@every_route
def test_websockets(fronts: dict[str, Front], front: str, port: str) -> None:
    address = fronts[front][port]
    sock = socket.create_connection((address.host, address.port), source_address=(CLIENT, 0))
    with connect("ws://shop.example/", sock=sock, proxy=None) as ws:
        told = json.loads(ws.recv())
        assert (told["client"][0], told["scheme"]) == (CLIENT, "ws")
        for message in ("hello", b"x" * 1_000_000, "again"):
            ws.send(message)
            assert ws.recv() == message
