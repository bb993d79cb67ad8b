"""Datagrams as seen by somebody who holds no keys (RFC 8999, RFC 9000 section 17)."""

import os
import struct
from typing import NamedTuple

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder

from pounce.http3.tokens import CONNECTION_ID_SIZE, RESET_TOKEN_SIZE

VERSIONS: list[int] = [QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2]

# RFC 9000 section 14.1: what a client's first packet comes in at least.
MIN_INITIAL_DATAGRAM = 1200
# RFC 9000 section 7.2.
MIN_ORIGINAL_ID = 8
# RFC 9000 section 10.3: a reset looks like a packet, so it has 5 bytes before its token at
# least. This one is as long as the shortest packet that this server asks its clients for, and no
# longer, so that two who have both forgotten do not answer each other for ever.
_MIN_RESET = 5 + RESET_TOKEN_SIZE
_RESET = 42

LONG = 0x80
_VERSION = struct.Struct("!xI")

# A first byte's header form, fixed bit and packet type.
TYPE = 0xF0
INITIALS: list[tuple[bytes, int]] = [
    (QuicProtocolVersion.VERSION_1.to_bytes(4, "big"), 0xC0),  # RFC 9000 section 17.2.2
    (QuicProtocolVersion.VERSION_2.to_bytes(4, "big"), 0xD0),  # RFC 9369 section 3.2
]
"""Each version's bytes, and how its Initial packets begin."""


def destination(data: bytes) -> bytes:
    """The connection id that the datagram is for; empty if there is none."""
    if not data:
        return b""
    if not data[0] & LONG:
        return data[1 : 1 + CONNECTION_ID_SIZE]
    if len(data) < 6:
        return b""
    return data[6 : 6 + data[5]]


def is_short(data: bytes) -> bool:
    """Whether the datagram has a packet for an established connection."""
    return not data[0] & LONG


def may_begin(data: bytes) -> bool:
    """Whether the datagram looks as if it began with an Initial packet that may be answered."""
    if len(data) < MIN_INITIAL_DATAGRAM or data[5] < MIN_ORIGINAL_ID:
        return False
    return (data[1:5], data[0] & TYPE) in INITIALS


class Initial(NamedTuple):
    """A client's first packet, or one of its first."""

    version: int
    destination: bytes
    source: bytes
    token: bytes


def unsupported_version(data: bytes) -> bytes | None:
    """The answer to a packet of a version that is not spoken here; None where that is not due."""
    if len(data) < MIN_INITIAL_DATAGRAM or not data[0] & LONG:
        return None
    (version,) = _VERSION.unpack_from(data)
    if version in VERSIONS or version == QuicProtocolVersion.NEGOTIATION:
        return None
    end = 6 + data[5]
    source = data[end + 1 : end + 1 + data[end]]
    return bytes(
        encode_quic_version_negotiation(
            source_cid=data[6:end], destination_cid=source, supported_versions=VERSIONS
        )
    )


def initial(data: bytes) -> Initial | None:
    """The Initial packet that *data* begins with; None if there is none that may be answered."""
    if len(data) < MIN_INITIAL_DATAGRAM:
        return None
    try:
        header = pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID_SIZE)
    except ValueError:
        return None
    if header.packet_type is not QuicPacketType.INITIAL or header.version not in VERSIONS:
        return None
    if len(header.destination_cid) < MIN_ORIGINAL_ID:
        return None
    return Initial(header.version, header.destination_cid, header.source_cid, header.token)


def retry(first: Initial, chosen: bytes, token: bytes) -> bytes:
    """Ask the client to begin again, with *token*, and *chosen* as the server's id."""
    return bytes(
        encode_quic_retry(
            version=first.version,
            source_cid=chosen,
            destination_cid=first.source,
            original_destination_cid=first.destination,
            retry_token=token,
        )
    )


def refusal(first: Initial, chosen: bytes) -> bytes:
    """Tell the client that no connection is taken; *chosen* is the server's id.

    It is CONNECTION_CLOSE in an Initial packet, whose keys everybody knows (RFC 9001 section 5.2),
    so no handshake has to be begun for it.
    """
    keys = CryptoPair()
    keys.setup_initial(first.destination, is_client=False, version=first.version)
    builder = QuicPacketBuilder(
        host_cid=chosen,
        peer_cid=first.source,
        version=first.version,
        is_client=False,
        max_datagram_size=MIN_INITIAL_DATAGRAM,
    )
    builder.start_packet(QuicPacketType.INITIAL, keys)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE)
    frame.push_uint_var(QuicErrorCode.CONNECTION_REFUSED)
    frame.push_uint_var(QuicFrameType.PADDING)  # no frame is the cause
    frame.push_uint_var(0)  # the length of a reason
    [datagram], _ = builder.flush()
    return datagram


def stateless_reset(size: int, token: bytes) -> bytes | None:
    """The answer to a datagram of *size* bytes for a connection that is forgotten."""
    length = min(_RESET, size - 1)
    if length < _MIN_RESET:
        return None
    noise = bytearray(os.urandom(length - RESET_TOKEN_SIZE))
    noise[0] = 0x40 | noise[0] & 0x3F  # as if it were a short header
    return bytes(noise) + token
