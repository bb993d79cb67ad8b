"""Connection ids, tokens, and datagrams that nobody holds keys for."""

import os

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicPacketType, get_retry_integrity_tag, pull_quic_header

from pounce.http3 import packets
from pounce.http3.tokens import (
    CONNECTION_ID_SIZE,
    SECRET_SIZE,
    ConnectionIds,
    Identity,
    RetryTokens,
)

SECRET = bytes(range(SECRET_SIZE))
ADDRESS = b"('192.0.2.1', 4433)"


@pytest.mark.parametrize("mailbox", [0, 1, 255, 65535])
def test_an_id_names_a_mailbox_to_those_who_know_the_secret(mailbox: int) -> None:
    ids = ConnectionIds(SECRET)
    made = Identity(ids, mailbox).new_id()
    assert len(made) == CONNECTION_ID_SIZE
    assert ids.mailbox(made) == mailbox
    assert ConnectionIds(SECRET).mailbox(made) == mailbox
    assert ConnectionIds(os.urandom(SECRET_SIZE)).mailbox(made) is None
    assert ids.mailbox(made[:-1]) is None


def test_ids_of_one_mailbox_have_nothing_in_common() -> None:
    made = {ConnectionIds(SECRET).make(7)[-4:] for _ in range(100)}
    assert len(made) == 100


def test_reset_tokens() -> None:
    ids = ConnectionIds(SECRET)
    tokens = {ids.reset_token(ids.make(1)) for _ in range(10)}
    assert len(tokens) == 10
    assert {len(token) for token in tokens} == {16}
    assert ids.reset_token(b"x") == ConnectionIds(SECRET).reset_token(b"x")
    assert ids.reset_token(b"x") != ConnectionIds(os.urandom(SECRET_SIZE)).reset_token(b"x")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_retry_token_is_for_one_address_one_id_and_a_short_time() -> None:
    clock = Clock()
    tokens = RetryTokens(SECRET, clock)
    token = tokens.make(ADDRESS, b"original", b"chosen")
    assert RetryTokens(SECRET, clock).original(token, ADDRESS, b"chosen") == b"original"
    assert tokens.original(token, b"elsewhere", b"chosen") is None
    assert tokens.original(token, ADDRESS, b"another") is None
    assert tokens.original(token[:-1], ADDRESS, b"chosen") is None
    assert tokens.original(token[:-1] + bytes((token[-1] ^ 1,)), ADDRESS, b"chosen") is None
    assert RetryTokens(os.urandom(32), clock).original(token, ADDRESS, b"chosen") is None
    clock.now += 14
    assert tokens.original(token, ADDRESS, b"chosen") == b"original"
    clock.now += 2
    assert tokens.original(token, ADDRESS, b"chosen") is None


@pytest.mark.parametrize("size", range(40))
def test_no_garbage_is_a_retry_token(size: int) -> None:
    tokens = RetryTokens(SECRET, Clock())
    assert tokens.original(os.urandom(size), ADDRESS, b"chosen") is None


def long_header(version: int, destination: bytes, source: bytes, rest: bytes = b"") -> bytes:
    ids = bytes((len(destination),)) + destination + bytes((len(source),)) + source
    return (b"\xc0" + version.to_bytes(4, "big") + ids + rest).ljust(1200, b"\0")


DESTINATION, SOURCE = b"destination-id", b"source"


def test_where_a_datagram_goes() -> None:
    assert packets.destination(long_header(1, DESTINATION, SOURCE)) == DESTINATION
    assert packets.destination(b"\x40" + b"0123456789" + b"more") == b"0123456789"
    for garbage in (b"", b"\x40", b"\xc0", b"\xc0\0\0\0\1", b"\xc0\0\0\0\1\x14abc"):
        assert len(packets.destination(garbage)) < CONNECTION_ID_SIZE


def test_a_version_that_is_not_spoken() -> None:
    answer = packets.unsupported_version(long_header(0x1A2A3A4A, b"d" * 200, b"s" * 200))
    assert answer is not None
    assert answer[0] & 0x80
    assert answer[1:5] == bytes(4)
    assert answer[5:] == b"\xc8" + b"s" * 200 + b"\xc8" + b"d" * 200 + bytes.fromhex(
        "00000001 6b3343cf"
    )


@pytest.mark.parametrize(
    "data",
    [
        long_header(1, DESTINATION, SOURCE),
        long_header(0, DESTINATION, SOURCE),  # itself a version negotiation
        long_header(0x1A2A3A4A, DESTINATION, SOURCE)[:1199],  # it would be amplified
        b"\x40" + bytes(1300),
    ],
)
def test_no_version_is_negotiated(data: bytes) -> None:
    assert packets.unsupported_version(data) is None


# An Initial packet's token, its length and what is encrypted.
REST = b"\x03tok" + b"\x44\x50" + bytes(1104)


def test_initial_packets() -> None:
    found = packets.initial(long_header(1, DESTINATION, SOURCE, REST))
    assert found == packets.Initial(1, DESTINATION, SOURCE, b"tok")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        long_header(1, DESTINATION, SOURCE, REST)[:1199],
        long_header(1, b"short", SOURCE, REST),
        long_header(1, DESTINATION * 2, SOURCE, REST),
        long_header(2, DESTINATION, SOURCE, REST),
        b"\xe0" + long_header(1, DESTINATION, SOURCE, REST)[1:],  # a Handshake packet
        long_header(1, DESTINATION, SOURCE, b"\x03tok\x7f\xff"),
        *(os.urandom(1200) for _ in range(50)),
    ],
)
def test_what_begins_no_connection(data: bytes) -> None:
    assert packets.initial(data) is None


def test_a_retry() -> None:
    first = packets.Initial(1, DESTINATION, SOURCE, b"")
    datagram = packets.retry(first, b"chosen-one", b"a token")
    header = pull_quic_header(Buffer(data=datagram), host_cid_length=CONNECTION_ID_SIZE)
    assert header.packet_type is QuicPacketType.RETRY
    assert (header.destination_cid, header.source_cid) == (SOURCE, b"chosen-one")
    assert header.token == b"a token"
    assert header.integrity_tag == get_retry_integrity_tag(datagram[:-16], DESTINATION, 1)


def test_a_stateless_reset_looks_like_a_packet_and_is_shorter_than_what_it_answers() -> None:
    token = bytes(16)
    for size in (*range(60), 1200):
        answer = packets.stateless_reset(size, token)
        if size < 22:
            assert answer is None
        else:
            assert answer is not None
            assert 21 <= len(answer) < min(size, 43)
            assert answer[0] & 0xC0 == 0x40
            assert answer.endswith(token)
