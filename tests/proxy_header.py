"""PROXY protocol headers as a proxy writes them (HAProxy's proxy-protocol.txt)."""

import struct
from ipaddress import ip_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UDP4, UNIX = 0x11, 0x21, 0x12, 0x31
CRC32C, NOOP, SSL = 0x03, 0x04, 0x20

# Whom the headers of tests name.
CLIENT, SERVER = ("203.0.113.9", 56324), ("192.0.2.1", 443)
CLIENT6, SERVER6 = ("2001:db8::9", 56324), ("2001:db8::1", 443)


def line(client: tuple[str, int], server: tuple[str, int]) -> bytes:
    """Version 1."""
    family = 6 if ":" in client[0] else 4
    return f"PROXY TCP{family} {client[0]} {server[0]} {client[1]} {server[1]}\r\n".encode()


def block(rest: bytes = b"", *, command: int = PROXY, family: int = TCP4) -> bytes:
    """Version 2: *rest* is addresses and extensions."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def addresses(client: tuple[str, int], server: tuple[str, int]) -> bytes:
    """Version 2's addresses and ports."""
    packed = ip_address(client[0]).packed + ip_address(server[0]).packed
    return packed + struct.pack("!HH", client[1], server[1])


def extension(kind: int, value: bytes) -> bytes:
    """A TLV."""
    return struct.pack("!BH", kind, len(value)) + value


def ssl(flags: int = 0x01) -> bytes:
    """That the client spoke TLS 1.3."""
    return extension(SSL, struct.pack("!BI", flags, 1) + extension(0x21, b"TLSv1.3"))


def summed(header: bytes) -> bytes:
    """*header*, a block, with its checksum as a last extension."""
    rest = header[16:] + extension(CRC32C, bytes(4))
    whole = header[:14] + struct.pack("!H", len(rest)) + rest
    return whole[:-4] + struct.pack("!I", crc32c(whole))


def crc32c(data: bytes) -> int:
    """Bit by bit, as a division of polynomials."""
    value = 0xFFFFFFFF
    for octet in data:
        for bit in range(8):
            odd = (value ^ octet >> bit) & 1
            value = value >> 1 ^ 0x82F63B78 * odd
    return value ^ 0xFFFFFFFF
