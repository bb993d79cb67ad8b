"""What a worker is on, in memory that outlives its ability to say so.

A worker that is stuck in a call that never returns runs no Python any more: no signal handler of
its own, no other thread where there is a global lock. Its supervisor reads this memory instead.
It is written by the worker alone and read when the worker is stuck, so there is no lock; a reader
that comes between two writes sees a line cut short.
"""

import mmap
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

# Both end with the first NUL, or where they are full; together they are four pages.
_LAST: Final = struct.Struct("512s")
_SWEPT: Final = struct.Struct("15872s")

MOST_LINES: Final = 100
"""How many lines `FlightRecord.sweep` should be given at most."""


class FlightRecord:
    """The request that a worker has begun last, and those that it was on at its last sweep."""

    def __init__(self) -> None:
        # Shared with the parent of a forked worker (MAP_SHARED | MAP_ANONYMOUS, mmap(2)).
        self._memory = mmap.mmap(-1, _LAST.size + _SWEPT.size)
        self._noted = b""
        self.begin: Callable[[bytes], None] = partial(_LAST.pack_into, self._memory, 0)
        """Note the path of a request for which the application is called. It is done for every
        one, and so is a single call of C."""

    def sweep(self, lines: Sequence[str]) -> None:
        """Note a line for each request in flight."""
        text = "\n".join(lines).encode()[: _SWEPT.size - 1]
        if text != self._noted:  # most sweeps of a worker that has little to do find nothing
            self._noted = text
            end = _LAST.size + len(text) + 1
            self._memory[_LAST.size : end] = text + b"\0"

    def read(self) -> str:
        """What is noted, for a person; empty before the first request."""
        last = _text(_LAST.unpack_from(self._memory, 0))
        swept = _text(_SWEPT.unpack_from(self._memory, _LAST.size))
        if not last:
            return ""
        return f"Request begun last: {last}\nRequests in flight shortly before:{_listed(swept)}\n"


def _listed(lines: str) -> str:
    return f"\n{lines}" if lines else " none"


def _text(unpacked: tuple[bytes]) -> str:
    [data] = unpacked
    return data.partition(b"\0")[0].decode(errors="replace")
