"""Turns of the loop, and the units that make one."""

import asyncio
import itertools
from collections.abc import Callable
from contextvars import Context, ContextVar

import pytest

from pounce.net import turns
from pounce.net.turns import Turns, Units


class Loop:
    """A loop that turns when it is told to."""

    def __init__(self) -> None:
        self._soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None], *, context: Context) -> None:
        self._soon.append(callback)

    def turn(self) -> bool:
        """Call what is due; false if nothing was."""
        soon, self._soon = self._soon, []
        for callback in soon:
            callback()
        return bool(soon)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def shared(loop: Loop) -> Turns:
    return Turns(loop)  # type: ignore[arg-type]


def test_each_gets_its_turn_in_order_and_once(loop: Loop, shared: Turns) -> None:
    done: list[str] = []
    first, second = (lambda: done.append("first")), (lambda: done.append("second"))
    for each in (first, second, first):
        shared.later(each)
    assert not done
    loop.turn()
    assert done == ["first", "second"]
    assert not loop.turn()


def test_who_is_not_done_waits_behind_all_others(loop: Loop, shared: Turns) -> None:
    done: list[str] = []

    def long() -> None:
        done.append("long")
        if len(done) < 5:
            shared.later(long)

    shared.later(long)
    shared.later(lambda: done.append("short"))
    while loop.turn():
        pass
    assert done == ["long", "short", "long", "long", "long"]


def test_however_many_wait_others_are_served(
    loop: Loop, shared: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr(turns, "SHARE", 3)  # looks at the clock
    done: list[int] = []
    for number in range(10):
        shared.later(lambda number=number: done.append(number))  # type: ignore[misc]
    seen = [len(done) for _ in iter(loop.turn, False)]
    assert seen == [3, 6, 9, 10]
    assert done == list(range(10))


def test_an_error_costs_nobody_else_a_turn(loop: Loop, shared: Turns) -> None:
    done: list[int] = []
    shared.later(lambda: done.append(1 // len(done)))
    shared.later(lambda: done.append(2))
    with pytest.raises(ZeroDivisionError):
        loop.turn()
    loop.turn()
    assert done == [2]


def test_no_turn_sees_what_who_asked_first_has_set() -> None:
    variable = ContextVar("variable", default="nobody's")

    async def main() -> None:
        seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        shared = Turns(asyncio.get_running_loop())
        variable.set("a request's")
        shared.later(lambda: seen.set_result(variable.get()))
        async with asyncio.timeout(25):
            assert await seen == "nobody's"

    asyncio.run(main())


def size_of(head: bytes) -> int:
    """Units begin with a colon and the size of what follows, one digit."""
    return 2 + int(head[1:]) if len(head) == 2 else 0


UNITS = b":3abc:0:1x"


@pytest.mark.parametrize("size", range(1, len(UNITS) + 1))
def test_units_end_where_they_say_however_they_come(size: int) -> None:
    units, ends = Units(size_of, 2), set()
    for start in range(0, len(UNITS), size):
        piece, position = UNITS[start : start + size], 0
        while position < len(piece):
            position = units.pass_one(piece, position)
            ends.add(start + position)
    assert ends == {5, 7, 10, *range(size, len(UNITS), size)}


def test_no_more_units_are_passed_than_asked_for() -> None:
    assert Units(size_of, 2).pass_some(UNITS, 2) == 7
    assert Units(size_of, 2).pass_some(UNITS, 9) == len(UNITS)
    assert Units(size_of, 2).pass_some(b"", 9) == 0
