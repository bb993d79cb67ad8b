"""Threads that run one bytecode at a time, in every order that few preemptions make.

Nearly every race needs no more than two preemptions, each at the wrong place, and there are few
enough of those to try them all (Musuvathi and Qadeer, "Iterative Context Bounding for Systematic
Testing of Multithreaded Programs", PLDI 2007). What is tried is a sequence of whole bytecodes,
which is what an interpreter with a global lock may do; a free-threaded one keeps single operations
of lists and deques whole by locks of their own.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

PATIENCE = 30.0

Work = Callable[[], object]
Preemptions = tuple[tuple[int, int], ...]


class Stuck(Exception):
    """All threads wait for each other, or for what nobody will do."""


class Thread:
    """One of the threads: its *work*, whether it can go on, and its turn."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.ended = False
        self.ready: Callable[[], bool] = lambda: True
        self.turn = threading.Semaphore(0)


class Schedule:
    """One order in which threads run what *module* has; everything else they do is one step.

    *preemptions* are pairs of a step and of the thread that goes on instead, by its number. The
    first thread begins; one that ends or waits is followed by the first that can go on.
    """

    def __init__(self, module: ModuleType, preemptions: Preemptions = ()) -> None:
        self.preemptions = preemptions
        self.steps: list[list[int]] = []
        """For each step that was made: the threads that could have gone on instead."""
        self._file = module.__file__
        self._instead = dict(preemptions)
        self._threads: list[Thread] = []
        self._current = 0
        self._errors: list[BaseException] = []
        self._over = threading.Event()

    def lock(self) -> "Lock":
        """In place of a `threading.Lock`, for which a thread would wait without being seen to."""
        return Lock(self)

    def wait(self, ready: Callable[[], bool]) -> None:
        """Have others go on until *ready*; called by the thread that waits."""
        thread = self._threads[self._current]
        thread.ready = ready
        if not ready():
            self._go_on()
            self._await_turn(thread)
        thread.ready = lambda: True

    def run(self, *works: Work) -> None:
        """Run each in a thread; raises what one of them raises, and Stuck."""
        self._threads = [Thread(work) for work in works]
        started = [
            threading.Thread(target=self._run, args=(thread,), daemon=True)
            for thread in self._threads
        ]
        for each in started:
            each.start()
        self._threads[0].turn.release()
        assert self._over.wait(PATIENCE)
        for each in started:
            each.join(PATIENCE)
        if self._errors:
            self._errors[0].add_note(f"after the preemptions {self.preemptions}")
            raise self._errors[0]

    def _run(self, thread: Thread) -> None:
        try:
            self._await_turn(thread)
            sys.settrace(self._trace)
            thread.work()
        except BaseException as error:
            self._errors.append(error)
        finally:
            sys.settrace(None)
            thread.ended = True
            self._go_on()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != self._file:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self._step()
        return self._trace

    def _step(self) -> None:
        current = self._current
        others = [each for each in self._able() if each != current]
        instead = self._instead.get(len(self.steps), current)
        self.steps.append(others)
        if instead in others:
            self._give_turn(instead)
            self._await_turn(self._threads[current])

    def _able(self) -> list[int]:
        return [
            index
            for index, thread in enumerate(self._threads)
            if not thread.ended and thread.ready()
        ]

    def _go_on(self) -> None:
        able = self._able()
        if able and not self._errors:
            self._give_turn(able[0])
            return
        if not self._errors and not all(thread.ended for thread in self._threads):
            self._errors.append(Stuck())
        self._over.set()
        for thread in self._threads:
            thread.turn.release()

    def _give_turn(self, index: int) -> None:
        self._current = index
        self._threads[index].turn.release()

    def _await_turn(self, thread: Thread) -> None:
        assert thread.turn.acquire(timeout=PATIENCE)
        if self._errors:
            raise Stuck


class Lock:
    """A lock whose waiting threads a *schedule* knows."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._held = False

    def __enter__(self) -> None:
        self._schedule.wait(lambda: not self._held)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


def schedules(module: ModuleType, preemptions: int = 2) -> Iterator[Schedule]:
    """Every schedule of what is run in them, with up to so many *preemptions*.

    Each must be run before the next is asked for.
    """
    waiting: list[Preemptions] = [()]
    while waiting:
        schedule = Schedule(module, waiting.pop())
        yield schedule
        made = schedule.preemptions
        if len(made) < preemptions:
            first = made[-1][0] + 1 if made else 0
            waiting += (
                (*made, (step, other))
                for step in range(first, len(schedule.steps))
                for other in schedule.steps[step]
            )
