"""Writing log records without ever waiting for whoever reads them.

A worker or a supervisor that waits for a stopped journal, a full pipe or a stopped terminal serves
nobody, and misses SIGTERM. So what an outlet does not take at once waits in a spool, which is
bounded; the oldest records there make room for new ones, and are counted.
"""

import errno
import fcntl
import os
import select
import socket
import stat
import struct
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

# How many bytes of records may wait in each process: some hundred records, or a second's access
# log under load.
_MOST_WAITING = 262_144

# Seconds between two attempts to write the last records, where there seems to be room.
_PAUSE = 0.01

# Seconds between two words about the same trouble.
_SILENCE = 10.0


class Outlet(Protocol):
    """Where a spool writes to."""

    def fileno(self) -> int:
        """The descriptor that becomes writable when there is room again."""

    def write(self, data: bytes) -> int:
        """Write *data*, or as much as is possible at once; how many bytes that is.

        Raises OSError, and BlockingIOError where whoever reads is too slow.
        """

    def follow(self) -> None:
        """Write to whatever has the outlet's name now. Raises OSError."""

    def close(self) -> None:
        """Close the descriptor."""


class Spool:
    """Hands records to *outlet*, and keeps those that it does not take.

    *name* is what a person calls the outlet, and *tell* logs a warning. With *elsewhere* that
    warning goes to another outlet, which can tell of a failure while it lasts.
    """

    def __init__(
        self, outlet: Outlet, name: str, tell: Callable[[str], None], *, elsewhere: bool = False
    ) -> None:
        self.outlet = outlet
        self._name = name
        self._tell = tell
        self._elsewhere = elsewhere
        self._closed = False
        self.forget()

    def forget(self) -> None:
        """Drop what waits; a forked child does, for the records are its parent's."""
        # Reentrant: a destructor that the garbage collector runs may log in the middle of a write.
        self._lock = threading.RLock()
        self._busy = False
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._size = 0
        self._cut = False  # the oldest one has been written up to the middle of a line
        self._trouble: OSError | None = None
        self._lost = 0
        self._told = -_SILENCE

    @property
    def unwritten(self) -> int:
        """How many records are lost, without a word about them yet, if the process ends now."""
        with self._lock:
            return self._lost + sum(records for _, records in self._waiting)

    def put(self, data: bytes, records: int = 1) -> bool:
        """Write *data*, whole lines of so many *records*, now or later; not once it is closed."""
        with self._lock:
            if self._closed:
                return False
            self._waiting.append((data, records))
            self._size += len(data)
            self._write()
            self._drop()
        if self._trouble is not None:
            self._report()
        return True

    def flush(self) -> None:
        """Try once more to write what waits, and say what was lost; call it now and then."""
        if self._trouble is not None:
            with self._lock:
                self._write()
            self._report()

    def finish(self, deadline: float) -> None:
        """Write what waits, before *deadline* by the monotonic clock: the process is to end."""
        poll = select.poll()
        poll.register(self.outlet.fileno(), select.POLLOUT)
        while self._waiting and (left := deadline - time.monotonic()) > 0:
            before = self._size
            poll.poll(left * 1000)
            self.flush()
            if self._size == before:
                if not isinstance(self._trouble, BlockingIOError):
                    break
                # Another process has taken the room, or it is too little for a long line.
                time.sleep(_PAUSE)
        self._told = -_SILENCE
        self.flush()

    def follow(self) -> None:
        """Have the outlet write to whatever has its name now. Raises OSError."""
        with self._lock:
            self.outlet.follow()

    def close(self) -> None:
        """Close the outlet, once, and say what could not be written."""
        with self._lock:
            self._write()
            if self._closed:
                return
            self._closed = True
            self.outlet.close()
        if lost := self.unwritten:
            self._tell(f"{self._name} is closed; records lost: {lost}")

    def _write(self) -> None:
        if self._busy or self._closed:
            return
        self._busy = True
        try:
            while self._waiting:
                self._write_oldest()
        except OSError as error:
            self._trouble = error
        finally:
            self._busy = False

    def _write_oldest(self) -> None:
        data, records = self._waiting[0]
        written = self.outlet.write(data)
        self._size -= written
        if written == len(data):
            self._waiting.popleft()
            self._cut = False
        else:
            done = data[:written]
            self._waiting[0] = data[written:], max(1, records - done.count(b"\n"))
            self._cut = not done.endswith(b"\n")

    def _drop(self) -> None:
        """Drop the oldest records until the bound is kept; finish a line that was begun."""
        while self._size > _MOST_WAITING and len(self._waiting) > 1 + self._cut and not self._busy:
            data, records = self._waiting[self._cut]
            del self._waiting[self._cut]
            self._size -= len(data)
            self._lost += records

    def _report(self) -> None:
        with self._lock:
            text = self._news(time.monotonic())
        if text:
            self._tell(text)

    def _news(self, now: float) -> str:
        trouble, lost = self._trouble, self._lost
        if trouble is None or not (self._waiting or lost):
            self._trouble = None
            return ""
        lasts = self._elsewhere and not isinstance(trouble, BlockingIOError)
        if now - self._told < _SILENCE or (self._waiting and not lasts):
            return ""
        self._told = now
        if self._waiting:
            return f"{self._name} cannot be written: {trouble.strerror}; records lost: {lost}"
        self._trouble, self._lost = None, 0
        too_slow = isinstance(trouble, BlockingIOError)
        why = "its reader was too slow" if too_slow else trouble.strerror
        return f"{self._name} can be written again; records lost: {lost} ({why})"


class Stream:
    """A pipe, a terminal or another device, by a descriptor that does not block; or a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def write(self, data: bytes) -> int:
        """Write *data*, or the beginning of it."""
        if self._is_pipe and len(data) > select.PIPE_BUF:
            data = data[: self._fits(data)]
        return os.write(self._descriptor, data)

    def follow(self) -> None:
        """It stays what it is."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def _fits(self, data: bytes) -> int:
        """How much of *data* fits in as a whole: other processes write to the pipe as well.

        That is all of it, or some lines that are written at once (PIPE_BUF, pipe(7)). A longer line
        waits for room. A pipe's pages may be half empty, for no such piece is divided between two.
        """
        waiting = fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4))
        unread: int = struct.unpack("i", waiting)[0]
        capacity = fcntl.fcntl(self._descriptor, fcntl.F_GETPIPE_SZ)
        if 2 * unread + select.PIPE_BUF + len(data) <= capacity:
            return len(data)
        end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1
        if unread and not end:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return end or len(data)


class SharedStream(Stream):
    """A pipe or terminal by a descriptor that blocks, because others have it, too.

    O_NONBLOCK would hold for all of them: a shell would lose its terminal's input, and print()
    would raise.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, data: bytes) -> int:
        """Write a piece of *data* that is written as a whole (PIPE_BUF, pipe(7))."""
        if not self._poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        piece = data[: data.rfind(b"\n", 0, select.PIPE_BUF) + 1 or select.PIPE_BUF]
        try:
            return os.pwritev(self._descriptor, [piece], -1, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        # A terminal, or a pipe before Linux 6.4. The room may be another process's by now, and
        # then this waits until somebody reads.
        return os.write(self._descriptor, piece)


class StreamSocket:
    """A socket that others may have, too."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def write(self, data: bytes) -> int:
        """Send *data*, or the beginning of it."""
        return self._socket.send(data, socket.MSG_DONTWAIT)

    def follow(self) -> None:
        """It stays what it is."""

    def close(self) -> None:
        """Close the descriptor."""
        self._socket.close()


class LogFile:
    """The file, or FIFO, that has *path* now: logrotate(8) moves the one that had it before.

    Raises OSError.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        if self._path.is_fifo():
            # Without a reader it cannot be opened yet (ENXIO, open(2)): each write tries.
            self._identity = 0, 0
            self._stream = Stream(os.open(os.devnull, os.O_WRONLY))
        else:
            self._stream = self._open()

    def fileno(self) -> int:
        """The descriptor."""
        return self._stream.fileno()

    def write(self, data: bytes) -> int:
        """Append *data*, all of it or nothing where the disk is full."""
        self.follow()
        written = self._stream.write(data)
        if written == len(data):
            return written
        try:
            return written + self._stream.write(data[written:])
        except OSError:
            if self._take_back(written):
                raise
            return written

    def follow(self) -> None:
        """Open the path anew, if another file has it now, or none."""
        if not self._is_there():
            old, self._stream = self._stream, self._open()
            old.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _open(self) -> Stream:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY
        stream = Stream(os.open(self._path, flags, 0o666))
        status = os.fstat(stream.fileno())
        self._identity = status.st_dev, status.st_ino
        return stream

    def _is_there(self) -> bool:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _take_back(self, written: int) -> bool:
        """Remove the line that is cut: another process's would go on in its middle."""
        status, descriptor = os.fstat(self.fileno()), self.fileno()
        ours_is_last = stat.S_ISREG(status.st_mode) and (
            status.st_size == os.lseek(descriptor, 0, os.SEEK_CUR)
        )
        if ours_is_last:
            os.ftruncate(descriptor, status.st_size - written)
        return ours_is_last


def standard_error() -> Outlet:
    """Standard error as it is now, whatever an application puts in its place later."""
    if sys.stderr is None:  # it was closed, and anything may have its descriptor since
        return Stream(os.open(os.devnull, os.O_WRONLY))
    mode = os.fstat(2).st_mode
    if stat.S_ISSOCK(mode):
        return StreamSocket(os.dup(2))
    if stat.S_ISREG(mode):
        return Stream(os.dup(2))
    try:
        return Stream(os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError:  # it is another user's
        return SharedStream(os.dup(2))
