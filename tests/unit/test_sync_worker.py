"""A thread of a worker: it keeps the contract of the workers that the supervisor runs."""

import threading
from typing import Any

from pounce.threads.queue import RequestQueue
from pounce.threads.sync_worker import SyncWorker
from pounce.workers import TCPWorker
from tests.service import PATIENCE, wait_until


class Job:
    """A request that lasts until the gate is open."""

    steps = 0

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()

    def run(self, answer: Any, runner: SyncWorker) -> None:
        self.begun.set()
        assert self.gate.wait(PATIENCE)


class Handler:
    """What threads answer with; it is told how many of them have left."""

    def __init__(self) -> None:
        self.left = 0

    def of_thread(self) -> "Handler":
        return self

    def answer(self, job: Any) -> None:
        """What the jobs here are answered with."""

    def leave(self) -> None:
        self.left += 1


def started(queue: RequestQueue[Any], handler: Handler) -> SyncWorker:
    owner: Any = None
    answers: Any = handler
    return SyncWorker(queue, answers, "test", owner)


def ended(worker: SyncWorker) -> None:
    wait_until(lambda: not worker.alive, "the thread's end")


def test_it_keeps_the_contract_of_a_worker() -> None:
    queue: RequestQueue[Any] = RequestQueue()
    worker = started(queue, Handler())
    assert isinstance(worker, TCPWorker)
    assert worker.is_idle()
    worker.start_draining()
    ended(worker)


def test_it_finishes_what_it_is_on_and_takes_no_more() -> None:
    queue: RequestQueue[Any] = RequestQueue()
    handler = Handler()
    first, second = Job(), Job()
    queue.put([first])
    worker = started(queue, handler)
    assert first.begun.wait(PATIENCE)
    assert not worker.is_idle()
    queue.put([second])
    worker.start_draining()
    worker.start_draining()
    first.gate.set()
    ended(worker)
    assert (worker.done, handler.left) == (1, 1)
    assert not second.begun.is_set()
    other = started(queue, handler)
    assert second.begun.wait(PATIENCE)
    second.gate.set()
    other.start_draining()
    ended(other)
