"""Request content: where it ends, and what its transfer coding carries.

Both readers share these decoders, for they are stricter than h11's: before 0.16 h11 does not
look at the two bytes that end a chunk, and it accepts bare CR in a chunk extension.
"""

import re
from collections.abc import Callable
from math import inf
from typing import TypeAlias

from pounce.config.service import ServerConfig
from pounce.http1.events import BadRequest

Pieces: TypeAlias = list[bytearray]

# RFC 9112 section 7.1.1. Extensions are dropped unread; BWS may stand before their semicolon.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_PLAIN_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")

# Without trailers, as nearly always.
_LAST_CHUNK = b"0\r\n\r\n"

# How many chunks are decoded at a time. They can be as small as one byte, and whatever a client
# sends, others must be served in between.
_MOST_CHUNKS = 500


class SizedBody:
    """Content whose size is known from the start (RFC 9112 section 6.2)."""

    __slots__ = ("_remaining",)

    def __init__(self, length: int) -> None:
        self._remaining = length

    @property
    def complete(self) -> bool:
        """Whether all of it was read."""
        return self._remaining == 0

    def unread(self, _: bytearray) -> float:
        """How many bytes of it are still to be read."""
        return self._remaining

    def read(self, buffer: bytearray) -> bytes:
        """Take what *buffer* has of it; nothing when the rest has yet to come."""
        data = bytes(buffer[: self._remaining])
        del buffer[: len(data)]
        self._remaining -= len(data)
        return data


class WholeBody:
    """Content that came with its head, all of it and nothing more."""

    __slots__ = ("complete", "data")

    def __init__(self, data: bytes) -> None:
        self.complete = False
        self.data = data

    def unread(self, _: bytearray) -> float:
        """How many bytes of it are still to be read: all are here."""
        return 0

    def read(self, _: bytearray) -> bytes:
        """Take it; what has come since is not of it."""
        self.complete = True
        return self.data


class ChunkedBody:
    """The chunked transfer coding (RFC 9112 section 7.1); trailers are checked and dropped."""

    __slots__ = (
        "_allowance",
        "_config",
        "_fields",
        "_remaining",
        "_scanned",
        "_size",
        "_step",
        "complete",
    )

    _step: Callable[[bytearray, int, Pieces], int]

    def __init__(self, config: ServerConfig) -> None:
        self.complete = False
        self._config = config
        self._size = 0
        self._remaining = 0
        self._scanned = 0
        self._fields = 0
        # What extensions and trailer fields may add up to, else a body of nothing but them
        # would pass every other limit.
        self._allowance = config.max_header_size
        self._step = self._size_line

    def unread(self, buffer: bytearray) -> float:
        """How many bytes of it are still to be read: nobody knows, unless the end is here."""
        if self.complete:
            return 0
        return len(buffer) if _LAST_CHUNK in buffer else inf

    def read(self, buffer: bytearray) -> bytes:
        """Take and decode what *buffer* has of it, or the first part of that where it is much.

        Nothing when the rest has yet to come.
        """
        pieces: Pieces = []
        position = 0
        while not self.complete and len(pieces) < _MOST_CHUNKS:
            after = self._step(buffer, position, pieces)
            if after < 0:
                break
            position = after
        del buffer[:position]
        return b"".join(pieces)

    # Each step takes the buffer, where to begin, and where to put content. It returns where the
    # next one begins, or -1 when the buffer ends too early for it.

    def _size_line(self, buffer: bytearray, start: int, pieces: Pieces) -> int:
        plain = _PLAIN_CHUNK_LINE.match(buffer, start)
        if plain is not None:
            after = self._whole_chunk(buffer, plain.end(), int(plain[1], 16), pieces)
            if after >= 0:
                return after
        line = self._line(buffer, start)
        if line is None:
            return -1
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise BadRequest(400, "malformed chunk")
        self._spend(len(line) - len(match[1]))
        self._remaining = int(match[1], 16)
        self._grow(self._remaining)
        self._step = self._data if self._remaining else self._trailer_line
        return start + len(line) + 2

    def _whole_chunk(self, buffer: bytearray, start: int, size: int, pieces: Pieces) -> int:
        """Nearly every chunk: without extensions, and all here; -1 for any other."""
        end = start + size
        if not size or buffer[end : end + 2] != b"\r\n":
            return -1
        self._grow(size)
        self._scanned = 0
        pieces.append(buffer[start:end])
        return end + 2

    def _data(self, buffer: bytearray, start: int, pieces: Pieces) -> int:
        data = buffer[start : start + self._remaining]
        if not data:
            return -1
        pieces.append(data)
        self._remaining -= len(data)
        if not self._remaining:
            self._step = self._data_end
        return start + len(data)

    def _data_end(self, buffer: bytearray, start: int, _: Pieces) -> int:
        end = buffer[start : start + 2]
        if not b"\r\n".startswith(end):
            raise BadRequest(400, "malformed chunk")
        if len(end) < 2:
            return -1
        self._step = self._size_line
        return start + 2

    def _trailer_line(self, buffer: bytearray, start: int, _: Pieces) -> int:
        line = self._line(buffer, start)
        if line is None:
            return -1
        if line:
            self._check_trailer(line)
        else:
            self.complete = True
        return start + len(line) + 2

    def _line(self, buffer: bytearray, start: int) -> bytes | None:
        """The line that begins at *start*, without its CRLF; None when it is not all here."""
        end = buffer.find(b"\r\n", start + self._scanned)
        if end >= 0:
            self._scanned = 0
            return bytes(buffer[start:end])
        # A CR may be the first half of the end: look at the last byte again.
        self._scanned = max(0, len(buffer) - start - 1)
        if self._scanned > self._allowance + 16:
            raise BadRequest(431, "chunk extensions or trailer fields too large")
        return None

    def _grow(self, size: int) -> None:
        self._size += size
        if self._config.max_body_size and self._size > self._config.max_body_size:
            raise BadRequest(413, "content too large")

    def _check_trailer(self, line: bytes) -> None:
        if not _FIELD_LINE.fullmatch(line):
            raise BadRequest(400, "malformed trailer field")
        self._spend(len(line))
        self._fields += 1
        if self._fields > self._config.max_header_count:
            raise BadRequest(431, "too many trailer fields")

    def _spend(self, size: int) -> None:
        self._allowance -= size
        if self._allowance < 0:
            raise BadRequest(431, "chunk extensions or trailer fields too large")
