"""Shared memory with one row a worker: heartbeat, state, counters.

Each row is written by its worker alone and read by anyone, so there is no lock. A cell is an
aligned 64-bit integer: the kernel's shared pages and the CPU make its store and load single
operations, and a reader sees either the old value or the new one. Cells of a row are not
consistent with each other, which counters and a heartbeat do not need.

An application can write to this memory too: it is mapped in the process that runs it. So its size
is sealed, since an access beyond a truncated end would kill the process with SIGBUS (mmap(2)),
and readers take no number out of its range as it is.
"""

import fcntl
import heapq
import mmap
import os
import time
from typing import Final

# 16 cells are 128 bytes: two cache lines, so that neighbours never share one, also where the
# CPU fetches lines in pairs.
_CELLS: Final = 16
_ROW_BYTES: Final = _CELLS * 8

_HEARTBEAT: Final = 0
_CONNECTIONS: Final = 1
_REQUESTS: Final = 2
_BUSY: Final = 3
_SERVING: Final = 4
_LOST: Final = 5
_OCCUPIED: Final = 6

# In row 0
_HIGHEST: Final = 0
_PAST: Final = 1
_LAYOUT: Final = 2

_THIS_LAYOUT: Final = int.from_bytes(b"pounce1", "little")

# The largest count that is believed. JSON readers lose precision above it (RFC 8259 section 6),
# and sums of counts are far from a cell's limit.
_MOST: Final = 2**53 - 1

_MOST_ROWS: Final = 2**20

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def _count(number: int) -> int:
    """*number*, or the nearest that a count can be."""
    return min(max(0, number), _MOST)


class Row:
    """One worker's row. Numbers are as the worker last wrote them."""

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells

    def clear(self) -> None:
        """Start a new worker's life in this row."""
        self._cells[:] = memoryview(bytes(_ROW_BYTES)).cast("q")

    def beat(self, *, connections: int, busy: int, requests: int, occupied: bool = False) -> None:
        """Written by the worker's loop: it turns, and this is what it holds and has done."""
        cells = self._cells
        cells[_OCCUPIED] = occupied
        cells[_CONNECTIONS] = connections
        cells[_BUSY] = busy
        cells[_REQUESTS] = requests
        cells[_HEARTBEAT] = time.monotonic_ns()

    def hold(self, connections: int) -> None:
        """Written when a connection is accepted: others look at it before they accept one."""
        self._cells[_CONNECTIONS] = connections

    def lose(self, records: int) -> None:
        """Written by a worker with a process of its own: so many log records are not written."""
        self._cells[_LOST] = records

    def serve(self, generation: int) -> None:
        """Written when the worker starts to accept, as one of *generation*; 0 when it stops.

        The supervisor writes 0 for a thread that it has abandoned.
        """
        self._cells[_SERVING] = generation

    @property
    def heartbeat(self) -> float:
        """When the loop last turned, in seconds of CLOCK_MONOTONIC; 0.0 before it ever did.

        A time to come is no heartbeat: a hung worker would look alive until then.
        """
        beat = self._cells[_HEARTBEAT]
        return beat / 1e9 if 0 <= beat <= time.monotonic_ns() else 0.0

    @property
    def connections(self) -> int:
        """Open client connections."""
        return _count(self._cells[_CONNECTIONS])

    @property
    def busy(self) -> int:
        """Connections with a request in flight."""
        return _count(self._cells[_BUSY])

    @property
    def occupied(self) -> bool:
        """Whether a client is connected, or was at the last beat, or work went on without one."""
        return bool(self._cells[_CONNECTIONS] or self._cells[_OCCUPIED])

    @property
    def requests(self) -> int:
        """Requests answered in this worker's life."""
        return _count(self._cells[_REQUESTS])

    @property
    def lost(self) -> int:
        """Log records that are lost if this worker's process ends now."""
        return _count(self._cells[_LOST])


class Scoreboard:
    """Rows in one memfd, inherited by forked workers; *capacity* bounds the rows in use.

    Row 0 is the supervisor's own: it says which is the highest row ever used, and how many
    requests were answered by workers that are gone. So the memory alone, kept by the service
    manager, tells a later run what this one has done, however it ended.

    Pages come into being when a row is first written, so a generous capacity costs nothing.
    """

    def __init__(self, capacity: int) -> None:
        size = (1 + capacity) * _ROW_BYTES
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        self._descriptor = os.memfd_create("pounce-scoreboard", flags)
        os.ftruncate(self._descriptor, size)
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)
        self._memory = mmap.mmap(self._descriptor, size)
        self._cells = memoryview(self._memory).cast("q")
        self._cells[_LAYOUT] = _THIS_LAYOUT
        self._capacity = capacity
        # What row 0 says, from where no application can write.
        self._highest = self._past = 0
        # The lowest first (a sorted list is a heap), so that readers have few rows to look at.
        self._free = list(range(1, 1 + capacity))
        self._rows: dict[Row, int] = {}

    @property
    def descriptor(self) -> int:
        """The memory's descriptor."""
        return self._descriptor

    @property
    def past_requests(self) -> int:
        """Requests answered by workers that are gone, and in earlier runs."""
        return self._past

    def carry_on(self, descriptor: int) -> None:
        """Count on from where the board in *descriptor*, an earlier run's, has stopped.

        One that another version has written, with another layout, is left out. Raises ValueError
        for one that cannot have as many rows as it says, and OSError where it cannot be read.
        """
        first = _cells_of(descriptor, 1)
        if len(first) != _CELLS or first[_LAYOUT] != _THIS_LAYOUT:
            return
        highest = first[_HIGHEST]
        if not 0 <= highest <= _MOST_ROWS:
            raise ValueError(f"it says that it has {highest} rows")
        requests = _cells_of(descriptor, 1 + highest)[_CELLS + _REQUESTS :: _CELLS]
        self._add_past(_count(first[_PAST]) + sum(map(_count, requests)))

    def retire(self, row: Row) -> None:
        """Count the requests of a worker that is gone among the past ones."""
        self._add_past(row.requests)

    def acquire(self) -> Row:
        """A cleared row for a new worker; raises IndexError when all rows are in use."""
        if not self._free:
            raise IndexError("every row of the scoreboard is in use")
        index = heapq.heappop(self._free)
        self._highest = self._cells[_HIGHEST] = max(index, self._highest)
        row = Row(self._cells[index * _CELLS : (index + 1) * _CELLS])
        row.clear()
        self._rows[row] = index
        return row

    def release(self, row: Row) -> None:
        """Give back the row of a worker that is gone, as an abandoned thread may be in the end."""
        row.clear()
        heapq.heappush(self._free, self._rows.pop(row))

    def least_connections(self, generation: int) -> int:
        """The fewest connections that a worker holds which accepts as one of *generation*."""
        cells = self._cells
        end = min(cells[_HIGHEST], self._capacity) * _CELLS
        held = [
            cells[row + _CONNECTIONS]
            for row in range(_CELLS, end + 1, _CELLS)
            # A number that cannot be a worker's would have all the others step back for it.
            if cells[row + _SERVING] == generation and cells[row + _CONNECTIONS] >= 0
        ]
        return min(held, default=0)

    def _add_past(self, requests: int) -> None:
        self._past = self._cells[_PAST] = _count(self._past + requests)

    def close(self) -> None:
        """Close the descriptor; the memory itself lives until the last row is dropped."""
        os.close(self._descriptor)


def _cells_of(descriptor: int, rows: int) -> memoryview:
    """The first *rows* rows of the board in *descriptor*, as far as they are there."""
    data = os.pread(descriptor, rows * _ROW_BYTES, 0)
    return memoryview(data[: len(data) - len(data) % _ROW_BYTES]).cast("q")
