"""For how long nobody has used a service, as its workers' rows tell."""

from collections.abc import Iterator

import pytest

from pounce.ipc.scoreboard import Row, Scoreboard
from pounce.loop import Loop
from pounce.supervisor.idling import Idling


class Bench:
    """Two workers' rows, looked at by a clock of the test's own."""

    def __init__(self, loop: Loop, board: Scoreboard, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(Loop, "now", property(lambda _: self.now))
        self.idling = Idling(loop)
        self.row, self._other = board.acquire(), board.acquire()

    def idle(self, past_requests: int = 0) -> float:
        """Look a second later; for how long it has been idle then."""
        self.now += 1.0
        rows: list[Row] = [self.row, self._other]
        self.idling.look(rows, past_requests)
        return self.idling.seconds


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    loop, board = Loop(), Scoreboard(2)
    yield Bench(loop, board, monkeypatch)
    board.close()
    loop.close()


def test_nobody(bench: Bench) -> None:
    assert [bench.idle() for _ in range(3)] == [1.0, 2.0, 3.0]


def test_a_connection_counts_at_once(bench: Bench) -> None:
    bench.idle()
    bench.row.hold(1)
    assert bench.idle() == 0.0
    bench.row.beat(connections=0, busy=0, requests=0)
    assert bench.idle() == 1.0


def test_work_without_a_connection_counts(bench: Bench) -> None:
    bench.row.beat(connections=0, busy=0, requests=0, occupied=True)
    assert bench.idle() == 0.0
    bench.row.beat(connections=0, busy=0, requests=0)
    assert bench.idle() == 1.0


def test_who_came_and_left_between_two_looks_counts(bench: Bench) -> None:
    bench.row.beat(connections=0, busy=0, requests=1)
    assert bench.idle() == 0.0
    assert bench.idle() == 1.0


def test_a_worker_that_ends_makes_no_difference(bench: Bench) -> None:
    bench.row.beat(connections=0, busy=0, requests=7)
    bench.idle()
    bench.row.clear()
    assert bench.idle(past_requests=7) == 1.0
