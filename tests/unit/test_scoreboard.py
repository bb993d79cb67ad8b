import os
import time
from collections.abc import Iterator

import pytest

from pounce.ipc.scoreboard import Scoreboard


@pytest.fixture
def scoreboard() -> Iterator[Scoreboard]:
    scoreboard = Scoreboard(3)
    yield scoreboard
    scoreboard.close()


def test_a_new_row_is_blank(scoreboard: Scoreboard) -> None:
    row = scoreboard.acquire()
    assert (row.heartbeat, row.connections, row.busy, row.requests) == (0.0, 0, 0, 0)


def test_a_beat_is_the_time_and_the_numbers(scoreboard: Scoreboard) -> None:
    row = scoreboard.acquire()
    before = time.monotonic()
    row.beat(connections=3, busy=2, requests=2**40)
    assert before <= row.heartbeat <= time.monotonic()
    assert (row.connections, row.busy, row.requests) == (3, 2, 2**40)


def test_rows_do_not_touch_each_other(scoreboard: Scoreboard) -> None:
    one, two, three = (scoreboard.acquire() for _ in range(3))
    two.beat(connections=1, busy=1, requests=1)
    assert one.heartbeat == three.heartbeat == 0.0
    one.beat(connections=9, busy=9, requests=9)
    assert two.requests == 1


def test_what_a_forked_child_writes_is_read_here(scoreboard: Scoreboard) -> None:
    row = scoreboard.acquire()
    pid = os.fork()
    if pid == 0:
        row.beat(connections=5, busy=4, requests=3)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert (row.connections, row.busy, row.requests) == (5, 4, 3)
    assert row.heartbeat <= time.monotonic()


def test_a_released_row_is_used_again_and_cleared(scoreboard: Scoreboard) -> None:
    rows = [scoreboard.acquire() for _ in range(3)]
    rows[1].beat(connections=5, busy=4, requests=3)
    scoreboard.release(rows[1])
    again = scoreboard.acquire()
    assert (again.heartbeat, again.connections, again.busy, again.requests) == (0.0, 0, 0, 0)


def test_all_rows_in_use(scoreboard: Scoreboard) -> None:
    for _ in range(3):
        scoreboard.acquire()
    with pytest.raises(IndexError):
        scoreboard.acquire()


def test_a_row_outlives_the_closed_board() -> None:
    scoreboard = Scoreboard(1)
    row = scoreboard.acquire()
    scoreboard.close()
    row.beat(connections=1, busy=0, requests=7)
    assert row.requests == 7


def test_the_least_loaded_of_a_generation_is_told(scoreboard: Scoreboard) -> None:
    rows = [scoreboard.acquire() for _ in range(3)]
    assert scoreboard.least_connections(1) == 0
    for row, generation, held in zip(rows, (1, 1, 2), (7, 5, 2), strict=True):
        row.serve(generation)
        row.hold(held)
    assert scoreboard.least_connections(1) == 5
    assert scoreboard.least_connections(2) == 2
    rows[1].serve(0)
    assert scoreboard.least_connections(1) == 7
    scoreboard.release(rows[0])
    assert scoreboard.least_connections(1) == 0


def test_a_later_board_counts_on(scoreboard: Scoreboard) -> None:
    rows = [scoreboard.acquire() for _ in range(3)]
    for row, requests in zip(rows, (1, 20, 300), strict=True):
        row.beat(connections=0, busy=0, requests=requests)
    scoreboard.retire(rows[0])
    scoreboard.release(rows[0])
    assert scoreboard.past_requests == 1
    later = Scoreboard(3)
    later.carry_on(scoreboard.descriptor)
    later.close()
    assert later.past_requests == 321


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\xff" * 1000], ids=len)
def test_a_board_of_another_layout_is_left_out(scoreboard: Scoreboard, content: bytes) -> None:
    descriptor = os.memfd_create("earlier")
    os.write(descriptor, content)
    scoreboard.carry_on(descriptor)
    os.close(descriptor)
    assert scoreboard.past_requests == 0


WILD = [-(2**63), -1, 2**62, 2**63 - 1]


def write(scoreboard: Scoreboard, cell: int, number: int) -> None:
    """As an application can: through the descriptor that its worker has."""
    os.pwrite(scoreboard.descriptor, number.to_bytes(8, "little", signed=True), cell * 8)


def test_its_size_is_sealed(scoreboard: Scoreboard) -> None:
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(scoreboard.descriptor, size)


@pytest.mark.parametrize("number", WILD)
def test_wild_numbers_are_taken_for_the_nearest_that_can_be(
    scoreboard: Scoreboard, number: int
) -> None:
    row = scoreboard.acquire()
    for cell in range(16, 20):
        write(scoreboard, cell, number)
    nearest = 0 if number < 0 else 2**53 - 1
    assert (row.connections, row.busy, row.requests) == (nearest,) * 3
    assert row.heartbeat == 0.0, "a hung worker would look alive"
    for _ in range(3):
        scoreboard.retire(row)
    assert scoreboard.past_requests == nearest


@pytest.mark.parametrize("number", WILD)
def test_wild_numbers_of_others_keep_nobody_from_accepting(
    scoreboard: Scoreboard, number: int
) -> None:
    one, _other = scoreboard.acquire(), scoreboard.acquire()
    one.serve(1)
    one.hold(7)
    for cell in (33, 36):  # the other's connections; and it serves, too
        write(scoreboard, cell, number if cell == 33 else 1)
    assert scoreboard.least_connections(1) == 7
    write(scoreboard, 0, number)  # how many rows there are
    assert scoreboard.least_connections(1) in (0, 7)
    scoreboard.acquire().serve(2)
    assert scoreboard.least_connections(2) == 0
    write(scoreboard, 1, number)
    scoreboard.retire(one)
    assert scoreboard.past_requests == 0


@pytest.mark.parametrize("number", WILD)
def test_an_earlier_board_with_wild_numbers(scoreboard: Scoreboard, number: int) -> None:
    row = scoreboard.acquire()
    row.beat(connections=0, busy=0, requests=5)
    write(scoreboard, 1, number)
    later = Scoreboard(1)
    later.carry_on(scoreboard.descriptor)
    assert later.past_requests == (5 if number < 0 else 2**53 - 1)
    write(scoreboard, 0, number)
    with pytest.raises(ValueError, match="it says that it has"):
        later.carry_on(scoreboard.descriptor)
    later.close()
