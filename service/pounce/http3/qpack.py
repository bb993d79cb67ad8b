"""Field sections by QPACK's static table alone (RFC 9204).

What a client can have us expand is bounded by what it sends, no request waits for another
stream, and a response's head is one frame. Encoding is done here: pylsqpack's encoder takes no
field of more than 4 KiB.
"""

from functools import lru_cache

import pylsqpack

from pounce.http3.errors import Code, ConnectionFailed

Fields = list[tuple[bytes, bytes]]

# RFC 9204 section 4.5.1: no entry of the dynamic table is referred to.
_PREFIX = b"\0\0"
_STATIC_ENTRIES = 99  # appendix A

_REMEMBERED = 512


class Decoder:
    """Decodes what one client sends."""

    def __init__(self) -> None:
        self._decoder = pylsqpack.Decoder(0, 0)

    def fields(self, section: bytes) -> Fields:
        """The fields of a field section; raises ConnectionFailed."""
        if section == _PREFIX:  # which pylsqpack takes for an error
            return []
        try:
            return self._decoder.feed_header(0, section)[1]
        except (pylsqpack.DecompressionFailed, pylsqpack.StreamBlocked, ValueError) as error:
            raise ConnectionFailed(Code.QPACK_DECOMPRESSION_FAILED, "") from error

    def instructions(self, data: bytes) -> None:
        """Take what comes on the encoder stream; the table has no room for anything."""
        try:
            self._decoder.feed_encoder(data)
        except (pylsqpack.EncoderStreamError, ValueError) as error:
            raise ConnectionFailed(Code.QPACK_ENCODER_STREAM_ERROR, "") from error


def encode(fields: Fields) -> bytes:
    """A field section."""
    return _PREFIX + b"".join([_line(name, value) for name, value in fields])


# Applications send the same few fields again and again.
@lru_cache(_REMEMBERED)
def _line(name: bytes, value: bytes) -> bytes:
    indexes = _indexes()
    index = indexes.get((name, value))
    if index is not None:
        return _integer(0xC0, 6, index)  # section 4.5.2
    index = indexes.get(name)
    if index is not None:
        return _integer(0x50, 4, index) + _integer(0, 7, len(value)) + value  # section 4.5.4
    return _integer(0x20, 3, len(name)) + name + _integer(0, 7, len(value)) + value  # 4.5.6


@lru_cache(1)
def _indexes() -> dict[bytes | tuple[bytes, bytes], int]:
    """The static table, as the decoder knows it: by field, and by name for the first of each."""
    decoder = Decoder()
    indexes: dict[bytes | tuple[bytes, bytes], int] = {}
    for index in range(_STATIC_ENTRIES):
        ((name, value),) = decoder.fields(_PREFIX + _integer(0xC0, 6, index))
        indexes[name, value] = index
        indexes.setdefault(name, index)
    return indexes


def _integer(first: int, bits: int, value: int) -> bytes:
    """A prefixed integer (RFC 7541 section 5.1), *bits* of it in the byte *first*."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    encoded, value = bytearray((first | most,)), value - most
    while value > 0x7F:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
