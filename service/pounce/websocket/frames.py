"""The frames that a client sends, one after the other, long ones divided into short ones.

The library keeps a frame until it is whole, and copies it three times then. Divided as its sender
could have done (RFC 6455 section 5.4), its content is unmasked, inflated and checked as it comes,
and is in memory once.
"""

_FIN = 0x80
_MASKED = 0x80

# RFC 6455 section 5.2: what the second byte says of longer frames, and how long these are.
_MEDIUM, _LONG = 126, 127
_SHORTEST_LONG = 65_536

_BEGINNING = 2  # the bytes that tell what kind of head it is
_KEY = 4
_LONGEST_HEAD = _BEGINNING + 8 + _KEY

# The longest that a long one is divided into.
_PART = 65_535


class Frames:
    """Tells where frames begin and end in what was received.

    Of a frame that is passed on as it is, `missing` bytes have yet to come.
    """

    __slots__ = ("_first", "_head", "_key", "_left", "missing")

    def __init__(self) -> None:
        self._head = b""  # as much of a head as has come, where that is too little
        self.missing = 0
        # Of the frame that is being divided: its first byte, its masking key, and how much has yet
        # to come.
        self._first = 0
        self._key = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """Whether what comes next begins a frame."""
        return not (self.missing or self._left or self._head)

    def take(self, data: bytearray, start: int, room: int) -> tuple[bytes | bytearray, int]:
        """The next frame in *data*, or what has come of it, and where it ends.

        Nothing is taken of a head that is incomplete. A frame longer than *room* is not divided.
        """
        if self._left:
            return self._part(data, start)
        if self.missing:
            return self._pass(data, start, b"")
        held = self._head
        head = held + data[start : start + _LONGEST_HEAD - len(held)]
        size = _size(head)
        if not size:
            self._head = head
            return b"", len(data)
        self._head = b""
        if not _is_long(head) or not _SHORTEST_LONG <= size - _LONGEST_HEAD <= room:
            self.missing = size - len(held)
            return self._pass(data, start, held)
        self._first, self._key, self._left = head[0], head[-_KEY:], size - _LONGEST_HEAD
        return self._part(data, start + _LONGEST_HEAD - len(held))

    def _pass(self, data: bytearray, start: int, held: bytes) -> tuple[bytes | bytearray, int]:
        end = min(start + self.missing, len(data))
        self.missing -= end - start
        piece = data[start:end]
        return held + piece if held else piece, end

    def _part(self, data: bytearray, start: int) -> tuple[bytes | bytearray, int]:
        end = min(start + min(self._left, _PART), len(data))
        size = end - start
        if not size:
            return b"", end
        self._left -= size
        last = self._first & _FIN if not self._left else 0
        head = _head(last | (self._first & ~_FIN), size) + self._key
        # What follows continues this one.
        self._first &= _FIN
        turn = size % _KEY
        self._key = self._key[turn:] + self._key[:turn]
        return head + data[start:end], end


def _is_long(head: bytes) -> bool:
    """Whether *head* is that of a long frame, masked as its client has to send it.

    A long control frame is an error that the library finds in the first part.
    """
    return head[1] == _MASKED | _LONG


def _size(head: bytes) -> int:
    """The size of the frame that begins with *head*, or 0 where that is too short to tell."""
    if len(head) < _BEGINNING:
        return 0
    length, more = head[1] & ~_MASKED, 0
    if length >= _MEDIUM:
        more = 2 if length == _MEDIUM else 8
        if len(head) < _BEGINNING + more:
            return 0
        length = int.from_bytes(head[_BEGINNING : _BEGINNING + more])
    if _is_long(head) and len(head) < _LONGEST_HEAD:
        return 0
    return _BEGINNING + more + _KEY + length


def _head(first: int, size: int) -> bytes:
    if size < _MEDIUM:
        return bytes((first, _MASKED | size))
    return bytes((first, _MASKED | _MEDIUM)) + size.to_bytes(2)
