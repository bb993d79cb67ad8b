"""Connections between two runs: out of a keeper into the handover, and back at the end."""

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from pounce.ipc.handover import Handover, Passage
from pounce.ipc.scoreboard import Scoreboard
from pounce.loop import Loop
from pounce.supervisor.keeping import Keeping

PATIENCE = 25.0
Kept = tuple[socket.socket, Passage]


class Shelf:
    """A keeper in memory; *left* is what the run before has put there."""

    def __init__(self, left: list[Kept]) -> None:
        self.left = left
        self.kept: list[Kept] = []
        self.forgot = False
        self.finished = False
        self.memory: dict[str, int] = {}

    def recall(self, name: str) -> int | None:
        return self.memory.get(name)

    def remember(self, name: str, descriptor: int) -> None:
        self.memory[name] = descriptor

    def recover(self) -> list[Kept]:
        return self.left

    def forget(self) -> None:
        self.forgot = True

    def keep(self, connection: socket.socket, passage: Passage) -> None:
        self.kept.append((connection, passage))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def handover(stack: ExitStack) -> Handover:
    handover = Handover()
    stack.callback(handover.close)
    return handover


@pytest.fixture
def scoreboard(stack: ExitStack) -> Scoreboard:
    scoreboard = Scoreboard(1)
    stack.callback(scoreboard.close)
    return scoreboard


def connections(stack: ExitStack, count: int) -> list[Kept]:
    """Open connections, told apart by how many requests they have had."""
    made = []
    for number in range(count):
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        stack.enter_context(theirs)
        made.append((ours, Passage("http", None, None, number)))
    return made


def turn_until(loop: Loop, condition: Callable[[], bool]) -> None:
    overdue: list[bool] = []
    timer = loop.call_later(PATIENCE, lambda: overdue.append(True))
    loop.run(lambda: bool(overdue) or condition())
    timer.cancel()
    assert not overdue


def take(loop: Loop, handover: Handover, count: int) -> list[int]:
    """Take *count* connections, as a worker does, while the loop turns."""
    taken: list[int] = []

    def have_all() -> bool:
        while (one := handover.take()) is not None:
            one[0].close()
            taken.append(one[1].requests)
        return len(taken) == count

    turn_until(loop, have_all)
    return taken


def numbers(kept: list[Kept]) -> list[int]:
    return sorted(passage.requests for _, passage in kept)


def test_what_was_kept_waits_for_workers_and_is_then_forgotten(
    stack: ExitStack, loop: Loop, handover: Handover, scoreboard: Scoreboard
) -> None:
    shelf = Shelf(connections(stack, 3))
    keeping = Keeping(loop, handover, scoreboard, shelf)
    assert handover.take() is None
    assert not shelf.forgot
    keeping.begin()
    assert shelf.forgot
    assert take(loop, handover, 3) == [0, 1, 2]
    assert all(connection.fileno() == -1 for connection, _ in shelf.left), "they are the workers'"


def test_those_on_which_a_request_waits_come_first(
    stack: ExitStack, loop: Loop, handover: Handover, scoreboard: Scoreboard
) -> None:
    left, clients = [], []
    for number in range(6):
        ours, theirs = socket.socketpair()
        left.append((stack.enter_context(ours), Passage("http", None, None, number)))
        clients.append(stack.enter_context(theirs))
    keeping = Keeping(loop, handover, scoreboard, Shelf(left))
    for number in (3, 5):
        clients[number].send(b"GET")
    keeping.begin()
    assert take(loop, handover, 6) == [3, 5, 0, 1, 2, 4]


def test_one_that_cannot_be_handed_over_keeps_nobody_waiting(
    stack: ExitStack,
    loop: Loop,
    handover: Handover,
    scoreboard: Scoreboard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    left = connections(stack, 3)
    left[1] = (left[1][0], Passage("http", None, None, 1, b"x" * 1_000_000))
    keeping = Keeping(loop, handover, scoreboard, Shelf(left))
    keeping.begin()
    assert take(loop, handover, 2) == [0, 2]
    assert "a kept connection is lost" in caplog.text


def test_an_earlier_scoreboard_that_cannot_be_believed_is_left_out(
    stack: ExitStack,
    loop: Loop,
    handover: Handover,
    scoreboard: Scoreboard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf = Shelf([])
    earlier = Scoreboard(1)
    os.pwrite(earlier.descriptor, b"\xff" * 7 + b"\x7f", 0)
    shelf.memory["scoreboard"] = os.dup(earlier.descriptor)
    earlier.close()
    Keeping(loop, handover, scoreboard, shelf)
    assert "the earlier run's counts are lost" in caplog.text
    assert scoreboard.past_requests == 0


def test_more_than_the_handover_holds_are_fed_as_workers_take_them(
    stack: ExitStack, loop: Loop, handover: Handover, scoreboard: Scoreboard
) -> None:
    # Far more than are in the queue at a time: on one descriptor, to need few of them.
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    count = 1000
    shelf = Shelf([(ours.dup(), Passage("http", None, None, each)) for each in range(count)])
    keeping = Keeping(loop, handover, scoreboard, shelf)
    keeping.begin()
    assert take(loop, handover, count) == list(range(count))


def test_what_workers_give_away_at_the_end_is_kept(
    stack: ExitStack, loop: Loop, handover: Handover, scoreboard: Scoreboard
) -> None:
    shelf = Shelf([])
    keeping = Keeping(loop, handover, scoreboard, shelf)
    keeping.begin()
    keeping.end()
    given = connections(stack, 5)
    for connection, passage in given[:3]:
        assert handover.give(connection.fileno(), passage)
    turn_until(loop, lambda: len(shelf.kept) == 3)
    # The last ones come with the end of the last worker, in the same turn of the loop.
    for connection, passage in given[3:]:
        assert handover.give(connection.fileno(), passage)
    keeping.finish()
    assert numbers(shelf.kept) == [0, 1, 2, 3, 4]
    assert shelf.finished
    for connection, _ in shelf.kept:
        connection.close()


def test_what_no_worker_ever_took_is_kept_again(
    stack: ExitStack, loop: Loop, handover: Handover, scoreboard: Scoreboard
) -> None:
    """The first generation did not start."""
    shelf = Shelf(connections(stack, 3))
    keeping = Keeping(loop, handover, scoreboard, shelf)
    keeping.end()
    keeping.finish()
    assert numbers(shelf.kept) == [0, 1, 2]
    assert not shelf.forgot
    assert all(connection.fileno() >= 0 for connection, _ in shelf.kept)


def test_a_stop_right_after_the_start_loses_nothing(
    stack: ExitStack, loop: Loop, handover: Handover, scoreboard: Scoreboard
) -> None:
    shelf = Shelf(connections(stack, 600))
    keeping = Keeping(loop, handover, scoreboard, shelf)
    keeping.begin()
    turn_until(loop, lambda: shelf.left[0][0].fileno() == -1)  # the queue is full
    keeping.end()
    keeping.finish()
    assert numbers(shelf.kept) == list(range(600))
    for connection, _ in shelf.kept:
        connection.close()


def test_counts_go_on_from_where_an_earlier_run_has_stopped(
    stack: ExitStack, loop: Loop, handover: Handover, scoreboard: Scoreboard
) -> None:
    earlier = Scoreboard(1)
    earlier.acquire().beat(connections=0, busy=0, requests=7)  # nobody has ended it properly
    shelf = Shelf([])
    shelf.memory["scoreboard"] = left = os.dup(earlier.descriptor)
    earlier.close()
    keeping = Keeping(loop, handover, scoreboard, shelf)
    assert scoreboard.past_requests == 7
    assert shelf.memory["scoreboard"] == left, "this run may never get so far as to serve"
    keeping.begin()
    assert shelf.memory["scoreboard"] == scoreboard.descriptor
