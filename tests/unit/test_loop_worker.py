"""The life of a worker with a loop of its own, without a supervisor."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pounce.application.interface import Served
from pounce.config.plan import Plan
from pounce.config.service import ServerConfig
from pounce.events.lifecycle import LIFESPAN
from pounce.ipc.channel import Channel
from pounce.ipc.flight import FlightRecord
from pounce.ipc.handover import Handover
from pounce.ipc.scoreboard import Scoreboard
from pounce.workers import Assignment, LifespanHost
from tests.service import PATIENCE, wait_until


class Stumbling(LifespanHost):
    """Something goes wrong in its second look at what is due."""

    ticks = 0

    def tick(self, now: float) -> None:
        self.ticks += 1
        if self.ticks == 2:
            raise ZeroDivisionError
        super().tick(now)


@pytest.fixture
def assignment() -> Iterator[Assignment]:
    with ExitStack() as stack:
        ours, theirs = Channel.pair()
        handover, board = Handover(), Scoreboard(1)
        for each in (ours, theirs, handover, board):
            stack.callback(each.close)
        yield Assignment(
            Plan(ServerConfig(), ()),
            1,
            LIFESPAN,
            [],
            board.acquire(),
            board,
            theirs,
            handover,
            FlightRecord(),
        )


def test_the_heart_goes_on_beating_after_an_error(
    assignment: Assignment, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Stumbling(assignment, lambda: Served)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: worker.ticks >= 3, "a look after the one that failed")
    finally:
        worker.terminate()
        thread.join(PATIENCE)
    assert not thread.is_alive()
    assert "ZeroDivisionError" in caplog.text
