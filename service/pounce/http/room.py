"""Room for new connections in a full worker: who is closed for them, and what the log says of it.

A worker is full when it has max_connections, or when no descriptor is left. It closes, in this
order:

1. newcomers, which are connections without a request, once they have had their first moments;
2. connections that have been idle for long after a request;
3. newcomers in their first moments, since a flood may be faster than that.

Of the oldest newcomers, the network that has the most of them loses one. So a flood from one
network evicts itself, at once, and never an honest client that has just connected. Where each
network has one, those go first that have not sent a byte: an honest client speaks soon.
"""

import heapq
import socket
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from itertools import islice
from operator import attrgetter
from typing import NamedTuple, Protocol

from pounce.events.loggers import get_logger
from pounce.events.seldom import Seldom

logger = get_logger("pounce.worker")

SILENT, BEGUN, ASKED = range(3)
"""A newcomer's progress: it has sent nothing, a part of its first request, or all of that.

What precedes the request, a PROXY header and the TLS handshake, counts as a part of it.
"""

# Seconds. A distant client needs three round trips until its request is here: TCP, TLS, request.
_FIRST_MOMENTS = 1.0

# Of how many newcomers one is chosen: enough to tell a flooding network, and quickly looked at.
# With so many of them a network floods, and has no first moments any more.
_SAMPLE = 32
_FLOOD = 16

# How many idle connections are closed where one place is wanted, since finding them means to look
# at all connections: at most so many, and about this share of all.
_IDLE = 32
_IDLE_SHARE = 8


class Idle(Protocol):
    """A connection that may be closed for another's sake while it is idle."""

    @property
    def spare_since(self) -> float:
        """Since when it may be, by the loop's time; inf is never."""

    def expire(self) -> None:
        """Close it politely."""

    def abort(self) -> None:
        """Close it at once."""


class Newcomer(Idle, Protocol):
    """A connection that has yet to ask for something."""

    @property
    def progress(self) -> int:
        """SILENT, BEGUN or ASKED."""


class _Arrival(NamedTuple):
    newcomer: Newcomer
    network: bytes
    when: float


class Room:
    """Makes room among *connections*, of which there should be at most *most*.

    *clock* is the loop's time. *excess* tells the log what there is too much of, and has %d for
    *most*.
    """

    def __init__(
        self,
        connections: Collection[Idle],
        most: int,
        clock: Callable[[], float],
        excess: str = "connections than max_connections (%d) or LimitNOFILE= allows",
    ) -> None:
        self._connections = connections
        self._most = most
        self._clock = clock
        self._excess = excess % most
        # The oldest first. Those that ask for something stay here until somebody looks for a
        # newcomer: no request pays for this.
        self._arrivals: OrderedDict[object, _Arrival] = OrderedDict()
        self._all_in_use = False
        self._seldom = Seldom(clock=clock)
        self._untold: Counter[str] = Counter()

    def admit(self, connection: Newcomer, peer: tuple[str, int] | None) -> bool:
        """Let *connection* stay, which is already among the connections; false if it cannot.

        Another one may be closed for it.
        """
        if len(self._connections) > self._most and not self.make():
            return False
        if connection.progress != ASKED:
            self.enter(connection, peer)
        return True

    def enter(self, newcomer: Newcomer, peer: tuple[str, int] | None) -> None:
        """Remember that *newcomer* has come, from *peer*; None for a unix socket's client."""
        network = _network(peer[0] if peer else "")
        self._arrivals[newcomer] = _Arrival(newcomer, network, self._clock())

    def leave(self, connection: object) -> None:
        """Forget *connection*, which may be no newcomer."""
        self._arrivals.pop(connection, None)

    def has_place(self) -> bool:
        """Whether one more connection may come; another one may be closed for it."""
        return len(self._connections) < self._most or self.make()

    def make(self) -> bool:
        """Close a connection that has no request; false where each has one."""
        return self.free(1) or self._close_newcomer(self._clock())

    def free(self, places: int) -> bool:
        """Close up to *places* connections that have no request; false where there are none.

        It spares newcomers in their first moments: for a descriptor a new client can wait.
        """
        closed = 0
        while closed < places and self._close_newcomer(self._clock() - _FIRST_MOMENTS):
            closed += 1
        return closed > 0 or self._close_idle()

    def note(self, what: str) -> None:
        """Count *what* happened for want of room; the log says so now and then."""
        self._untold[what] += 1

    def sweep(self) -> None:
        """Begin a new half second; tell what happened, at most once a minute."""
        self._all_in_use = False
        if self._untold and self._seldom.is_due():
            told = ", ".join(f"{count} {what}" for what, count in self._untold.items())
            self._untold.clear()
            logger.warning("more %s: %s", self._excess, told)

    def _choose(self, before: float) -> Newcomer | None:
        """The newcomer to be closed next, of those that have come *before* or flood."""
        while oldest := list(islice(self._arrivals.values(), _SAMPLE)):
            asked = [each.newcomer for each in oldest if each.newcomer.progress == ASKED]
            if not asked:
                return _least_deserving(oldest, before)
            for newcomer in asked:
                del self._arrivals[newcomer]
        return None

    def _close_newcomer(self, before: float) -> bool:
        """Close a newcomer that has come *before*, or floods; false where there is none."""
        newcomer = self._choose(before)
        if newcomer is None:
            return False
        self.leave(newcomer)
        self.note("closed without a request")
        if newcomer.progress == SILENT:
            newcomer.expire()
        else:
            # No answer to half a request: it would have to be waited for until the client has
            # read it, and a flood would hold its descriptors for as long.
            newcomer.abort()
        return True

    def _close_idle(self) -> bool:
        """Close connections that have been idle for long; false where there are none."""
        if self._all_in_use:  # as the last look has found; to look again takes long
            return False
        now = self._clock()
        count = min(_IDLE, 1 + len(self._connections) // _IDLE_SHARE)
        longest = heapq.nsmallest(count, self._connections, attrgetter("spare_since"))
        spare = [each for each in longest if each.spare_since <= now]
        for each in spare:
            self.note("closed while idle")
            each.expire()
        self._all_in_use = not spare
        return bool(spare)


def _least_deserving(arrivals: list[_Arrival], before: float) -> Newcomer | None:
    count = Counter(each.network for each in arrivals)
    eligible = [each for each in arrivals if each.when <= before or count[each.network] >= _FLOOD]
    if not eligible:
        return None
    return min(eligible, key=lambda each: (-count[each.network], each.newcomer.progress)).newcomer


def _network(host: str) -> bytes:
    """What one client has all of: an IPv4 address, or 64 bits of IPv6 (RFC 6177)."""
    if ":" not in host:
        return host.encode()
    try:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
    except OSError:
        return host.encode()
