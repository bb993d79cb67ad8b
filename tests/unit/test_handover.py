"""Open connections on their way through the handover, as descriptors."""

import resource
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pounce.ipc.handover import Handover, Passage

PASSAGE = Passage("http", ("192.0.2.1", 80), ("192.0.2.2", 1234), 7)

PASSAGES = [
    PASSAGE,
    Passage("https", ("/run/shop.sock", None), None, 0),
    Passage("http", None, ("2001:db8::1", 1), 1, b"GET / HT"),
    Passage("http", None, None, 1, b"\n\0\xff\n" * 1000),
    # 64 KiB not yet parsed, and the longest read of a loop after that.
    Passage("http", None, None, 1, b"x" * (64 + 256) * 1024),
]


@pytest.fixture
def handover() -> Iterator[Handover]:
    handover = Handover()
    yield handover
    handover.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(25)
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def is_writable(descriptor: int) -> bool:
    return bool(select.select([], [descriptor], [], 0)[1])


@pytest.mark.parametrize("passage", PASSAGES)
def test_what_is_known_arrives_with_the_connection(
    handover: Handover, pair: Pair, passage: Passage
) -> None:
    ours, theirs = pair
    assert handover.give(ours.fileno(), passage)
    ours.close()
    taken = handover.take()
    assert taken is not None
    connection, arrived = taken
    with connection:
        assert arrived == passage
        assert not connection.get_inheritable()
        connection.sendall(b"still open")
        assert theirs.recv(100) == b"still open"


def test_nothing_waits(handover: Handover) -> None:
    assert handover.take() is None
    assert not is_readable(handover.incoming)
    assert is_writable(handover.outgoing)


def test_a_full_queue_takes_no_more_and_loses_nothing(handover: Handover, pair: Pair) -> None:
    ours, _ = pair
    given = 0
    while handover.give(ours.fileno(), Passage("http", None, None, given)):
        given += 1
    # More than the ten that a datagram socket would hold.
    assert given > 100
    assert is_readable(handover.incoming)
    assert not is_writable(handover.outgoing)
    for number in range(given):
        taken = handover.take()
        assert taken is not None
        taken[0].close()
        assert taken[1].requests == number
    assert handover.take() is None
    assert handover.give(ours.fileno(), PASSAGE)


def test_what_cannot_be_passed_on_is_an_error(handover: Handover, pair: Pair) -> None:
    ours, _ = pair
    with pytest.raises(OSError, match="Bad file descriptor"):
        handover.give(-1, PASSAGE)
    with pytest.raises(OSError, match="too long"):
        handover.give(ours.fileno(), Passage("http", None, None, 1, b"x" * 1_000_000))
    assert handover.take() is None


def test_a_connection_that_no_descriptor_is_left_for_is_told_of(
    handover: Handover, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    ours, _ = pair
    assert handover.give(ours.fileno(), PASSAGE)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        assert handover.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "a connection is lost" in caplog.text


@pytest.mark.parametrize("message", [b"", b"?\n", b"[]\n", b"7\n", b"{}\n", b"[" * 100_000 + b"\n"])
def test_what_is_no_connection_is_passed_over(
    handover: Handover, pair: Pair, caplog: pytest.LogCaptureFixture, message: bytes
) -> None:
    ours, theirs = pair
    socket.send_fds(handover._writer, [message or b"\n"], [ours.fileno()])
    with Path("/dev/null").open() as file:
        socket.send_fds(handover._writer, [PASSAGE.encode()], [file.fileno()])
    assert handover.give(ours.fileno(), PASSAGE)
    taken = handover.take()
    assert taken is not None
    assert taken[1] == PASSAGE
    taken[0].close()
    ours.close()
    assert theirs.recv(1) == b"", "somebody still holds it"
    assert caplog.text.count("what was handed over is no connection") == 2


def test_closing_closes_what_waits(handover: Handover, pair: Pair) -> None:
    ours, theirs = pair
    assert handover.give(ours.fileno(), PASSAGE)
    ours.close()
    handover.close()
    assert theirs.recv(1) == b""
