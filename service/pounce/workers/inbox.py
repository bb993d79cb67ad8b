"""Datagrams for connections that are here: each connection has its turn, and room of its own.

What a client sends on a connection can be as much as it likes, whatever flow control says: packets
that hold nothing of a stream count for none of it (RFC 9000 section 4). It waits for its own turn
then, and what does not fit is lost, which QUIC repairs for those who mean it. Anybody who has seen
a connection's id can send garbage to it, so that what comes from elsewhere than the client's
address has a queue beside the client's own.
"""

from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from pounce.http3.outlet import Path

# Datagrams that may wait in all, shared among those who have some: a client that uploads as fast as
# its window allows needs 800. None has less than the second number.
_ROOM = 4096
_LEAST_ROOM = 32

# Datagrams of one connection in a row: they are answered together.
_RUN = 8

# Connection ids that the kernel can be told of at once.
_MOST_LOUD = 8

# While nothing of an id is lost, the kernel keeps twice as many of its datagrams every so many
# seconds; it always keeps some.
_DOUBLING = 0.1
_LEAST = 1 / 4096

Owner = TypeVar("Owner", bound=Hashable)


class Letter(NamedTuple, Generic[Owner]):
    """A datagram for *owner*, a connection, and the id by which it was addressed."""

    owner: Owner
    data: bytes
    path: Path
    destination: bytes


class Inbox(Generic[Owner]):
    """Letters, to be taken from each owner's queue in turn."""

    def __init__(self) -> None:
        self._queues: dict[tuple[Owner, bool], deque[Letter[Owner]]] = {}
        self._run = 0
        self._seen: Counter[bytes] = Counter()  # by connection id, in this window
        self._lost: Counter[bytes] = Counter()
        self.chances: dict[bytes, float] = {}
        """The part of an id's datagrams that the kernel is to keep, where that is not all."""
        self.overrun = False
        """Whether the kernel has more than can be read: then each connection has little room."""

    def __bool__(self) -> bool:
        return bool(self._queues)

    def put(self, letter: Letter[Owner], *, from_elsewhere: bool) -> None:
        """Have *letter* wait, if there is room for it."""
        self._seen[letter.destination] += 1
        key = letter.owner, from_elsewhere
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque((letter,))
        elif len(queue) < self._room(from_elsewhere=from_elsewhere):
            queue.append(letter)
        else:
            self._lost[letter.destination] += 1

    def _room(self, *, from_elsewhere: bool) -> int:
        if self.overrun or from_elsewhere:
            return _LEAST_ROOM
        return max(_LEAST_ROOM, _ROOM // len(self._queues))

    def take(self) -> Letter[Owner]:
        """The next letter; there has to be one."""
        key, queue = next(iter(self._queues.items()))
        letter = queue.popleft()
        self._run += 1
        if not queue or self._run == _RUN:
            self._run = 0
            del self._queues[key]
            if queue:
                self._queues[key] = queue
        return letter

    def renew(self, elapsed: float) -> None:
        """Begin a window; the last one began *elapsed* seconds ago.

        Where more comes than can be read, the kernel is to drop what would be lost.
        """
        grown = 2 ** min(elapsed / _DOUBLING, 10.0)
        chances = {key: old * grown for key, old in self.chances.items() if old * grown < 1.0}
        if self.overrun:
            for key, lost in self._lost.most_common(_MOST_LOUD):
                kept = 1.0 - lost / self._seen[key]
                chances[key] = max(_LEAST, self.chances.get(key, 1.0) * kept)
        loudest = sorted(chances, key=chances.__getitem__)[:_MOST_LOUD]
        self.chances = {key: chances[key] for key in loudest}
        self._seen.clear()
        self._lost.clear()
