"""Listeners behind proxies that speak the PROXY protocol: whom the application sees."""

import json
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.certificates import Authority
from tests.modes import both_modes
from tests.proxy_header import (
    CLIENT,
    CLIENT6,
    LOCAL,
    SERVER,
    SERVER6,
    TCP6,
    addresses,
    block,
    line,
    summed,
)
from tests.proxy_header import ssl as tls_extension
from tests.service import Service, Wire, serving, wait_until

ENTRY = "proxy_protocol = true"
FOUR = addresses(CLIENT, SERVER)
GET = b"GET / HTTP/1.1\r\nHost: shop.example\r\n%b\r\n"
FORWARDED = b"X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory: Path = tmp_path_factory.mktemp("proxied")
    flags = ["--header-timeout", "0.5"]
    with serving(directory, *flags, app="mirror:app", entry=ENTRY) as service:
        yield service
        assert "ERROR" not in service.log


def ask(wire: Wire, header: bytes = b"", fields: bytes = b"") -> dict[str, Any]:
    """Send a request, behind *header*; what the application says of it."""
    wire.sock.sendall(header + GET % fields)
    answer = wire.receive()
    assert answer is not None, "closed without an answer"
    assert answer.status == 200
    told: dict[str, Any] = json.loads(answer.body)
    return told


INTRODUCED = {
    "v1": (line(CLIENT, SERVER), CLIENT, SERVER, "http"),
    "v1 over IPv6": (line(CLIENT6, SERVER6), CLIENT6, SERVER6, "http"),
    "v2": (block(FOUR), CLIENT, SERVER, "http"),
    "v2 over IPv6": (block(addresses(CLIENT6, SERVER6), family=TCP6), CLIENT6, SERVER6, "http"),
    "v2 with TLS": (summed(block(FOUR + tls_extension())), CLIENT, SERVER, "https"),
    "v1 of nobody": (b"PROXY UNKNOWN\r\n", None, None, "http"),
    "v2 of the proxy": (block(command=LOCAL, family=0), None, None, "http"),
}


@pytest.mark.parametrize("name", INTRODUCED)
@pytest.mark.parametrize("piecemeal", [False, True])
def test_the_application_sees_the_client(service: Service, name: str, *, piecemeal: bool) -> None:
    header, client, server, scheme = INTRODUCED[name]
    with service.connect() as wire:
        own = wire.sock.getsockname(), wire.sock.getpeername()
        expected = [list(client or own[0]), list(server or own[1]), scheme]
        if piecemeal:
            wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in header:
                wire.sock.sendall(bytes([octet]))
            header = b""
        for _ in range(2):
            told = ask(wire, header)
            assert [told["client"], told["server"], told["scheme"]] == expected
            header = b""


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (line(CLIENT, SERVER), CLIENT[0]),
        (line(("127.0.0.1", 1), SERVER), "198.51.100.7"),
        (block(command=LOCAL), "198.51.100.7"),
    ],
)
def test_fields_count_if_the_client_that_the_header_names_is_trusted(
    service: Service, header: bytes, client: str
) -> None:
    with service.connect() as wire:
        told = ask(wire, header, FORWARDED)
    assert told["client"][0] == client
    assert told["scheme"] == ("http" if client == CLIENT[0] else "https")


@pytest.mark.parametrize(
    ("sent", "finish", "why"),
    [
        (GET % b"", False, "it does not begin with a PROXY header"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n" + GET % b"", False, "its PROXY line is malformed"),
        (block(FOUR, command=0x11) + GET % b"", False, "unknown version and command"),
        (block(FOUR)[:20], True, "it ended within its PROXY header"),
        (b"PROXY TCP4 1.2", False, "its PROXY header did not come in time"),
        (b"", False, "its PROXY header did not come in time"),
    ],
)
def test_a_connection_without_a_header_is_closed_and_logged(
    service: Service, sent: bytes, finish: bool, why: str
) -> None:
    before = service.log.count(why)
    with service.connect() as wire:
        wire.sock.sendall(sent)
        if finish:
            wire.sock.shutdown(socket.SHUT_WR)
        assert wire.receive() is None
    service.expect(f"(?s)(a connection from 127.0.0.1 is closed: .*{why}.*){{{before + 1}}}")


def test_one_that_says_nothing_at_all_is_not_worth_a_line(service: Service) -> None:
    before = service.log
    with service.connect() as silent, service.connect() as other:
        silent.sock.shutdown(socket.SHUT_WR)
        assert silent.receive() is None
        other.sock.sendall(GET % b"")
        assert other.receive() is None
    wait_until(lambda: service.log.count("\n") > before.count("\n"), "a line of the other one")
    [told] = service.log.removeprefix(before).splitlines()
    assert "it does not begin with a PROXY header" in told


def test_a_second_header_is_no_request(service: Service) -> None:
    with service.connect() as wire:
        ask(wire, line(CLIENT, SERVER))
        wire.sock.sendall(line(CLIENT6, SERVER6) + GET % b"")
        answer = wire.receive()
        assert answer is not None
        assert (answer.status, answer.closes) == (400, True)


def test_only_trusted_peers_may_say_who_they_are(tmp_path: Path) -> None:
    flags = ["--forwarded-allow", "192.0.2.1"]
    with (
        serving(tmp_path, *flags, app="mirror:app", entry=ENTRY) as service,
        service.connect() as wire,
    ):
        assert wire.receive() is None
        service.expect("127.0.0.1 is closed: .* it is not in forwarded_allow")


def test_without_the_option_a_header_is_garbage(tmp_path: Path) -> None:
    with serving(tmp_path, app="mirror:app") as service:
        for header in (line(CLIENT, SERVER), block(FOUR)):
            with service.connect() as wire:
                wire.sock.sendall(header + GET % b"")
                answer = wire.receive()
                assert answer is not None
                assert (answer.status, answer.closes) == (400, True)


def test_a_websocket(service: Service) -> None:
    sock = socket.create_connection((service.address.host, service.address.port))
    sock.sendall(block(FOUR + tls_extension()))
    with connect("ws://shop.example/", sock=sock, proxy=None) as ws:
        told = json.loads(ws.recv())
        assert (told["client"], told["scheme"]) == (list(CLIENT), "wss")
        ws.send("hello")
        assert ws.recv() == "hello"


def test_tls_follows_the_header(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue("127.0.0.1").write(tmp_path, "server")
    entry = f'{ENTRY}\ncertificate = "{certificate}"\nkey = "{key}"'
    trust = ssl.create_default_context(cafile=str(authority.write(tmp_path)))
    with serving(tmp_path, app="mirror:app", entry=entry) as service:
        for corked in (False, True):
            with service.connect() as wire:
                # The header and the handshake's first message, in one packet or in two (tcp(7)).
                wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, corked)
                wire.sock.sendall(line(CLIENT, SERVER))
                wire.sock = trust.wrap_socket(wire.sock, server_hostname="127.0.0.1")
                told = ask(wire)
                assert (told["client"], told["server"]) == (list(CLIENT), list(SERVER))
                assert told["scheme"] == "https"
        with service.connect() as wire, pytest.raises((ssl.SSLError, ConnectionError)):
            trust.wrap_socket(wire.sock, server_hostname="127.0.0.1")
        service.expect("is closed: it does not begin with a PROXY header")


# Connections that outlive the worker they came to


def before_the_header(wire: Wire) -> bytes:
    return block(FOUR + tls_extension())


def within_the_header(wire: Wire) -> bytes:
    header = block(FOUR + tls_extension())
    wire.sock.sendall(header[:20])
    return header[20:]


def after_the_header(wire: Wire) -> bytes:
    wire.sock.sendall(block(FOUR + tls_extension()))
    return b""


def between_requests(wire: Wire) -> bytes:
    ask(wire, block(FOUR + tls_extension()))
    return b""


@both_modes
def test_a_reload_keeps_every_connection_and_its_client(tmp_path: Path, mode: str) -> None:
    situations: list[Callable[[Wire], bytes]]
    situations = [before_the_header, within_the_header, after_the_header, between_requests]
    with serving(tmp_path, "--worker-mode", mode, app="mirror:app", entry=ENTRY) as service:
        wires = [service.connect() for _ in situations]
        # The last one's answer tells that the worker has accepted those before it.
        rests = [begin(wire) for begin, wire in zip(situations, wires, strict=True)]
        service.reload(2)
        for wire, rest in zip(wires, rests, strict=True):
            with wire:
                told = ask(wire, rest)
            assert (told["client"], told["scheme"]) == (list(CLIENT), "https")
            assert told["generation"] == 2
        service.expect("generation 1 is retired")


def test_a_stop_does_not_wait_for_a_header_that_does_not_come(tmp_path: Path) -> None:
    with (
        serving(tmp_path, app="mirror:app", entry=ENTRY) as service,
        service.connect() as silent,
        service.connect() as other,
    ):
        ask(other, line(CLIENT, SERVER))
        service.send_signal(signal.SIGTERM)
        assert silent.receive() is None
        assert service.wait() == 0
        assert "did not come in time" in service.log


def test_over_a_unix_socket(tmp_path: Path) -> None:
    with (
        serving(tmp_path, app="mirror:app", entry=ENTRY, unix=True) as service,
        service.connect() as wire,
    ):
        told = ask(wire, line(CLIENT, SERVER), FORWARDED)
        assert (told["client"], told["server"]) == (list(CLIENT), list(SERVER))
