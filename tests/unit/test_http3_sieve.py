"""What the kernel keeps of the datagrams for a UDP socket while too many come."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from pounce.http3 import packets
from pounce.http3.tokens import SECRET_SIZE, ConnectionIds
from pounce.net.socket_filter import attach, detach
from pounce.workers.sieve import Chances, sieve

SECRET = bytes(range(SECRET_SIZE))
IDS = ConnectionIds(SECRET)
STRANGERS = ConnectionIds(os.urandom(SECRET_SIZE))
END = b"end"

Send = Callable[..., list[bytes]]


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def kept(request: pytest.FixtureRequest) -> Iterator[Send]:
    """Which of *datagrams* are kept by a sieve with these chances.

    The sender is the *loud* one, or is not.
    """
    is_ipv4 = request.param == socket.AF_INET
    host, other = ("127.0.0.1", "127.0.0.2") if is_ipv4 else ("::1", "2001:db8::1")
    with (
        socket.socket(request.param, socket.SOCK_DGRAM) as receiver,
        socket.socket(request.param, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((host, 0))
        receiver.settimeout(25)

        def send(
            datagrams: list[bytes],
            initials: float,
            others: float,
            louds: float = 1.0,
            *,
            loud: bool = False,
            known: tuple[tuple[bytes, float], ...] = (),
        ) -> list[bytes]:
            network = socket.inet_pton(request.param, host if loud else other)[:8]
            chances = Chances(initials, others, louds, network, known)
            attach(receiver, sieve(IDS.check_keys, chances))
            for each in datagrams:
                sender.sendto(each, receiver.getsockname())
            detach(receiver)
            sender.sendto(END, receiver.getsockname())
            return list(iter(lambda: receiver.recv(2000), END))

        yield send


def long(first: int, version: bytes, destination: bytes, size: int = 1200) -> bytes:
    head = bytes((first,)) + version + bytes((len(destination),)) + destination
    return (head + b"\x00").ljust(size, b"\x00")


V1, V2 = (version for version, _ in packets.INITIALS)
KNOWN = [
    b"\x40" + IDS.make(7) + bytes(30),
    long(0xE0, V1, IDS.make(65_535)),  # a Handshake packet
    long(0xC0, V1, IDS.make(0), size=100),
    long(0xD0, V2, IDS.make(3)),
]
INITIALS = [
    long(0xC0, V1, bytes(8)),
    long(0xCF, V1, STRANGERS.make(7)),
    long(0xD3, V2, bytes(20), size=1400),
]
OTHERS = [
    b"\x40" + STRANGERS.make(7) + bytes(30),
    long(0xC0, V1, bytes(8), size=1199),
    long(0xC0, V1, bytes(7)),
    long(0xD0, V1, bytes(8)),  # 0-RTT
    long(0xC0, V2, bytes(8)),
    long(0x80, V1, bytes(8)),  # without the fixed bit
    long(0xC0, bytes(4), bytes(8)),
    long(0xC0, b"\x0a\x0a\x0a\x0a", bytes(8)),
]


def test_those_who_are_known_are_kept(kept: Send) -> None:
    assert kept(KNOWN + INITIALS + OTHERS, 0.0, 0.0) == KNOWN


def test_what_may_begin_a_connection_has_a_chance_of_its_own(kept: Send) -> None:
    assert kept(KNOWN + INITIALS + OTHERS, 1.0, 0.0) == KNOWN + INITIALS
    assert kept(KNOWN + INITIALS + OTHERS, 0.0, 1.0) == KNOWN + OTHERS
    assert kept(INITIALS + OTHERS, 1.0, 1.0) == INITIALS + OTHERS


def test_strangers_are_kept_by_chance(kept: Send) -> None:
    assert 0 < len(kept(INITIALS * 30, 0.5, 0.0)) < 90


def test_one_network_has_a_chance_of_its_own(kept: Send) -> None:
    assert kept(KNOWN + INITIALS + OTHERS, 1.0, 0.0, 0.0, loud=True) == KNOWN
    assert kept(KNOWN + INITIALS + OTHERS, 0.0, 0.0, 1.0, loud=True) == KNOWN + INITIALS
    assert kept(KNOWN + INITIALS + OTHERS, 1.0, 0.0, 0.0, loud=False) == KNOWN + INITIALS


def test_who_is_known_may_have_a_chance_of_its_own(kept: Send) -> None:
    loud = [IDS.make(number) for number in range(8)]
    known = tuple((each, 0.0) for each in loud)
    flood = [bytes((0x40,)) + each + bytes(30) for each in loud]
    flood += [long(0xE0, V1, each) for each in loud]
    assert kept([*flood, *KNOWN, *INITIALS, *OTHERS], 1.0, 0.0, known=known) == KNOWN + INITIALS
    assert kept([*flood, *KNOWN], 0.0, 0.0, known=known[1:]) == [flood[0], flood[8], *KNOWN]
    assert 0 < len(kept(flood * 6, 0.0, 0.0, known=tuple((each, 0.5) for each in loud))) < 96


def test_what_is_shorter_than_its_ids_is_dropped(kept: Send) -> None:
    assert (
        kept([b"\x40", b"\xc0", b"\xc0\0\0\0\1", long(0xC0, V1, IDS.make(1))[:9]], 1.0, 0.0) == []
    )


# Known by number: their bytes are random, and each process of a test run makes others.
@pytest.mark.parametrize("data", INITIALS, ids=range(len(INITIALS)))
def test_the_worker_judges_alike_what_may_begin(data: bytes) -> None:
    assert packets.may_begin(data)


NO_BEGINNING = [b"", b"\xc0", *OTHERS]


@pytest.mark.parametrize("data", NO_BEGINNING, ids=range(len(NO_BEGINNING)))
def test_the_worker_judges_alike_what_may_not(data: bytes) -> None:
    assert not packets.may_begin(data)
