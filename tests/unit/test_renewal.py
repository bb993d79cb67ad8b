"""Replacing worn-out workers and changing their number, with a crew that only takes notes."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pounce.config.plan import Plan
from pounce.config.service import ServerConfig
from pounce.events.lifecycle import Kind, Slot, slots
from pounce.ipc.scoreboard import Scoreboard
from pounce.loop import Timer
from pounce.supervisor.handle import Generation, WorkerHandle
from pounce.supervisor.renewal import Renewal, _resident_memory
from pounce.supervisor.states import WORKER_TABLE, GenerationState, WorkerInput, WorkerState

HUGE = 2**50


SLOTS = slots(Kind.HTTP, 0, 50)


class Crew:
    """Steps the worker table, and starts workers that are nothing but a handle."""

    def __init__(self) -> None:
        self.scoreboard = Scoreboard(100)

    def feed(self, worker: WorkerHandle, what: WorkerInput) -> None:
        worker.state, _ = WORKER_TABLE[worker.state, what]

    def spawn_worker(self, generation: Generation, slot: Slot) -> None:
        generation.workers[slot] = self._spawn(generation, slot)

    def spawn_replacement(self, generation: Generation, slot: Slot) -> None:
        generation.replacements[slot] = self._spawn(generation, slot)

    def _spawn(self, generation: Generation, slot: Slot) -> WorkerHandle:
        target: Any = SimpleNamespace(id=os.getpid())
        channel: Any = None
        return WorkerHandle(generation, slot, target, None, channel, self.scoreboard.acquire(), 0.0)


class Bench:
    """A serving generation of *size* workers, all ready."""

    def __init__(self, size: int, mode: Any = "process", **settings: Any) -> None:
        self.crew = Crew()
        crew: Any = self.crew
        self.renewal = Renewal(crew, mode)
        self.generation = Generation(1, Plan(ServerConfig(**settings), ()), size)
        self.generation.state = GenerationState.SERVING
        for slot in SLOTS[:size]:
            self.crew.spawn_worker(self.generation, slot)
            self.crew.feed(self.generation.workers[slot], WorkerInput.READY)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.crew.scoreboard.close()

    def answer(self, slot: Slot, requests: int) -> None:
        """Let the worker in *slot* have answered *requests*."""
        self.generation.workers[slot].row.beat(connections=0, busy=0, requests=requests)

    def check(self, now: float = 100.0) -> list[Slot]:
        """Look for worn-out workers; the slots that are being replaced."""
        self.renewal.check(self.generation, now)
        return list(self.generation.replacements)

    def get_ready(self, slot: Slot) -> WorkerHandle:
        """Let the replacement for *slot* be ready."""
        replacement = self.generation.replacements[slot]
        self.crew.feed(replacement, WorkerInput.READY)
        self.renewal.ready(replacement)
        return replacement

    def leave(self) -> None:
        """Let all that drain end."""
        self.generation.leaving.clear()


def test_a_worker_is_replaced_after_its_requests_give_or_take_a_tenth() -> None:
    with Bench(2, max_requests=1000) as bench:
        bench.answer(SLOTS[1], 999)
        assert bench.check() == []
        bench.answer(SLOTS[1], 1100)
        assert bench.check() == [SLOTS[1]]
        old = bench.generation.workers[SLOTS[1]]
        new = bench.get_ready(SLOTS[1])
        assert bench.generation.workers[SLOTS[1]] is new
        assert bench.generation.leaving == {old}
        assert old.state is WorkerState.DRAINING
        assert bench.generation.hands_over


def test_workers_do_not_wear_out_at_the_same_moment() -> None:
    with Bench(50, max_requests=1000) as bench:
        bench.check()
        limits = {worker.request_limit for worker in bench.generation.ready}
        assert len(limits) > 10
        assert all(1000 <= limit <= 1100 for limit in limits)


def test_one_slot_at_a_time() -> None:
    with Bench(3, max_requests=10) as bench:
        for slot in SLOTS[:3]:
            bench.answer(slot, 100)
        replaced = []
        for _ in range(3):
            [slot] = bench.check()
            assert bench.check(now=1e6) == [slot]
            replaced.append(slot)
            bench.get_ready(slot)
        assert replaced == SLOTS[:3]
        assert bench.check() == []


def test_there_are_never_twice_as_many_workers() -> None:
    with Bench(1, max_requests=10) as bench:
        bench.answer(SLOTS[0], 100)
        bench.check()
        bench.get_ready(SLOTS[0])
        bench.answer(SLOTS[0], 100)
        assert bench.check() == [], "its predecessor drains still"
        bench.leave()
        assert bench.check() == [SLOTS[0]]


def test_a_replacement_that_failed_is_tried_again_later() -> None:
    with Bench(1, max_requests=10) as bench:
        bench.answer(SLOTS[0], 100)
        assert bench.check(now=100) == [SLOTS[0]]
        bench.generation.forget(bench.generation.replacements[SLOTS[0]])
        assert bench.check(now=101) == []
        assert bench.check(now=131) == [SLOTS[0]]


@pytest.mark.parametrize(
    ("mode", "limit", "replaced"),
    [("process", 1, SLOTS[:1]), ("process", HUGE, []), ("process", 0, []), ("thread", 1, [])],
)
def test_a_process_is_replaced_for_its_memory(mode: str, limit: int, replaced: list[Slot]) -> None:
    with Bench(1, mode, max_memory=limit) as bench:
        assert bench.check() == replaced


def test_a_limit_that_nobody_can_keep_does_not_make_it_replace_without_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Bench(1, max_memory=1) as bench:
        assert bench.check(now=100) == [SLOTS[0]]
        bench.get_ready(SLOTS[0])
        bench.leave()
        assert "more memory than max_memory" in caplog.text
        assert bench.check(now=101) == []
        assert bench.check(now=131) == [SLOTS[0]]


def test_resident_memory_is_that_of_the_kernel() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    assert _resident_memory(os.getpid()) == pytest.approx(kilobytes * 1024, rel=0.1)
    assert _resident_memory(2**30) == 0


@pytest.mark.parametrize("state", [GenerationState.STARTING, GenerationState.DRAINING])
def test_only_a_generation_that_serves_is_renewed(state: GenerationState) -> None:
    with Bench(1, max_requests=10) as bench:
        bench.answer(SLOTS[0], 100)
        bench.generation.state = state
        assert bench.check() == []


def test_more_workers_fill_new_slots_and_fewer_leave_the_highest() -> None:
    with Bench(2) as bench:
        bench.renewal.resize(bench.generation, 4)
        assert sorted(bench.generation.workers) == SLOTS[:4]
        bench.crew.feed(bench.generation.workers[SLOTS[2]], WorkerInput.READY)
        bench.renewal.resize(bench.generation, 1)
        assert sorted(bench.generation.workers) == [SLOTS[0]]
        assert {each.slot: each.state for each in bench.generation.leaving} == {
            SLOTS[1]: WorkerState.DRAINING,
            SLOTS[2]: WorkerState.DRAINING,
            SLOTS[3]: WorkerState.STOPPING,  # it was not ready yet
        }


def test_fewer_workers_end_replacements_and_respawns_of_their_slots_too() -> None:
    with Bench(3, max_requests=10) as bench:
        bench.answer(SLOTS[1], 100)
        assert bench.check() == [SLOTS[1]]
        bench.generation.forget(bench.generation.workers[SLOTS[2]])
        bench.generation.respawns[SLOTS[2]] = timer = Timer(200.0, 1, lambda: None)
        bench.renewal.resize(bench.generation, 1)
        assert timer.cancelled
        assert not bench.generation.replacements
        assert not bench.generation.respawns
        assert [each.slot for each in bench.generation.leaving] == [SLOTS[1]] * 2


def test_a_replacement_fills_the_slot_of_a_worker_that_ended_meanwhile() -> None:
    with Bench(1, max_requests=10) as bench:
        bench.answer(SLOTS[0], 100)
        assert bench.check() == [SLOTS[0]]
        bench.generation.forget(bench.generation.workers[SLOTS[0]])
        bench.generation.respawns[SLOTS[0]] = timer = Timer(200.0, 1, lambda: None)
        assert bench.generation.workers == {SLOTS[0]: bench.get_ready(SLOTS[0])}
        assert timer.cancelled, "there would be two workers in the slot"
        assert not bench.generation.respawns
