"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling")."""

import io
import os
import stat
from types import BuiltinMethodType
from typing import Any, NamedTuple, Protocol, TypeAlias

# What is read at a time, if the application names no size or a small one.
_BLOCK = 65_536

_PlainFile: TypeAlias = io.FileIO | io.BufferedReader | io.BufferedRandom

# These and none that are derived of them, which may read as they like.
_PLAIN = frozenset((io.FileIO, io.BufferedReader, io.BufferedRandom))


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
    """Iterates over *file*, from where it stands to its end.

    It seeks and tells where the file can: frameworks look for this, to answer a Range at once.
    """

    def __init__(self, file: Readable, block_size: int = _BLOCK) -> None:
        self.file: Any = file
        self._block_size = max(block_size, _BLOCK)

    def __iter__(self) -> "FileWrapper":
        return self

    def __next__(self) -> bytes:
        block: bytes = self.file.read(self._block_size)
        if not block:
            raise StopIteration
        return block

    def seekable(self) -> bool:
        """Whether `seek` and `tell` can be called."""
        seekable = getattr(self.file, "seekable", None)
        # Objects of applications need not have all that files have.
        return hasattr(self.file, "seek") if seekable is None else bool(seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move in the file."""
        return int(self.file.seek(offset, whence))

    def tell(self) -> int:
        """Where the file stands."""
        return int(self.file.tell())

    def part(self) -> Part | None:
        """What is left of a file on a disk; None where reading may give something else."""
        plain = _plain_file(self.file)
        if plain is None:
            return None
        try:
            descriptor, offset = plain.fileno(), plain.tell()
            status = os.fstat(descriptor)
        except (OSError, ValueError):
            return None
        size = status.st_size - offset
        if not stat.S_ISREG(status.st_mode) or size < 0:
            return None
        return Part(descriptor, offset, size)

    def close(self) -> None:
        """Close the file, if it can be closed."""
        close = getattr(self.file, "close", None)
        if close is not None:
            close()


def _plain_file(file: object) -> _PlainFile | None:
    """The file whose own ``read`` is that of *file*, if it gives the bytes of a descriptor.

    *file* itself may be another object that lends that method: Django's File does. A GzipFile has
    a descriptor as well, but reads otherwise.
    """
    read = getattr(file, "read", None)
    plain = getattr(read, "__self__", None)
    if type(read) is not BuiltinMethodType or read.__name__ != "read" or type(plain) not in _PLAIN:
        return None
    raw = getattr(plain, "raw", plain)
    return plain if type(raw) is io.FileIO else None
