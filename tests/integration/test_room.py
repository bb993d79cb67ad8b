"""Full workers: connections that have asked for nothing make room, at whatever stage they are."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.proxy_header import CLIENT, SERVER, line
from tests.service import PATIENCE, Service, serving, wait_until

AUTHORITY = Authority()
MOST = 20
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
# A record's head that announces a handshake of 512 bytes (RFC 8446 section 5.1), and no more.
HALF_A_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01"

Ask = Callable[[Service], int]


def plainly(service: Service) -> int:
    """Ask on a new connection; the status."""
    with service.connect() as wire:
        return wire.get("/").status


def introduced(service: Service) -> int:
    """The same, behind a PROXY header."""
    with service.connect() as wire:
        wire.sock.sendall(line(CLIENT, SERVER) + GET)
        answer = wire.receive()
        return answer.status if answer else 0


def silent(service: Service, stack: ExitStack, host: str = "", sent: bytes = b"") -> socket.socket:
    """A client that sends these bytes and no more, from *host*."""
    address = (service.address.host, service.address.port)
    source = (host, 0) if host else None
    sock = socket.create_connection(address, timeout=PATIENCE, source_address=source)
    stack.callback(sock.close)
    sock.sendall(sent)
    return sock


def closed(socks: list[socket.socket]) -> int:
    """How many of *socks* the service has closed, perhaps with a word: they can be read."""
    return len(select.select(socks, [], [], 0)[0])


def most_are_closed(socks: list[socket.socket]) -> bool:
    """Whether hardly more of *socks* are open than may be: with TLS two more arrive meanwhile."""
    return closed(socks) >= len(socks) - MOST - 2


@contextmanager
def full(directory: Path, kind: str, *flags: str) -> Iterator[tuple[Service, Ask]]:
    """A service with one small worker, of clients that speak plainly, TLS or after a proxy."""
    flags = ("--max-connections", str(MOST), *flags)
    entry = ""
    if kind == "proxied":
        entry, flags = "proxy_protocol = true", (*flags, "--forwarded-allow", "127.0.0.0/8")
    authority = None
    if kind == "TLS":
        certificate, key = AUTHORITY.issue("127.0.0.1").write(directory, "server")
        entry = f'certificate = "{certificate}"\nkey = "{key}"'
        authority = AUTHORITY.write(directory)
    with serving(directory, *flags, entry=entry, authority=authority) as service:
        yield service, introduced if kind == "proxied" else plainly


STAGES = {
    "plain": [b"", b"GET / HTTP/1.1\r\n"],
    "TLS": [b"", HALF_A_HANDSHAKE],
    "proxied": [b"", b"PROXY TCP4 192", line(CLIENT, SERVER)],
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("kind", STAGES)
def test_who_has_asked_for_nothing_makes_room(tmp_path: Path, kind: str, loop: str) -> None:
    with full(tmp_path, kind, "--loop", loop) as (service, ask), ExitStack() as stack:
        for sent in STAGES[kind]:
            # Each from an address of its own, so that none of them looks like a flood.
            some = [
                silent(service, stack, f"127.0.0.{2 + number}", sent) for number in range(3 * MOST)
            ]
            # While they are being let in, each newcomer may have to make room for the next.
            wait_until(partial(most_are_closed, some), "room for the last of them")
            assert [ask(service) for _ in range(4)] == [200] * 4
        service.expect(r"max_connections \(20\) .*: \d+ closed without a request")


def test_who_has_asked_for_nothing_after_the_handshake_makes_room(tmp_path: Path) -> None:
    with full(tmp_path, "TLS") as (service, ask), ExitStack() as stack:
        for _ in range(2 * MOST):
            stack.enter_context(service.connect())
        assert [ask(service) for _ in range(4)] == [200] * 4


@pytest.mark.parametrize("kind", ["plain", "TLS", "proxied"])
def test_a_flood_does_not_keep_others_out(tmp_path: Path, kind: str) -> None:
    with full(tmp_path, kind) as (service, ask), ExitStack() as stack:
        over = threading.Event()
        stack.callback(over.set)
        connected = 0

        def flood() -> None:
            nonlocal connected
            while not over.is_set():
                with ExitStack() as some:
                    for _ in range(4 * MOST):
                        silent(service, some, "127.0.0.2")
                        connected += 1

        flooding = threading.Thread(target=flood)
        flooding.start()
        wait_until(lambda: connected > 2 * MOST, "a flood")
        assert [ask(service) for _ in range(30)] == [200] * 30
        over.set()
        flooding.join(PATIENCE)


def test_a_flood_from_one_address_spares_those_of_others(tmp_path: Path) -> None:
    with full(tmp_path, "plain") as (service, _), ExitStack() as stack:
        honest = [silent(service, stack, f"127.0.0.{9 + n}") for n in range(3)]
        for _ in range(5 * MOST):
            silent(service, stack, "127.0.0.2")
        service.expect("closed without a request")
        for sock in honest:
            sock.sendall(GET)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_request_in_flight_never_makes_room(tmp_path: Path) -> None:
    with full(tmp_path, "plain") as (service, _), ExitStack() as stack:
        busy = [stack.enter_context(service.connect()) for _ in range(MOST)]
        for wire in busy:
            wire.send("/slow?ms=2000")
        wait_until(lambda: refused(service), "a full worker")
        for wire in busy:
            answer = wire.receive()
            assert answer is not None
            assert answer.status == 200
        service.expect("refused with 503")


def refused(service: Service) -> bool:
    with service.connect() as wire:
        wire.send("/")
        answer = wire.receive()
        return answer is not None and answer.status == 503
