"""The PROXY protocol, versions 1 and 2: what a proxy says about a connection before its first byte.

Specified by HAProxy's proxy-protocol.txt; sections cited here are its own. Nothing here reads
from a socket, and nothing guesses: the caller knows that a header has to come.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

Endpoint: TypeAlias = tuple[str, int]

MAX_HEADER = 4096
"""Bytes of the longest header that is read: one with everything in it takes some hundreds."""

_SIGNATURE_1 = b"PROXY "
_SIGNATURE_2 = b"\r\n\r\n\x00\r\nQUIT\n"

# Section 2.1: the longest line, its CRLF included.
_MAX_LINE = 107
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [ -~]*)?")
_NUMBER = rb"(0|[1-9][0-9]{0,4})"
_KNOWN = re.compile(
    rb"PROXY TCP([46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) %b %b" % (_NUMBER, _NUMBER)
)

# Section 2.2: a fixed part, then addresses of a length that the family gives, then TLVs.
_FIXED = 16
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _INET, _INET6, _UNIX = range(4)
_ADDRESSES = {_INET: 2 * 4 + 4, _INET6: 2 * 16 + 4, _UNIX: 2 * 108}
_LAST_TRANSPORT = 2
_CRC32C, _SSL = 0x03, 0x20
_CLIENT_SSL = 0x01


class BadHeader(Exception):
    """The bytes are no PROXY header; the message says why, in words for a log."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header of *size* bytes.

    Where *client* and *server* are None the connection is the proxy's own, such as a health
    check, or of a kind that has no such addresses: then those of the connection itself count.
    *tls* is whether the client spoke TLS with the proxy.
    """

    size: int
    client: Endpoint | None = None
    server: Endpoint | None = None
    tls: bool = False


def read_header(data: bytes) -> ProxyHeader | None:
    """Read the header that *data* begins with; None where it is only part of one.

    Raises BadHeader as soon as *data* cannot become one.
    """
    for signature, read in ((_SIGNATURE_1, _read_line), (_SIGNATURE_2, _read_block)):
        if data.startswith(signature):
            return read(data)
        if signature.startswith(data):
            return None
    raise BadHeader("it does not begin with a PROXY header")


def _read_line(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _MAX_LINE)
    if end < 0:
        # The last byte may be the CR that ends the line.
        if len(data) >= _MAX_LINE or not _is_text(data.removesuffix(b"\r")):
            raise BadHeader("its PROXY line does not end")
        return None
    line, size = data[:end], end + 2
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader(size)
    match = _KNOWN.fullmatch(line)
    if match is None:
        raise BadHeader("its PROXY line is malformed")
    kind = IPv4Address if match[1] == b"4" else IPv6Address
    try:
        hosts = [_text(kind(host.decode("ascii"))) for host in match.group(2, 3)]
    except ValueError:
        raise BadHeader("its PROXY line has no addresses of the family it names") from None
    ports = [_port(digits) for digits in match.group(4, 5)]
    client, server = zip(hosts, ports, strict=True)
    return ProxyHeader(size, client, server)


def _is_text(data: bytes) -> bool:
    return data.isascii() and data.decode("ascii").isprintable()


def _port(digits: bytes) -> int:
    port = int(digits)
    if port > 65535:
        raise BadHeader("its PROXY line has a port above 65535")
    return port


def _read_block(data: bytes) -> ProxyHeader | None:
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise BadHeader(f"its PROXY header has the unknown version and command {data[12]:#04x}")
    if len(data) < _FIXED:
        return None
    size = _FIXED + int.from_bytes(data[14:_FIXED])
    if size > MAX_HEADER:
        raise BadHeader(f"its PROXY header takes {size} bytes, more than {MAX_HEADER}")
    if len(data) < size:
        return None
    # "Discard the protocol block including the family."
    return ProxyHeader(size) if data[12] == _LOCAL else _read_relayed(data[:size])


def _read_relayed(header: bytes) -> ProxyHeader:
    size, family, transport = len(header), header[13] >> 4, header[13] & 0x0F
    if family > _UNIX or transport > _LAST_TRANSPORT:
        raise BadHeader(f"its PROXY header has the unknown family {header[13]:#04x}")
    if _UNSPECIFIED in (family, transport):
        return ProxyHeader(size)
    end = _FIXED + _ADDRESSES[family]
    if size < end:
        raise BadHeader("its PROXY header is too short for its addresses")
    tls = _read_extensions(header, end)
    if family == _UNIX:
        return ProxyHeader(size, tls=tls)
    client, server = _endpoints(header[_FIXED:end])
    return ProxyHeader(size, client, server, tls)


def _endpoints(block: bytes) -> tuple[Endpoint, Endpoint]:
    """Source and destination: two addresses, then two ports (section 2.2, union proxy_addr)."""
    width = (len(block) - 4) // 2
    hosts = [_text(ip_address(block[:width])), _text(ip_address(block[width:-4]))]
    ports = [int.from_bytes(block[-4:-2]), int.from_bytes(block[-2:])]
    client, server = zip(hosts, ports, strict=True)
    return client, server


def _text(address: IPv4Address | IPv6Address) -> str:
    # A proxy that listens on both families sees IPv4 clients as ::ffff:192.0.2.1 (ipv6(7)).
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _read_extensions(header: bytes, start: int) -> bool:
    """Check the checksum, where there is one; whether the client spoke TLS."""
    tls = False
    for kind, at, end in _extensions(header, start):
        if kind == _CRC32C:
            _verify(header, at, end)
        elif kind == _SSL:
            # Section 2.2.6: a bit field, a four-byte verdict on the certificate, and more TLVs.
            if end - at < 5:
                raise BadHeader("its PROXY header has a truncated SSL extension")
            tls = bool(header[at] & _CLIENT_SSL)
    return tls


def _extensions(header: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Each TLV: its type, and where its value begins and ends."""
    while at < len(header):
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : value])
        if value > len(header) or end > len(header):
            raise BadHeader("its PROXY header has a truncated extension")
        yield header[at], value, end
        at = end


def _verify(header: bytes, at: int, end: int) -> None:
    """Section 2.2.3: the sum is that of the header with zeros in its place."""
    whole = header[:at] + bytes(end - at) + header[end:]
    if header[at:end] != crc32c(whole).to_bytes(4):
        raise BadHeader("its PROXY header has a wrong checksum")


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            # The polynomial of RFC 9260 appendix A, its bits reversed.
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """The CRC-32C of *data*; zlib's is of another polynomial."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC_TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
