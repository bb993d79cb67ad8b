"""Variable-length integers (RFC 9000 section 16) and HTTP/3 frames (RFC 9114 section 7)."""

from enum import IntEnum
from typing import NamedTuple

from pounce.http3.errors import Code, ConnectionFailed


class Type(IntEnum):
    """The frames that a server knows, and those of HTTP/2 that must not appear (section 11.2.1)."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    CANCEL_PUSH = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    MAX_PUSH_ID = 0xD


_KNOWN = frozenset(Type)

MAX_VARINT = (1 << 62) - 1


class Frame(NamedTuple):
    """A frame, or of DATA a piece."""

    type: int
    payload: bytes


def encode_varint(value: int) -> bytes:
    """In as few bytes as possible."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")


def decode_varint(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """The integer at *at* and where it ends; None when it is not all here."""
    if at >= len(data):
        return None
    first = data[at]
    if first < 0x40:
        return first, at + 1
    end = at + (1 << (first >> 6))
    if end > len(data):
        return None
    bits = 8 * (end - at) - 2
    return int.from_bytes(data[at:end], "big") & ((1 << bits) - 1), end


def encode_frame(kind: int, payload: bytes) -> bytes:
    """A whole frame."""
    return encode_varint(kind) + encode_varint(len(payload)) + payload


class FrameReader:
    """Cuts what comes on one stream into frames.

    DATA comes as it arrives, piece by piece; other known frames come whole, if they are not
    longer than *limit*; what is unknown is passed over (section 9).
    """

    __slots__ = ("_buffer", "_left", "_limit", "_type")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._type = -1
        self._left = 0

    @property
    def within_frame(self) -> bool:
        """Whether the stream must not end here."""
        return self._type >= 0 or bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._buffer += data

    def next(self) -> Frame | None:
        """The next frame, or the next piece of one; None when it has yet to come.

        Raises ConnectionFailed for a frame that is too long. The caller checks HEADERS first, by
        `oversized`.
        """
        while self._type >= 0 or self._begin():
            if self._type == Type.DATA:
                return self._piece()
            if self._type not in _KNOWN:
                if not self._pass_over():
                    return None
            elif self._left > self._limit:
                raise ConnectionFailed(Code.EXCESSIVE_LOAD, "the frame is too long")
            elif self._left > len(self._buffer):
                return None
            else:
                return Frame(self._end(), self._take(self._left))
        return None

    @property
    def oversized(self) -> bool:
        """Whether a HEADERS frame has begun that is longer than allowed."""
        begun = self._type >= 0 or self._begin()
        return begun and self._type == Type.HEADERS and self._left > self._limit

    def _begin(self) -> bool:
        kind = decode_varint(self._buffer, 0)
        length = decode_varint(self._buffer, kind[1]) if kind else None
        if kind is None or length is None:
            return False
        self._type = kind[0]
        self._left = length[0]
        del self._buffer[: length[1]]
        return True

    def _end(self) -> int:
        kind, self._type = self._type, -1
        return kind

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _piece(self) -> Frame | None:
        piece = self._take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._end()
        elif not piece:
            return None
        return Frame(Type.DATA, piece)

    def _pass_over(self) -> bool:
        self._left -= len(self._take(self._left))
        if self._left:
            return False
        self._end()
        return True
