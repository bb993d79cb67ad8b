"""UDP sockets that send and receive many datagrams in one call."""

import socket
from collections.abc import Iterator

import pytest

from pounce.net.udp import UDPPort

_UDP_GRO = 104  # <linux/udp.h>


@pytest.fixture
def sender() -> Iterator[UDPPort]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield UDPPort(sock)


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """It receives in one call what was sent in one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(25)
        sock.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
        yield sock


@pytest.mark.parametrize("forged", [("127.0.0.1", 0), ("255.255.255.255", 9)])
def test_an_address_that_cannot_be_sent_to_concerns_nobody_else(
    sender: UDPPort, receiver: socket.socket, forged: tuple[str, int]
) -> None:
    """Anybody can send a datagram that claims to come from there."""
    sender.send([b"x" * 1200] * 3, forged, None)
    sender.send([b"x" * 1200] * 3, receiver.getsockname(), None)
    assert len(receiver.recv(65_536)) == 3600
