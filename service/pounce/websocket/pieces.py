"""The content of a message as it comes."""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

# More than this many bytes have pages of their own, which grow without being copied and are the
# kernel's again at once. On the heap, messages of many clients that grow side by side would leave
# holes as large as themselves.
_LITTLE = 131_072


class Pieces:
    """Bytes in pieces, `size` of them."""

    __slots__ = ("_little", "_much", "size")

    def __init__(self) -> None:
        self._little = bytearray()
        self._much: mmap | None = None
        self.size = 0

    def add(self, piece: bytes | bytearray | memoryview) -> None:
        """Add *piece* to the end."""
        start, self.size = self.size, self.size + len(piece)
        if self._much is None and self.size <= _LITTLE:
            self._little += piece
        else:
            self._pages()[start : self.size] = piece

    def take(self) -> bytes:
        """All of them, as one; none is left."""
        data = bytes(self._little) if self._much is None else self._much[: self.size]
        self.clear()
        return data

    def clear(self) -> None:
        """Drop them."""
        self._little.clear()
        if self._much is not None:
            self._much.close()
            self._much = None
        self.size = 0

    def _pages(self) -> mmap:
        """Pages for all of them."""
        if self._much is None:
            self._much = mmap(-1, 2 * self.size, flags=MAP_PRIVATE | MAP_ANONYMOUS)
            self._much[: len(self._little)] = self._little
            self._little.clear()
        if len(self._much) < self.size:
            self._much.resize(2 * self.size)
        return self._much
