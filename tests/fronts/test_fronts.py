"""What passes through real proxies: clients' addresses, bodies both ways, WebSockets."""

import hashlib
import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Self

import pytest
from websockets.sync.client import connect

from pounce.net.address import Address
from tests.fronts.proxies import Front
from tests.fronts.upstream import Upstream

# Not an address that the service trusts to be a proxy's.
CLIENT = "127.0.0.2"
MANY = 4_000_000

ROUTES = [
    ("nginx", "tcp"),
    ("nginx", "unix"),
    ("nginx", "old"),
    ("nginx", "tls"),
    ("nginx", "stream"),
    ("haproxy", "tcp"),
    ("haproxy", "unix"),
    ("haproxy", "forwarded"),
    ("haproxy", "v1"),
    ("haproxy", "v2"),
    ("haproxy", "http-v2"),
    ("haproxy", "tls"),
    ("haproxy", "v2-ssl"),
    ("haproxy", "through"),
]
TELLS_PORT = {"stream", "forwarded", "v1", "v2", "http-v2", "v2-ssl", "through"}
WITH_TLS = {"tls", "v2-ssl", "through"}


class Browser(http.client.HTTPConnection):
    """A client at CLIENT, with one connection to *address*; *tls* is None or what it trusts."""

    def __init__(self, address: Address, tls: ssl.SSLContext | None) -> None:
        super().__init__(address.host, address.port, timeout=10, source_address=(CLIENT, 0))
        self._tls = tls

    def connect(self) -> None:
        super().connect()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)

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


@dataclass(frozen=True)
class Route:
    """A way from a client to pounce."""

    address: Address
    scheme: str
    tells_port: bool
    trust: ssl.SSLContext

    @property
    def tls(self) -> ssl.SSLContext | None:
        return self.trust if self.scheme == "https" else None

    def browser(self) -> Browser:
        return Browser(self.address, self.tls)


@pytest.fixture(params=ROUTES, ids="-".join)
def route(request: pytest.FixtureRequest, fronts: dict[str, Front], upstream: Upstream) -> Route:
    front, port = request.param
    scheme = "https" if port in WITH_TLS else "http"
    return Route(fronts[front][port], scheme, port in TELLS_PORT, upstream.trust)


def test_the_application_sees_the_client(route: Route) -> None:
    with route.browser() as browser:
        for _ in range(2):
            told = browser.ask()
            assert told["client"] == (browser.name if route.tells_port else [CLIENT, 0])
            assert told["scheme"] == route.scheme
            assert told["headers"]["host"] == str(route.address)


LIES: list[dict[str, str]] = [
    {"X-Forwarded-For": "198.51.100.7", "X-Real-IP": "198.51.100.7"},
    {"X-Forwarded-For": "198.51.100.7, unknown", "X-Forwarded-Host": "evil"},
    {"X-Forwarded-For": "", "X_Forwarded_For": "198.51.100.7"},
    {"Forwarded": "for=198.51.100.7;proto=gopher;host=evil"},
    {"Forwarded": 'for="', "X-Forwarded-Proto": "{other}"},
    {"X-Forwarded-Prefix": "/evil", "X-Forwarded-Port": "1"},
]


def test_no_client_makes_itself_another(route: Route) -> None:
    other = "http" if route.tls else "https"
    with route.browser() as browser:
        for lies in LIES:
            fields = {name: value.format(other=other) for name, value in lies.items()}
            told = browser.ask(headers=fields)
            assert told["client"][0] == CLIENT
            assert told["scheme"] == route.scheme
            assert told["headers"]["host"] != "evil"
            assert told["root_path"] == ""
            assert told["server"][1] != 1


def test_bodies_pass_whole(route: Route) -> None:
    content = bytes(range(256)) * (MANY // 256)
    pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
    with route.browser() as browser:
        for body in (content, iter(pieces)):
            told = browser.ask("POST", body=body)
            assert told["length"] == len(content)
            assert told["sha256"] == hashlib.sha256(content).hexdigest()
        browser.request("GET", "/-/flood")
        assert len(browser.getresponse().read()) == 256 * 65_536
        assert browser.ask()["complete"]


def test_websockets(route: Route, fronts: dict[str, Front]) -> None:
    if route.address == fronts["nginx"]["old"]:
        pytest.skip("HTTP/1.0 has no WebSockets")
    scheme = "wss" if route.tls else "ws"
    there = (route.address.host, route.address.port)
    sock = socket.create_connection(there, source_address=(CLIENT, 0))
    url = f"{scheme}://{route.address}/"
    with connect(url, sock=sock, ssl=route.tls, proxy=None) as ws:
        told = json.loads(ws.recv())
        assert (told["client"][0], told["scheme"]) == (CLIENT, scheme)
        for message in ("hello", b"x" * 1_000_000, "again"):
            ws.send(message)
            assert ws.recv() == message
