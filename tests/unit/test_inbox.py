"""Whose datagrams are handled when, and what is lost."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pounce.workers.inbox import _LEAST_ROOM, _ROOM, _RUN, Inbox, Letter

PATH: Any = None


def put(inbox: Inbox[str], owner: str, count: int = 1, *, elsewhere: bool = False) -> None:
    for _ in range(count):
        inbox.put(Letter(owner, b"", PATH, owner.encode()), from_elsewhere=elsewhere)


def take_all(inbox: Inbox[str]) -> list[str]:
    taken = []
    while inbox:
        taken.append(inbox.take().owner)
    return taken


def test_a_modest_one_does_not_wait_behind_a_flood() -> None:
    inbox: Inbox[str] = Inbox()
    put(inbox, "flood", 1000)
    put(inbox, "modest")
    taken = take_all(inbox)
    assert taken.index("modest") == _RUN
    assert len(taken) == 1001


def test_all_have_their_turn() -> None:
    inbox: Inbox[str] = Inbox()
    for owner in "abc":
        put(inbox, owner, 2 * _RUN)
    assert take_all(inbox) == [*"a" * _RUN, *"b" * _RUN, *"c" * _RUN] * 2


def test_garbage_from_elsewhere_takes_no_room_of_the_client() -> None:
    inbox: Inbox[str] = Inbox()
    put(inbox, "a", 2 * _ROOM, elsewhere=True)
    put(inbox, "a", 100)
    assert len(take_all(inbox)) == _LEAST_ROOM + 100


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 3000)), max_size=20))
def test_what_waits_is_bounded_and_keeps_its_order(puts: list[tuple[str, int]]) -> None:
    inbox: Inbox[str] = Inbox()
    numbers: Counter[str] = Counter()
    for owner, count in puts:
        for _ in range(count):
            numbers[owner] += 1
            data = b"%d" % numbers[owner]
            inbox.put(Letter(owner, data, PATH, owner.encode()), from_elsewhere=False)
    seen: dict[str, int] = {}
    total = 0
    while inbox:
        letter = inbox.take()
        assert seen.get(letter.owner, 0) < int(letter.data)
        seen[letter.owner] = int(letter.data)
        total += 1
    assert total <= _ROOM * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5 + 1 / 6 + 1 / 7 + 1 / 8)
    assert set(seen) == set(numbers)


def test_the_kernel_drops_what_would_be_lost_and_nothing_of_others() -> None:
    inbox: Inbox[str] = Inbox()
    inbox.overrun = True
    put(inbox, "flood", 10 * _LEAST_ROOM)
    put(inbox, "modest", 3)
    inbox.renew(0.02)
    assert inbox.chances == {b"flood": pytest.approx(0.1)}
    take_all(inbox)
    put(inbox, "flood", 2 * _LEAST_ROOM)
    inbox.renew(0.02)
    assert inbox.chances[b"flood"] < 0.06
    take_all(inbox)
    for _ in range(30):
        inbox.renew(0.02)
    assert inbox.chances == {}


def test_a_burst_that_can_be_read_is_not_dropped_by_the_kernel() -> None:
    inbox: Inbox[str] = Inbox()
    put(inbox, "upload", 2 * _ROOM)
    inbox.renew(0.02)
    assert inbox.chances == {}


def test_the_kernel_is_told_of_the_loudest_alone() -> None:
    inbox: Inbox[str] = Inbox()
    inbox.overrun = True
    for number in range(12):
        put(inbox, f"{number}", (number + 2) * _LEAST_ROOM)
    inbox.renew(0.02)
    assert set(inbox.chances) == {b"%d" % number for number in range(4, 12)}
