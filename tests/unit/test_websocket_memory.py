"""What all WebSockets of a worker hold together, and who gives up where it is too much."""

import pytest

from pounce.websocket.memory import MessageMemory


class Holder:
    """Holds what it is told to, and nothing once it has given up."""

    def __init__(self, memory: MessageMemory) -> None:
        self._memory = memory
        self.gave_up = False

    def hold(self, size: int) -> None:
        self._memory.hold(self, size)

    def give_up(self) -> None:
        self.gave_up = True
        self.hold(0)


def test_who_holds_most_gives_up_and_not_who_comes_last() -> None:
    memory = MessageMemory(100)
    small, large, last = (Holder(memory) for _ in range(3))
    small.hold(10)
    large.hold(60)
    last.hold(30)
    assert (memory.total, large.gave_up) == (100, False)
    last.hold(31)
    assert [each.gave_up for each in (small, large, last)] == [False, True, False]
    assert memory.total == 41


def test_as_many_give_up_as_it_takes() -> None:
    memory = MessageMemory(100)
    holders = [Holder(memory) for _ in range(4)]
    for each in holders:
        each.hold(25)
    greedy = Holder(memory)
    greedy.hold(1000)
    assert [each.gave_up for each in holders] == [False] * 4
    assert greedy.gave_up
    assert memory.total == 100


def test_what_is_let_go_does_not_count() -> None:
    memory = MessageMemory(100)
    one, other = Holder(memory), Holder(memory)
    one.hold(100)
    one.hold(20)
    other.hold(80)
    other.hold(0)
    one.hold(100)
    assert not one.gave_up
    assert not other.gave_up


def test_the_log_says_it_once_for_each_time(caplog: pytest.LogCaptureFixture) -> None:
    memory = MessageMemory(100)
    for _ in range(2):
        keeps = Holder(memory)
        keeps.hold(60)
        for _ in range(3):
            Holder(memory).hold(90)
        keeps.hold(0)
    assert caplog.text.count("websocket_max_memory") == 2
