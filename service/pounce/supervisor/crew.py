"""Starting, watching and ending workers."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

from pounce.events import log
from pounce.events.lifecycle import (
    LIFESPAN,
    MOST_WORKERS,
    Kind,
    LifecycleEvent,
    Slot,
    WorkerHung,
    WorkerReady,
    WorkerStarted,
    WorkerStopped,
)
from pounce.events.loggers import get_logger
from pounce.ipc.channel import (
    Channel,
    ChannelClosed,
    Done,
    Drain,
    Failed,
    Leaving,
    Message,
    Ready,
    Stop,
)
from pounce.ipc.flight import FlightRecord
from pounce.ipc.handover import Handover
from pounce.ipc.scoreboard import Scoreboard
from pounce.loop import Loop
from pounce.supervisor.h3 import H3
from pounce.supervisor.handle import Generation, H3WorkerHandle, WorkerHandle
from pounce.supervisor.lookout import Lookout
from pounce.supervisor.starter import Started, Starter, WorkerMode
from pounce.supervisor.states import WORKER_TABLE, WorkerAction, WorkerInput, WorkerState
from pounce.supervisor.targets import join_all, target_id
from pounce.workers import Application, Assignment

logger = get_logger("pounce.supervisor")

# What a worker that has to end at once gives its handlers to clean up.
SHORT_GRACE = 1.0
# Between the end of the handlers and the kill: for the lifespan's shutdown, the last log record.
_KILL_GRACE = 1.0
# For a worker that has done its work: it waits for threads of the application, but not for long,
# and runs atexit callbacks.
_END_GRACE = 10.0
# Between asking a stuck worker for its stacks and killing it.
_STACKS_GRACE = 0.3
# Until a message is sent again for which a channel had no room.
_RESEND = 0.1
# For the workers of two generations, and for rows that abandoned threads keep.
_ROWS = 4 * MOST_WORKERS


class Owner(Protocol):
    """Who decides what follows when a worker changes."""

    def worker_ready(self, worker: WorkerHandle) -> None:
        """It reports ready."""

    def worker_leaves(self, worker: WorkerHandle) -> None:
        """It drains because somebody else has told it to."""

    def worker_lost(self, worker: WorkerHandle) -> None:
        """It ended unasked, and is already forgotten here."""

    def spawn_failed(self, generation: Generation, slot: Slot, reason: str) -> None:
        """It could not even be started."""

    def worker_gone(self, worker: WorkerHandle) -> None:
        """It ended, one way or another, and is already forgotten here."""


class Crew:
    """All running workers, of every generation.

    Set `owner` before anything is started, and `h3` where HTTP/3 is served.
    """

    owner: Owner
    h3: H3 | None = None

    def __init__(
        self,
        application: Application,
        mode: WorkerMode,
        loop: Loop,
        emit: Callable[[LifecycleEvent], None],
        lifespan_state: dict[str, Any] | None,
    ) -> None:
        # What a forked child must not share, besides what the crew itself knows.
        self.undo_in_child: list[Callable[[], None]] = []
        self._starter = Starter(
            application, mode, lifespan_state, self._undo_what_is_not_the_childs
        )
        self._loop = loop
        self._emit = emit
        self._abandoned: list[WorkerHandle] = []
        self.scoreboard = Scoreboard(_ROWS)
        self.handover = Handover()
        self._channels: set[Channel] = set()
        self.lookout = Lookout()
        self._actions: dict[WorkerAction, Callable[[WorkerHandle], None]] = {
            WorkerAction.NOTHING: lambda _: None,
            WorkerAction.WELCOME: self._welcome,
            WorkerAction.NOTE_FAILURE: lambda _: None,  # noted when the report was read
            WorkerAction.AWAIT_END: lambda worker: self.set_deadline(worker, _KILL_GRACE),
            WorkerAction.AWAIT_THREADS: lambda worker: self.set_deadline(worker, _END_GRACE),
            WorkerAction.DRAIN: self.drain,
            WorkerAction.EXPIRE: lambda worker: self._stop(worker, worker.generation.grace),
            WorkerAction.TERMINATE: lambda worker: self._stop(worker, SHORT_GRACE),
            WorkerAction.CONDEMN: self._condemn,
            WorkerAction.KILL: self._force_stop,
            WorkerAction.REPLACE: self._lose,
            WorkerAction.RETIRE: self._retire,
        }

    def feed(self, worker: WorkerHandle, what: WorkerInput) -> None:
        """Let *what* happen to *worker*."""
        worker.state, action = WORKER_TABLE[worker.state, what]
        self._actions[action](worker)

    def send(self, worker: WorkerHandle, message: Message) -> None:
        """Send a command; a worker that cannot read it has ended, as its sentinel will tell."""
        try:
            worker.channel.send(message)
        except ChannelClosed:
            return
        if worker.channel.waiting == 1:
            self._loop.call_later(_RESEND, partial(self._resend, worker))

    def drain(self, worker: WorkerHandle) -> None:
        """Tell *worker* to drain, in what is left of its time, or else of its generation's."""
        generation = worker.generation
        self.send(worker, Drain(generation.hands_over, generation.stopping))
        if worker.state is WorkerState.DRAINING:
            self.set_deadline(worker, max(0.0, generation.drained_by - self._loop.now))

    def set_deadline(self, worker: WorkerHandle, seconds: float) -> None:
        """Feed OVERDUE in *seconds*, instead of whatever deadline there was."""
        worker.cancel_deadline()
        worker.deadline = self._loop.call_later(
            seconds, partial(self.feed, worker, WorkerInput.OVERDUE)
        )

    def spawn_host(self, generation: Generation) -> None:
        """Start the thread that loads the application for a generation of threads."""

        def start(assignment: Assignment) -> Started:
            generation.host, target = self._starter.start_host(assignment)
            return Started(target)

        generation.host_handle = self._spawn(generation, LIFESPAN, start)

    def spawn_worker(self, generation: Generation, slot: Slot) -> bool:
        """Start a worker in *slot*; false if it could not even be started."""
        worker = self._spawn_in(generation, slot)
        if worker is not None:
            generation.workers[slot] = worker
        return worker is not None

    def spawn_replacement(self, generation: Generation, slot: Slot) -> None:
        """Start a worker that may take over *slot* from the one that holds it."""
        worker = self._spawn_in(generation, slot)
        if worker is not None:
            generation.replacements[slot] = worker

    def look_for_silent(self, workers: Iterable[WorkerHandle], timeout: float) -> None:
        """Feed SILENT to each of *workers* whose loop has not turned for *timeout* seconds."""
        for worker in self.lookout.silent(workers, timeout):
            self.feed(worker, WorkerInput.SILENT)

    def stuck_threads(self) -> int:
        """How many workers that were abandoned still run.

        An import that hangs is not counted: the service does without that generation, and might
        after a new start have to do without any.
        """
        for worker in [each for each in self._abandoned if not each.target.is_alive()]:
            self._abandoned.remove(worker)
            self._give_back(worker)
        return sum(not worker.is_host for worker in self._abandoned)

    def close(self, left: Sequence[WorkerHandle]) -> None:
        """Give back what workers shared, and a last chance to threads that were abandoned.

        Workers are *left* where the supervisor itself has failed: nobody watches them any more.
        """
        for worker in left:
            worker.channel.close()  # this ends a thread
            worker.target.kill()
        targets = [each.target for each in (*left, *self._abandoned)]
        hanging = join_all(targets, _KILL_GRACE)
        if hanging:
            logger.warning(
                "threads that still hang: %s; only the process's end ends them",
                ", ".join(map(target_id, hanging)),
            )
        for target in targets:
            if target not in hanging:
                target.close()
        self.handover.close()
        self.scoreboard.close()

    def _resend(self, worker: WorkerHandle) -> None:
        try:
            worker.channel.flush()
        except ChannelClosed:
            return
        if worker.channel.waiting:
            self._loop.call_later(_RESEND, partial(self._resend, worker))

    # Starting

    def _spawn_in(self, generation: Generation, slot: Slot) -> WorkerHandle | None:
        spawn = self._spawn_h3_worker if slot.kind is Kind.HTTP3 else self._spawn_worker
        return spawn(generation, slot)

    def _spawn_worker(self, generation: Generation, slot: Slot) -> WorkerHandle | None:
        return self._spawn(generation, slot, self._starter.for_workers(generation.host))

    def _spawn_h3_worker(self, generation: Generation, slot: Slot) -> WorkerHandle | None:
        return self._spawn(generation, slot, self._starter.for_workers(generation.host), self.h3)

    def _spawn(
        self,
        generation: Generation,
        slot: Slot,
        start: Callable[[Assignment], Started],
        h3: H3 | None = None,
    ) -> WorkerHandle | None:
        try:
            worker = self._begin(generation, slot, start, h3)
        # EMFILE; fork(2): EAGAIN at TasksMax=, ENOMEM; of a thread, Python says so by
        # RuntimeError; and there is no free row or mailbox (IndexError).
        except (OSError, RuntimeError, IndexError) as error:
            self.owner.spawn_failed(generation, slot, f"it could not be started: {error}")
            return None
        self.set_deadline(worker, generation.config.startup_timeout)
        self._loop.watch(worker.target.sentinel, partial(self._ended, worker))
        self._loop.watch(worker.channel.fileno(), partial(self._read, worker))
        self._emit(WorkerStarted(*worker.identity))
        return worker

    def _begin(
        self,
        generation: Generation,
        slot: Slot,
        start: Callable[[Assignment], Started],
        h3: H3 | None,
    ) -> WorkerHandle:
        with ExitStack() as undo:
            ours, theirs = Channel.pair()
            undo.callback(theirs.close)
            undo.callback(ours.close)
            row = self.scoreboard.acquire()
            undo.callback(self.scoreboard.release, row)
            mail = h3.open_mailbox() if h3 else None
            if h3 and mail:
                undo.callback(h3.close_mailbox, mail.number)
            self._channels.add(ours)
            undo.callback(self._channels.discard, ours)
            started = start(
                Assignment(
                    generation.plan,
                    generation.number,
                    slot,
                    generation.listeners_of(slot),
                    row,
                    self.scoreboard,
                    theirs,
                    self.handover,
                    FlightRecord(),
                    mail,
                )
            )
            undo.pop_all()
        parts = (generation, slot, *started, ours, row, self._loop.now)
        return H3WorkerHandle(*parts, mailbox=mail.number) if mail else WorkerHandle(*parts)

    def _undo_what_is_not_the_childs(self) -> None:
        # Were a sibling's channel left open here, the sibling would not see it end when the
        # supervisor dies.
        for channel in self._channels:
            channel.close()
        self._loop.close()
        for undo in self.undo_in_child:
            undo()

    # Hearing from workers

    def _read(self, worker: WorkerHandle) -> None:
        try:
            for message in worker.channel.receive():
                if isinstance(message, Ready):
                    self.feed(worker, WorkerInput.READY)
                elif isinstance(message, Failed):
                    worker.failure = message
                    self.feed(worker, WorkerInput.FAILED)
                elif isinstance(message, Done):
                    self.feed(worker, WorkerInput.DONE)
                elif isinstance(message, Leaving):
                    self.owner.worker_leaves(worker)
        except ChannelClosed:
            self._unwatch_channel(worker)

    def _ended(self, worker: WorkerHandle) -> None:
        # The last report may still be unread.
        self._read(worker)
        self.feed(worker, WorkerInput.EXITED)

    def _unwatch_channel(self, worker: WorkerHandle) -> None:
        if worker.channel in self._channels:
            self._channels.discard(worker.channel)
            self._loop.unwatch(worker.channel.fileno())

    # The actions of WORKER_TABLE

    def _welcome(self, worker: WorkerHandle) -> None:
        worker.cancel_deadline()
        worker.ready_at = self._loop.now
        self._emit(WorkerReady(*worker.identity))
        self.owner.worker_ready(worker)

    def _stop(self, worker: WorkerHandle, grace: float) -> None:
        if worker.ready_at is None:  # it may be in an import, where it hears nothing else
            worker.target.terminate()
        else:
            self.send(worker, Stop(grace))
        self.set_deadline(worker, grace + _KILL_GRACE)

    def _condemn(self, worker: WorkerHandle) -> None:
        now = self._loop.now
        worker.condemned = (
            self.lookout.silence(worker, now) or worker.generation.config.startup_timeout
        )
        worker.target.request_stacks()
        self.set_deadline(worker, _STACKS_GRACE)

    def _force_stop(self, worker: WorkerHandle) -> None:
        worker.forced = True
        if worker.condemned is not None:
            self._emit(WorkerHung(*worker.identity, worker.condemned, worker.target.stacks()))
            worker.condemned = None
        if not worker.target.kill():
            self._abandon(worker)

    def _abandon(self, worker: WorkerHandle) -> None:
        """Go on without a thread that cannot be ended; what it has stays its own until it does."""
        self._abandoned.append(worker)
        # It accepts no more, and siblings are not to wait for it to.
        worker.row.serve(0)
        if self.h3 and isinstance(worker, H3WorkerHandle):
            self.h3.abandon_mailbox(worker.mailbox)
        self.feed(worker, WorkerInput.EXITED)

    def _lose(self, worker: WorkerHandle) -> None:
        self._forget(worker)
        self.owner.worker_lost(worker)
        self.owner.worker_gone(worker)
        self._close(worker)

    def _retire(self, worker: WorkerHandle) -> None:
        self._forget(worker)
        self._emit(WorkerStopped(*worker.identity, worker.target.outcome(), worker.forced))
        self.owner.worker_gone(worker)
        self._close(worker)

    def _forget(self, worker: WorkerHandle) -> None:
        self.scoreboard.retire(worker.row)
        log.tell_losses(worker.slot, worker.target.id, worker.row.lost)
        worker.cancel_deadline()
        self._loop.unwatch(worker.target.sentinel)
        self._unwatch_channel(worker)
        worker.generation.forget(worker)

    def _close(self, worker: WorkerHandle) -> None:
        worker.channel.close()
        if worker not in self._abandoned:
            self._give_back(worker)

    def _give_back(self, worker: WorkerHandle) -> None:
        worker.target.close()
        worker.worker = None  # whoever still has the handle keeps no old code alive
        self.scoreboard.release(worker.row)
        if self.h3 and isinstance(worker, H3WorkerHandle):
            self.h3.close_mailbox(worker.mailbox)
