"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling")."""

import os
import stat
from typing import NamedTuple, Protocol

# What is read at a time, if the application names no size or a small one.
_BLOCK = 65_536


class Readable(Protocol):
    """What applications wrap."""

    def read(self, size: int, /) -> bytes:
        """At most *size* bytes; none at the end."""


class Part(NamedTuple):
    """*size* bytes of an open file, from *offset* on."""

    descriptor: int
    offset: int
    size: int


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

    def part(self) -> Part | None:
        """What is left of a file on a disk, if it is worth the kernel's while; else None."""
        try:
            descriptor = self.file.fileno()  # type: ignore[attr-defined]
            offset = self.file.tell()  # type: ignore[attr-defined]
            status = os.fstat(descriptor)
        except (AttributeError, OSError, ValueError):
            return None
        size = status.st_size - offset
        if not stat.S_ISREG(status.st_mode) or size < _BLOCK:
            return None
        return Part(descriptor, offset, size)

    def close(self) -> None:
        """Close the file, if it can be closed."""
        close = getattr(self.file, "close", None)
        if close is not None:
            close()
