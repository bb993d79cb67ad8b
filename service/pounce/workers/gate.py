"""Strangers' datagrams, which wait until those who are connected have had their turn.

A flood of them must neither take the time of connected clients nor the places of their datagrams
in the kernel's queue. So strangers wait in short queues of their own, what does not fit there is
lost, and the kernel is told to drop as much of what still comes before it takes a place. The
network that most of them come from, if it is one, has a queue of its own, so that new clients from
elsewhere do not wait behind it.
"""

import math
import operator
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pounce.http.connections import ServerContext
from pounce.http3 import packets
from pounce.http3.outlet import Path
from pounce.http3.tokens import CheckKeys
from pounce.net.udp import UDPPort
from pounce.workers.inbox import Inbox
from pounce.workers.sieve import Chances, sieve

# Datagrams that may wait: as many as clients may send that all come again at once.
_MOST = 256

# Seconds between two looks at what was lost, and how much of what cannot begin a connection is
# read meanwhile: it is answered little, if at all.
_WINDOW = 0.02
_MOST_OTHERS = 20

# For how many times as long as a turn of theirs the next one waits, if more are there.
_REST = 2

# What was queued before the kernel was told to keep less is read after so many seconds.
_SETTLING = 0.25

# While nothing is lost, the kernel keeps twice as many every so many seconds.
_DOUBLING = 0.1

# The kernel always keeps some, for they tell whether the flood is over.
_LEAST = 1 / 4096


class Arrival(NamedTuple):
    """A stranger's datagram, and where it came."""

    data: bytes
    path: Path
    destination: bytes


class Lane:
    """Strangers of one kind: at most *most* wait, and *a_window* are taken in a window."""

    def __init__(self, most: int, a_window: float = math.inf) -> None:
        self.waiting: deque[Arrival] = deque()
        self.chance = 1.0
        """The part of them that the kernel is to keep."""
        self._most = most
        self._a_window = a_window
        self._seen = self._kept = self._taken = 0

    def turn_away(self) -> None:
        """Take account of one that may not wait."""
        self._seen += 1

    def put(self, arrival: Arrival) -> None:
        """Have *arrival* wait if it fits."""
        self._seen += 1
        if len(self.waiting) < self._most and self._kept < self._a_window:
            self._kept += 1
            self.waiting.append(arrival)

    def take(self) -> Arrival:
        """The one that has waited for longest."""
        self._taken += 1
        return self.waiting.popleft()

    @property
    def flooded(self) -> bool:
        """Whether more come than there is time for."""
        return self.chance < 1.0 or self._kept < self._seen

    def renew(self, elapsed: float, *, settled: bool) -> None:
        """Begin a window; the last one began *elapsed* seconds ago.

        Unless *settled*, some have come that the kernel was told too late to drop.
        """
        if self._kept == self._seen:
            self.chance = min(1.0, self.chance * 2 ** min(elapsed / _DOUBLING, 10.0))
        elif settled:
            self.chance = max(_LEAST, self.chance * min(1.0, self._taken / self._seen))
        self._seen = self._kept = self._taken = 0


class Gate:
    """Has strangers at *ports* wait for *let_in*; *keys* are those of the service's ids.

    What is lost of those who are connected, in their *inbox*, it has the kernel drop as well.
    """

    def __init__(
        self,
        context: ServerContext,
        ports: Sequence[UDPPort],
        keys: CheckKeys,
        let_in: Callable[[Arrival], None],
        inbox: Inbox[Any],
    ) -> None:
        self._loop = context.loop
        self._turns = context.turns
        self._ports = ports
        self._keys = keys
        self._let_in = let_in
        self._inbox = inbox
        # Those who come again with an id that they were given: most prove by a Retry token that
        # they are at their address. The kernel keeps them all.
        self._returning = Lane(_MOST)
        self._initials = Lane(_MOST)
        self._louds = Lane(_MOST)
        self._others = Lane(_MOST_OTHERS, _MOST_OTHERS)
        self._lanes = (self._returning, self._initials, self._louds, self._others)
        self._loud = b""
        self._networks: Counter[bytes] = Counter()  # of initials in this window
        self._chances = Chances()
        self._resting = False
        self._began = 0.0
        self._told = 0.0  # when the kernel was told to keep less

    @property
    def flooded(self) -> bool:
        """Whether more clients begin connections than there is time for."""
        return self._initials.flooded or self._louds.flooded

    def enter(self, arrival: Arrival, *, known: bool) -> None:
        """Have *arrival* wait; *known* is whether its id was made by this service."""
        lane = self._returning if known else self._lane(arrival.data, arrival.path)
        lane.put(arrival)

    def turn_away(self, data: bytes, path: Path) -> None:
        """Take account of *data*, which nobody wants."""
        self._lane(data, path).turn_away()

    def open(self) -> None:
        """Let strangers in for a turn; those who are left then wait for a while."""
        begun = time.monotonic()
        if begun >= self._began + _WINDOW:
            self._renew(begun)
        if not self._resting and not 0.0 < self._backlog < _SETTLING:
            self._take_turn(self._turns.end())
            if self._crowded:
                self._resting = True
                self._loop.call_later(_REST * (time.monotonic() - begun), self._go_on)

    def reset(self) -> None:
        """Have the kernel keep everything, whatever somebody else has told it."""
        for port in self._ports:
            port.filter(None)
        for lane in self._lanes:
            lane.chance = 1.0
        self._chances = Chances()

    def _lane(self, data: bytes, path: Path) -> Lane:
        if not packets.may_begin(data):
            return self._others
        if not self.flooded:
            return self._initials
        network = _network(path.client[0])
        if network == self._loud:
            return self._louds
        self._networks[network] += 1
        return self._initials

    @property
    def _backlog(self) -> float:
        """For how many seconds the kernel has had something that nobody has read.

        Those who are connected wait behind it, so strangers wait until it is gone, or for as long
        as what came before the kernel kept less can take.
        """
        return max((port.backlog for port in self._ports), default=0.0)

    @property
    def _crowded(self) -> bool:
        louds, others = self._louds.waiting, self._others.waiting
        return bool(self._returning.waiting or self._initials.waiting or louds or others)

    def _go_on(self) -> None:
        self._resting = False
        self.open()

    def _take_turn(self, end: float) -> None:
        while self._crowded:
            for lane in self._lanes:
                if lane.waiting:
                    self._let_in(lane.take())
            if time.monotonic() >= end:
                break

    def _renew(self, now: float) -> None:
        """Begin a window."""
        settled = now - self._backlog > self._told or now > self._told + _SETTLING
        for lane in self._lanes:
            lane.renew(now - self._began, settled=settled)
        self._inbox.renew(now - self._began)
        self._listen()
        self._began = now
        chances = Chances(
            self._initials.chance,
            self._others.chance,
            self._louds.chance,
            self._loud,
            tuple(self._inbox.chances.items()),
        )
        if chances != self._chances:
            self._filter(chances)

    def _listen(self) -> None:
        """Find the network, if there is one, that most newcomers of a flood come from."""
        if self._loud and not self._louds.flooded:
            self._loud = b""
        if not self._loud and self._networks:
            [(network, count)] = self._networks.most_common(1)
            if count > self._networks.total() / 2:
                self._loud = network
                self._louds.chance, self._initials.chance = self._initials.chance, 1.0
        self._networks.clear()

    def _filter(self, chances: Chances) -> None:
        if any(map(operator.lt, chances[:3], self._chances[:3])):
            self._told = self._began
        self._chances = chances
        program = None if chances.all else sieve(self._keys, chances)
        for port in self._ports:
            port.filter(program)


def _network(host: str) -> bytes:
    """What one client has all of: an IPv4 address, or 64 bits of IPv6 (RFC 6177)."""
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
