"""A worker's threads, and the requests that its event loop hands to them.

The loop accepts, and owns every connection: idle ones, and those whose clients are slow to send
or to read. A thread gets a request when the whole of it is here.
"""

import asyncio
import time
from functools import partial
from math import inf

from pounce.asgi.departure import NOTICE
from pounce.events.loggers import get_logger
from pounce.http.connections import ServerContext
from pounce.threads.exchange import Exchange
from pounce.threads.handler import Handler
from pounce.threads.outbox import Call, Outbox
from pounce.threads.queue import RequestQueue
from pounce.threads.storage import Storage, bounded, storage_of
from pounce.threads.sync_worker import SyncWorker

logger = get_logger("pounce.worker")

# Threads that wait for slow clients, beyond those that the configuration asks for. Each costs
# little; but a client decides how long it waits.
_MOST_ASIDE = 64

# What an application gets, in seconds, to take notice of its interruption.
_INTERRUPTION = 1.0

# Seconds that a thread may be on a response in pieces before another takes its place. It is short
# beside a pause that a person notices, and long beside a response that never really waits.
_PATIENCE = 0.02


class AcceptDistributor:
    """Hands complete requests to the first free of *size* threads.

    A thread that is on one request for *patience* seconds is given up; a fresh one takes its
    place. *name* is what threads' names begin with.
    """

    storage: Storage

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        size: int,
        patience: float,
        name: str,
    ) -> None:
        self.outbox = Outbox(loop)
        self.ending = False
        self._loop = loop
        self._handler = handler
        self._size = size
        self._patience = patience
        self._name = name
        self._started = 0
        self._queue: RequestQueue[Exchange] = RequestQueue()
        self._arrived: list[Exchange] = []
        self._workers: list[SyncWorker] = []
        self._aside: list[SyncWorker] = []
        self._stuck: list[SyncWorker] = []
        self._waiting: list[tuple[SyncWorker, Exchange | None]] = []
        self._given = 0
        self._done_by_gone = 0
        self._forsaken: dict[Exchange, float] = {}

    def serve(self, context: ServerContext) -> None:
        """Start the threads, and have them answer the requests of *context*."""
        context.make_cycle = _exchanges_of(self)
        context.config = config = bounded(context.config)
        self.storage = storage_of(config)
        for _ in range(self._size):
            self._start_worker()

    def close(self) -> None:
        """Let the threads end that are not stuck."""
        for worker in self._everyone():
            worker.start_draining()

    def put(self, exchange: Exchange) -> None:
        """Have the first free thread run *exchange*."""
        # What one turn of the loop has read is handed out together: a thread that is woken
        # earlier would only compete with the loop for the global lock.
        if not self._arrived:
            self._loop.call_soon(self._hand_out)
        self._arrived.append(exchange)

    @property
    def idle(self) -> bool:
        """Whether no thread is on a request that it is waited for, and none waits for a thread."""
        done = self._done_by_gone + sum(map(self._done_or_forsaken, self._everyone()))
        return done == self._given and not self._arrived

    def forsake(self, exchange: Exchange) -> None:
        """*exchange* has lost its response: wait for its thread, but not for long."""
        self._forsaken.setdefault(exchange, self._loop.time() + NOTICE)

    def _done_or_forsaken(self, worker: SyncWorker) -> int:
        """How many requests *worker* has done, with one that is not waited for any more."""
        done, current = worker.done, worker.current  # in this order, or one might count twice
        if current is None or not self._forsaken:
            return done
        waited = self._loop.time() - self._forsaken.get(current, inf)
        return done + (waited >= _INTERRUPTION and current.deaf)

    def _abandon(self, current: list[Exchange | None], now: float) -> None:
        """End what does not end by itself, as far as a thread can be interrupted."""
        self._forsaken = {each: end for each, end in self._forsaken.items() if each in current}
        for exchange, end in list(self._forsaken.items()):
            if now >= end:
                exchange.abandon()

    @property
    def exhausted(self) -> bool:
        """Whether as many threads are stuck as there should be: this cannot go on for ever."""
        return len(self._stuck) >= self._size

    def tick(self, now: float) -> None:
        """Replace threads that are stuck; *now* is the loop's time."""
        current = [worker.current for worker in self._everyone()]
        for each in current:
            if each is not None:
                each.seen(now)
        if self._forsaken:
            self._abandon(current, now)
        for worker in list(self._workers):
            if worker.stuck_for(now) > self._patience:
                self._give_up(worker, now)
        for gone in [each for each in (*self._aside, *self._stuck) if not each.alive]:
            (self._aside if gone in self._aside else self._stuck).remove(gone)
            self._done_by_gone += gone.done

    def in_flight(self) -> str:
        """What threads are on that no connection tells of, one a line, for a person."""
        # The others are told by their connections.
        now = time.monotonic()  # the loop's own time may have stopped
        current = [worker.current for worker in self._everyone()]
        return "".join(f"{each.describe(now)}\n" for each in current if each and each.orphaned)

    def step_aside(self, worker: SyncWorker) -> None:
        """*worker* may wait for a client from now on; called in its thread."""
        self.outbox.post(Call(partial(self._expect_wait, worker, worker.current)))

    def _expect_wait(self, worker: SyncWorker, exchange: Exchange | None) -> None:
        # Most have done their response by then, and no thread is started for them.
        if not self._waiting:
            self._loop.call_later(_PATIENCE, self._look_at_waiting)
        self._waiting.append((worker, exchange))

    def _look_at_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for worker, exchange in waiting:
            if exchange is not None and worker.current is exchange:
                self._let_wait(worker)

    def _let_wait(self, worker: SyncWorker) -> bool:
        room = worker in self._workers and len(self._aside) < _MOST_ASIDE
        return room and self._replace(worker, self._aside)

    def _give_up(self, worker: SyncWorker, now: float) -> None:
        exchange = worker.current
        # A response that is being made may well wait for what it is to tell.
        if exchange is None or (exchange.steps and self._let_wait(worker)):
            return
        what, stack = exchange.describe(now), worker.stack()
        if self._replace(worker, self._stuck):
            logger.error("a thread is stuck, and another takes its place: %s\n%s", what, stack)

    def _replace(self, worker: SyncWorker, others: list[SyncWorker]) -> bool:
        """Start another thread in the place of *worker*, which is from now on one of *others*."""
        try:
            self._start_worker()
        # TasksMax= and RLIMIT_NPROC, or LimitNOFILE=
        except (RuntimeError, OSError) as error:
            logger.warning("no thread can take the place of one that waits: %s", error)
            return False
        worker.start_draining()
        self._workers.remove(worker)
        others.append(worker)
        return True

    def _start_worker(self) -> None:
        name = f"{self._name}-{self._started + 1}"
        self._workers.append(SyncWorker(self._queue, self._handler, name, self))
        self._started += 1

    def _hand_out(self) -> None:
        arrived, self._arrived = self._arrived, []
        self._given += len(arrived)
        self._queue.put(arrived)
        self._wake()

    def _wake(self) -> None:
        """Wake threads one after the other, as long as requests wait.

        Under a global lock the loop goes on here when the thread that it has woken waits for
        something, or has done all there was: code that never waits is run by one thread,
        without a switch for each request, and what it has done is taken at once.
        """
        self.outbox.expect()
        if self._queue.wake():
            self._loop.call_soon(self._wake)
        self.outbox.deliver()

    def _everyone(self) -> list[SyncWorker]:
        return [*self._workers, *self._aside, *self._stuck]


def _exchanges_of(found: AcceptDistributor) -> type[Exchange]:
    """The exchanges that find a thread among those *found*.

    A class, and no attribute of each: every request would pay for that.
    """

    class Found(Exchange):
        __slots__ = ()
        threads = found

    return Found
