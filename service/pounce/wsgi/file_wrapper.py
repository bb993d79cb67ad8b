"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling")."""

from typing import Protocol

# What is read at a time, if the application names no size or a small one.
_BLOCK = 65_536


class Readable(Protocol):
    """What applications wrap."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes; none at the end."""


class FileWrapper:
    """Iterates over *file*, from where it stands to its end."""

    def __init__(self, file: Readable, block_size: int = _BLOCK) -> None:
        self.file = file
        self._block_size = max(block_size, _BLOCK)

    def __iter__(self) -> "FileWrapper":
        return self

    def __next__(self) -> bytes:
        block = self.file.read(self._block_size)
        if not block:
            raise StopIteration
        return block

    def close(self) -> None:
        """Close the file, if it can be closed."""
        close = getattr(self.file, "close", None)
        if close is not None:
            close()
