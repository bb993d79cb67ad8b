"""Passing datagrams to the worker whose connection they are for.

Each HTTP/3 worker has a mailbox as long as it lives, and the connection ids that it gives out
name it. A worker that reads a datagram for another one's connection, because the client has
moved to another socket or because the connection is of an older generation, puts it there.

Mailboxes are made before the workers that use them, which inherit them. They are pairs of
SOCK_SEQPACKET, not of SOCK_DGRAM, whose queue holds only net.unix.max_dgram_qlen messages, 10 by
default (unix(7)).
"""

import mmap
import socket

# A connection id has two bytes for the number of a mailbox.
_MOST = 65_536

# What the shared memory says of each mailbox.
_FREE, _OWNED, _RESTING = range(3)


class Mailboxes:
    """*count* of them, or more. Neither putting nor taking ever blocks."""

    def __init__(self, count: int) -> None:
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        # Shared by all processes: whether somebody reads a mailbox, and still needs what comes.
        self._owned = mmap.mmap(-1, _MOST)
        self.provide(count)

    def provide(self, count: int) -> None:
        """Make new ones until *count* are free; raises OSError where descriptors run out.

        Processes that run already cannot reach those, and lose what they put there.
        """
        free = self._owned[: len(self._pairs)].count(_FREE)
        for _ in range(count - free):
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in pair:
                end.setblocking(False)
            self._pairs.append(pair)

    def acquire(self) -> int:
        """A mailbox for a new worker; raises IndexError when all are in use."""
        index = self._owned.find(bytes((_FREE,)))
        if not 0 <= index < len(self._pairs):
            raise IndexError("every mailbox is in use")
        self._owned[index] = _OWNED
        return index

    def release(self, index: int) -> None:
        """Its worker is gone, and what is still in it is for nobody."""
        self._owned[index] = _FREE
        while self.take(index) is not None:
            pass

    def is_owned(self, index: int) -> bool:
        """Whether there is a worker with this mailbox."""
        return bool(self._owned[index])

    def rest(self, index: int) -> None:
        """Its worker has no connections left, and gets no new ones."""
        self._owned[index] = _RESTING

    @property
    def in_use(self) -> bool:
        """Whether a worker has one."""
        return any(self._owned[: len(self._pairs)])

    @property
    def awaited(self) -> bool:
        """Whether a worker may still need datagrams that another one reads."""
        return self._owned.find(bytes((_OWNED,))) >= 0

    def fileno(self, index: int) -> int:
        """The descriptor that is readable when something is in the mailbox."""
        return self._pairs[index][0].fileno()

    def put(self, index: int, message: bytes) -> None:
        """Put *message* in; what does not fit is lost, as on the way to here."""
        try:
            self._pairs[index][1].send(message)
        except (IndexError, OSError):
            return

    def take(self, index: int) -> bytes | None:
        """The next message; None when there is none."""
        try:
            return self._pairs[index][0].recv(65_536 + 1024)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Close all."""
        for pair in self._pairs:
            for end in pair:
                end.close()
