"""What a loop and its threads share without a lock, in every order that few preemptions make."""

import asyncio
import threading
from functools import partial
from typing import Any, cast

import pytest

from pounce.threads import outbox, queue
from tests.schedules import Schedule, Stuck, schedules


class Bed(queue.Seat):
    """A seat whose sleeping thread the schedule knows."""

    __slots__ = ("rung",)

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        super().close()
        self.rung = 0

        def ring() -> None:
            self.rung += 1

        def sleep() -> None:
            schedule.wait(lambda: self.rung > 0)
            self.rung -= 1

        self.ring, self.sleep = ring, sleep


class Loop:
    """An event loop, as far as an outbox sees one."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._told: list[Any] = []
        self.call_soon_threadsafe = self.call_soon = self._told.append

    def turn(self) -> None:
        self._schedule.wait(lambda: bool(self._told))
        self._told.pop(0)()


def hand_out(schedule: Schedule, takers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Lock", schedule.lock)
        requests: queue.RequestQueue[int] = queue.RequestQueue()
    taken: list[int] = []

    def take(seat: queue.Seat) -> None:
        taken.append(requests.take(seat))

    def put() -> None:
        requests.put(range(takers))
        while requests.wake():
            pass

    schedule.run(*(partial(take, Bed(schedule)) for _ in range(takers)), put)
    assert sorted(taken) == list(range(takers))


def leave(schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Lock", schedule.lock)
        requests: queue.RequestQueue[int] = queue.RequestQueue()
    seat = Bed(schedule)
    ended: list[bool] = []

    def take() -> None:
        with pytest.raises(queue.Left):
            requests.take(seat)
        ended.append(True)

    schedule.run(take, partial(requests.leave, seat))
    assert ended == [True]


def test_no_order_leaves_a_thread_asleep_that_has_to_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = 0
    for schedule in schedules(queue, 2):
        leave(schedule, monkeypatch)
        tried += 1
    assert tried > 20  # 3.12 tells of fewer steps than the others


@pytest.mark.parametrize(("takers", "preemptions"), [(1, 2), (2, 1)])
def test_no_order_leaves_a_request_behind(
    takers: int, preemptions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    for schedule in schedules(queue, preemptions):
        hand_out(schedule, takers, monkeypatch)
        tried += 1
    assert tried > 100


def post_and_deliver(schedule: Schedule) -> None:
    loop = Loop(schedule)
    box = outbox.Outbox(cast("asyncio.AbstractEventLoop", loop))
    made: list[int] = []

    def post() -> None:
        for number in (1, 2):
            box.post(outbox.Call(partial(made.append, number)))

    def serve() -> None:
        box.expect()
        box.deliver()
        while len(made) < 2:
            loop.turn()

    schedule.run(post, serve)
    assert made == [1, 2]


def test_no_order_leaves_a_delivery_behind() -> None:
    tried = 0
    for schedule in schedules(outbox):
        post_and_deliver(schedule)
        tried += 1
    assert tried > 100


def test_what_waits_for_ever_is_found() -> None:
    schedule = Schedule(queue)
    with pytest.raises(Stuck):
        schedule.run(lambda: schedule.wait(lambda: False), lambda: None)
