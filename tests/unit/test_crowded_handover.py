"""The handover where as many descriptors are under way as a user may have (unix(7))."""

import asyncio
import resource
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from pounce.ipc.handover import PAUSE, Crowded, Handover, Passage
from pounce.ipc.scoreboard import Scoreboard
from pounce.loop import Loop
from pounce.supervisor.keeping import Keeping
from pounce.workers.passages import Departures
from tests.ordinary_user import as_ordinary_user
from tests.unit.test_keeping import Shelf, take, turn_until

LIMIT = 64
FEW = (resource.RLIMIT_NOFILE, LIMIT)
COUNT = 2 * LIMIT
PASSAGE = Passage("http", None, None, 1)
PATIENCE = 25.0
# What so many tries take at least, the first of which may be due already.
TRIES = 4
SHORTEST = (TRIES - 2) * PAUSE


class Counting(Handover):
    """How often somebody has tried to give."""

    tries = 0

    def give(self, connection: int, passage: Passage) -> bool:
        self.tries += 1
        return super().give(connection, passage)


def take_all(handover: Handover) -> int:
    taken = 0
    while (one := handover.take()) is not None:
        one[0].close()
        taken += 1
    return taken


def test_it_is_told_apart_from_a_full_queue() -> None:
    def main() -> None:
        handover = Handover()
        ours, _theirs = socket.socketpair()
        for _ in range(LIMIT + 1):
            assert handover.give(ours.fileno(), PASSAGE)
        with pytest.raises(Crowded):
            handover.give(ours.fileno(), PASSAGE)
        assert take_all(handover) > LIMIT
        assert handover.give(ours.fileno(), PASSAGE)

    as_ordinary_user(main, *FEW)


class Leaving:
    """A connection, as far as giving it away goes."""

    gone = False

    def __init__(self, descriptor: int, left: list[Any]) -> None:
        self.descriptor = descriptor
        self._left = left

    def passage(self) -> Passage:
        return PASSAGE

    def depart(self) -> None:
        self._left.append(self)


def test_a_worker_waits_a_little_between_tries() -> None:
    async def give_away() -> None:
        handover = Counting()
        ours, _theirs = socket.socketpair()
        left: list[Any] = []
        loop = asyncio.get_running_loop()
        departures = Departures(loop, handover)
        for _ in range(COUNT):
            connection: Any = Leaving(ours.fileno(), left)
            departures.hand_over(connection)
        assert LIMIT < len(left) < COUNT
        before, began = handover.tries, loop.time()
        async with asyncio.timeout(PATIENCE):
            while handover.tries < before + TRIES:
                await asyncio.sleep(0.01)
            assert loop.time() - began >= SHORTEST
            taken = 0
            while taken < COUNT:
                taken += take_all(handover)
                await asyncio.sleep(0.01)
        assert len(left) == COUNT

    as_ordinary_user(lambda: asyncio.run(give_away()), *FEW)


def feeding(loop: Loop, handover: Counting, connection: socket.socket) -> Keeping:
    """A supervisor that gives its workers what was kept: *connection*, again and again."""
    # One socket stands for all: there may be few descriptors.
    again: Any = SimpleNamespace(fileno=connection.fileno, close=lambda: None)
    shelf = Shelf([(again, PASSAGE)] * COUNT)
    keeping = Keeping(loop, handover, Scoreboard(1), shelf)
    keeping.begin()
    return keeping


def test_the_supervisor_waits_a_little_between_tries() -> None:
    def main() -> None:
        handover, loop = Counting(), Loop()
        ours, _theirs = socket.socketpair()
        _keeping = feeding(loop, handover, ours)
        turn_until(loop, lambda: handover.tries > LIMIT)
        before, began = handover.tries, loop.now
        turn_until(loop, lambda: handover.tries == before + TRIES)
        assert loop.now - began >= SHORTEST
        assert take(loop, handover, COUNT) == [1] * COUNT

    as_ordinary_user(main, *FEW)


def test_a_stop_between_two_tries_of_the_supervisor() -> None:
    def main() -> None:
        handover, loop = Counting(), Loop()
        ours, _theirs = socket.socketpair()
        keeping = feeding(loop, handover, ours)
        turn_until(loop, lambda: handover.tries == LIMIT + 2)
        tries = handover.tries
        keeping.end()
        later: list[bool] = []
        loop.call_later(2 * PAUSE, lambda: later.append(True))
        turn_until(loop, lambda: bool(later))
        assert handover.tries == tries

    as_ordinary_user(main, *FEW)
