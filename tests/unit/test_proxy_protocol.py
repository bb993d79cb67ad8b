"""The PROXY protocol's reader, against its specification and an independent model of it."""

import ipaddress
import struct
from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pounce.net.proxy_protocol import MAX_HEADER, BadHeader, ProxyHeader, crc32c, read_header
from tests import proxy_header
from tests.proxy_header import (
    CLIENT,
    CLIENT6,
    LOCAL,
    NOOP,
    SERVER,
    SERVER6,
    SIGNATURE,
    SSL,
    TCP4,
    TCP6,
    UDP4,
    UNIX,
    addresses,
    block,
    extension,
    line,
    ssl,
    summed,
)

FOUR, SIX = addresses(CLIENT, SERVER), addresses(CLIENT6, SERVER6)
LONGEST = b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n"

READ = {
    "tcp4": (line(CLIENT, SERVER), CLIENT, SERVER, False),
    "tcp6": (line(CLIENT6, SERVER6), CLIENT6, SERVER6, False),
    "tcp6 in full": (
        b"PROXY TCP6 2001:0DB8:0:0:0:0:0:9 2001:db8:0000::1 56324 443\r\n",
        CLIENT6,
        SERVER6,
        False,
    ),
    "tcp6 of an IPv4 client": (
        b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:c000:201 56324 443\r\n",
        CLIENT,
        SERVER,
        False,
    ),
    "ports": (
        b"PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n",
        ("1.2.3.4", 0),
        ("5.6.7.8", 65535),
        False,
    ),
    "unknown": (b"PROXY UNKNOWN\r\n", None, None, False),
    "unknown with more": (b'PROXY UNKNOWN "what ever" TCP4\r\n', None, None, False),
    "longest": (LONGEST, None, None, False),
    "v2 tcp4": (block(FOUR), CLIENT, SERVER, False),
    "v2 tcp6": (block(SIX, family=TCP6), CLIENT6, SERVER6, False),
    "v2 udp4": (block(FOUR, family=UDP4), CLIENT, SERVER, False),
    "v2 tcp6 of an IPv4 client": (
        block(addresses(("::ffff:203.0.113.9", 56324), SERVER6), family=TCP6),
        CLIENT,
        SERVER6,
        False,
    ),
    "v2 unix": (block(bytes(216), family=UNIX), None, None, False),
    "v2 unix and tls": (block(bytes(216) + ssl(), family=UNIX), None, None, True),
    "v2 unspecified": (block(b"what ever", family=0), None, None, False),
    "v2 unspecified transport": (block(FOUR, family=0x10), None, None, False),
    "v2 unspecified family": (block(FOUR, family=0x01), None, None, False),
    "v2 local": (block(command=LOCAL, family=0), None, None, False),
    "v2 local with addresses": (block(FOUR + b"\x99", command=LOCAL), None, None, False),
    "v2 local of no family": (block(command=LOCAL, family=0xFF), None, None, False),
    "v2 tls": (block(FOUR + ssl()), CLIENT, SERVER, True),
    "v2 no tls": (block(FOUR + ssl(flags=0)), CLIENT, SERVER, False),
    "v2 certificate only": (block(FOUR + ssl(flags=0x06)), CLIENT, SERVER, False),
    "v2 padding": (block(FOUR + extension(NOOP, b"") * 2 + ssl()), CLIENT, SERVER, True),
    "v2 of our own": (block(FOUR + extension(0xE0, b"x" * 300)), CLIENT, SERVER, False),
    "v2 sum": (summed(block(FOUR + ssl())), CLIENT, SERVER, True),
    "v2 sum of unix": (summed(block(bytes(216), family=UNIX)), None, None, False),
    "v2 longest": (block(bytes(MAX_HEADER - 16), command=LOCAL), None, None, False),
}


@pytest.mark.parametrize("name", READ)
def test_headers(name: str) -> None:
    data, client, server, tls = READ[name]
    expected = ProxyHeader(len(data), client, server, tls)
    assert read_header(data) == expected
    assert read_header(data + b"GET / HTTP/1.1\r\n\r\n") == expected
    for end in range(len(data)):
        assert read_header(data[:end]) is None, end


REFUSED = [
    # Section 2.1
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "does not end"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n", "malformed"),
    (b"PROXY UNKNOWN\nGET / HTTP/1.1\r\n", "malformed"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", "malformed"),
    (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", "malformed"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", "malformed"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", "malformed"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "malformed"),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "above 65535"),
    (b"PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n", "no addresses"),
    (b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", "no addresses"),
    (b"PROXY TCP4 ::1 ::2 1 2\r\n", "no addresses"),
    (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "no addresses"),
    (b"PROXY TCP6 ::1 :::2 1 2\r\n", "no addresses"),
    (b"PROXY TCP6 ::1%lo ::2 1 2\r\n", "malformed"),
    (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "malformed"),
    (b"PROXY UNKNOWNS\r\n", "malformed"),
    (b"PROXY \r\n", "malformed"),
    (b"PROXY TCP4 \xff", "does not end"),
    (LONGEST[:-2] + b"f\r\n", "does not end"),
    (b"PROXY " + b"x" * 101, "does not end"),
    # Neither version
    (b"GET / HTTP/1.1\r\n", "does not begin"),
    (b"G", "does not begin"),
    (b"PROXZ", "does not begin"),
    (b"proxy TCP4 ", "does not begin"),
    (b"\r\n\r\n\r\n", "does not begin"),
    (SIGNATURE[:-1] + b"\r", "does not begin"),
    (b"\x16\x03\x01", "does not begin"),
    # Section 2.2
    (block(FOUR, command=0x11), "version and command 0x11"),
    (block(FOUR, command=0x22), "version and command 0x22"),
    (SIGNATURE + b"\x31", "version and command 0x31"),
    (block(FOUR, family=0x13), "family 0x13"),
    (block(FOUR, family=0x41), "family 0x41"),
    (block(FOUR[:-1]), "too short"),
    (block(SIX[:-1], family=TCP6), "too short"),
    (block(bytes(215), family=UNIX), "too short"),
    (block(FOUR + b"\x04"), "truncated extension"),
    (block(FOUR + b"\x04\x00"), "truncated extension"),
    (block(FOUR + b"\x04\x00\x01"), "truncated extension"),
    (block(FOUR + extension(SSL, bytes(4))), "truncated SSL"),
    (summed(block(FOUR))[:-1] + b"\x00", "wrong checksum"),
    (block(FOUR + extension(proxy_header.CRC32C, b"")), "wrong checksum"),
    (block(FOUR + extension(proxy_header.CRC32C, bytes(5))), "wrong checksum"),
    (block(bytes(MAX_HEADER - 15), command=LOCAL), "more than 4096"),
    (block(bytes(MAX_HEADER - 15))[:16], "more than 4096"),
]


@pytest.mark.parametrize(("data", "why"), REFUSED)
def test_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadHeader, match=why):
        read_header(data)


@pytest.mark.parametrize("data", [b"123456789", b"", bytes(32), b"\xff" * 32])
def test_the_checksum(data: bytes) -> None:
    assert crc32c(data) == proxy_header.crc32c(data)


def test_the_checksum_has_the_known_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283


# A second reading of the specification, made of other parts. It says what has come of the bytes:
# "more", "bad", or client, server, TLS and how long the header is.

Verdict: TypeAlias = str | tuple[object, object, bool, int]


def model(data: bytes) -> Verdict:
    if data[:1] == b"P":
        return model_1(data)
    if data[:12] == SIGNATURE[: len(data)]:
        return "more" if len(data) <= 12 else model_2(data)
    return "bad" if data else "more"


def model_1(data: bytes) -> Verdict:
    if data[:6] != b"PROXY "[: len(data)]:
        return "bad"
    text, ending, _ = data[:107].partition(b"\r\n")
    if not ending:
        hopeless = len(data) >= 107 or any(
            not 32 <= each < 127 for each in data.removesuffix(b"\r")
        )
        return "bad" if hopeless else "more"
    if any(not 32 <= each < 127 for each in text):
        return "bad"
    words = text.decode().split(" ")
    if words[1] == "UNKNOWN":
        return None, None, False, len(text) + 2
    try:
        _, family, *hosts, source, destination = words
        ips = [model_ip(family, host) for host in hosts]
        ports = [int(each) for each in (source, destination) if each == str(int(each))]
    except (ValueError, KeyError):
        return "bad"
    if len(ips) != 2 or len(ports) != 2 or not all(0 <= each <= 65535 for each in ports):
        return "bad"
    return (ips[0], ports[0]), (ips[1], ports[1]), False, len(text) + 2


Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
KINDS: dict[str, Callable[[str], Address]] = {
    "TCP4": ipaddress.IPv4Address,
    "TCP6": ipaddress.IPv6Address,
}


def model_ip(family: str, text: str) -> str:
    if "%" in text or "/" in text:
        raise ValueError(text)
    return unmapped(KINDS[family](text))


def unmapped(address: Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)


def model_2(data: bytes) -> Verdict:
    if data[12] != 0x20 and data[12] != 0x21:
        return "bad"
    if len(data) < 16:
        return "more"
    command, family, length = struct.unpack("!12xBBH", data[:16])
    if length > MAX_HEADER - 16:
        return "bad"
    if len(data) - 16 < length:
        return "more"
    if command == 0x20:
        return None, None, False, 16 + length
    if family not in {f << 4 | t for f in range(4) for t in range(3)}:
        return "bad"
    if family in {0x00, 0x01, 0x02, 0x10, 0x20, 0x30}:
        return None, None, False, 16 + length
    layout = {1: "!4s4sHH", 2: "!16s16sHH", 3: "!108s108s"}[family >> 4]
    size = struct.calcsize(layout)
    tls = model_extensions(data[: 16 + length], 16 + size) if length >= size else None
    if tls is None:
        return "bad"
    if family >> 4 == 3:
        return None, None, tls, 16 + length
    source, destination, *ports = struct.unpack_from(layout, data, 16)
    hosts = [unmapped(ipaddress.ip_address(each)) for each in (source, destination)]
    return (hosts[0], ports[0]), (hosts[1], ports[1]), tls, 16 + length


def model_extensions(header: bytes, start: int) -> bool | None:
    """Whether TLS is told; None where they are wrong."""
    tls, rest = False, header[start:]
    while rest:
        if len(rest) < 3:
            return None
        kind, length = struct.unpack("!BH", rest[:3])
        value, rest = rest[3 : 3 + length], rest[3 + length :]
        if len(value) < length or (kind == SSL and length < 5):
            return None
        if kind == SSL:
            tls = value[0] % 2 == 1
        if kind == proxy_header.CRC32C:
            at = len(header) - len(rest) - length
            cleared = header[:at] + b"\0" * length + header[at + length :]
            if value != struct.pack("!I", proxy_header.crc32c(cleared)):
                return None
    return tls


def verdict(data: bytes) -> Verdict:
    try:
        header = read_header(data)
    except BadHeader:
        return "bad"
    return (header.client, header.server, header.tls, header.size) if header else "more"


ports = st.integers(0, 65535)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Well-formed headers of both versions, and what follows them."""
    ips, family = draw(
        st.sampled_from([(st.ip_addresses(v=4), TCP4), (st.ip_addresses(v=6), TCP6)])
    )
    client, server = ((str(draw(ips)), draw(ports)) for _ in ("client", "server"))
    follows = draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"]))
    if draw(st.booleans()):
        return line(client, server) + follows
    own = st.builds(extension, st.sampled_from([1, 2, 5, 0x30, 0xE5]), st.binary(max_size=9))
    extensions = draw(st.lists(st.just(ssl()) | own | st.just(extension(NOOP, b"")), max_size=3))
    made = block(
        addresses(client, server) + b"".join(extensions),
        command=draw(st.sampled_from([LOCAL, 0x21, 0x21])),
        family=family,
    )
    return (summed(made) if draw(st.booleans()) else made) + follows


Change: TypeAlias = Callable[[bytes], bytes]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """One piece of damage: cut, overwrite or insert."""
    at, removed = draw(st.integers(0, 60)), draw(st.sampled_from([0, 1, 1, 4]))
    likely = [b" ", b"\r", b"\n", b"\r\n", b"0", b"\0", b"\xff", b"\x20", b"\x21", b"\x11", b":"]
    added = draw(st.sampled_from(likely) | st.binary(max_size=3))
    return lambda data: data[:at] + added + data[at + removed :]


@settings(max_examples=300, deadline=None)
@given(headers(), st.lists(changes(), max_size=3))
@example(b"PROXY UNKNOWN \t\r\n", [])
@example(b"", [])
def test_it_agrees_with_the_model(data: bytes, damage: list[Change]) -> None:
    for change in damage:
        data = change(data)
    assert verdict(data) == model(data)


@settings(max_examples=100, deadline=None)
@given(headers(), st.lists(changes(), max_size=1))
def test_a_verdict_stands_whatever_follows(data: bytes, damage: list[Change]) -> None:
    for change in damage:
        data = change(data)
    verdicts = [verdict(data[:end]) for end in range(len(data) + 1)]
    decided = [each for each in verdicts if each != "more"]
    assert len(set(decided)) <= 1
    assert verdicts == ["more"] * (len(verdicts) - len(decided)) + decided
