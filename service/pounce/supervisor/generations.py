"""The generations of a service: steps GENERATION_TABLE."""

import gc
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol

from pounce.config.descriptors import Fit
from pounce.config.plan import Plan
from pounce.config.service import ServerConfig
from pounce.errors import EX_SOFTWARE, ApplicationError, PounceError
from pounce.events.lifecycle import (
    BudgetSpent,
    GenerationReady,
    GenerationRetired,
    LifecycleEvent,
    Slot,
    WorkerCrashed,
    WorkerFailed,
)
from pounce.events.loggers import get_logger
from pounce.ipc.channel import Ended, Failed, Serve
from pounce.loop import Loop
from pounce.supervisor.budget import RestartBudget
from pounce.supervisor.commands import Commands
from pounce.supervisor.crew import SHORT_GRACE, Crew
from pounce.supervisor.handle import Generation, WorkerHandle
from pounce.supervisor.renewal import Renewal
from pounce.supervisor.starter import WorkerMode
from pounce.supervisor.states import (
    GENERATION_TABLE,
    GenerationAction,
    GenerationInput,
    GenerationState,
    ServiceInput,
    WorkerInput,
    WorkerState,
)

logger = get_logger("pounce.supervisor")

# Workers that were told to end, and still serve the clients they have.
_ENDING = (WorkerState.DRAINING, WorkerState.EXPIRED, WorkerState.STOPPING)

GenerationOutcome = Literal[
    ServiceInput.GENERATION_READY,
    ServiceInput.GENERATION_FAILED,
    ServiceInput.EXHAUSTED,
    ServiceInput.EMPTY,
]


class Teller(Protocol):
    """Hears what became of a generation; *cause* is the reason of a failure."""

    def __call__(self, outcome: GenerationOutcome, cause: PounceError | None = None) -> None:
        """Take note; returns at once."""


class Generations:
    """All generations that still have workers, the oldest first. It is the crew's owner."""

    def __init__(
        self,
        crew: Crew,
        mode: WorkerMode,
        loop: Loop,
        emit: Callable[[LifecycleEvent], None],
        tell: Teller,
        budget: RestartBudget,
    ) -> None:
        self.all: list[Generation] = []
        self.current: Generation | None = None
        self.last_number = 0
        self.renewal = Renewal(crew, mode)
        self._crew = crew
        self._mode = mode
        self._fit = Fit(in_threads=mode == "thread")
        self._loop = loop
        self._emit = emit
        self._tell = tell
        self._budget = budget
        self._budget_told = False
        self._untold: list[Ended] = []
        # As it was at the start: threads of an application change this process's own.
        self._environment = dict(os.environ)
        self._actions: dict[GenerationAction, Callable[[Generation], None]] = {
            GenerationAction.NOTHING: lambda _: None,
            GenerationAction.LOAD: self._load,
            GenerationAction.SWITCH: self._switch,
            GenerationAction.FAIL: self._fail,
            GenerationAction.DRAIN: self._drain,
            GenerationAction.RETIRE: self._retire,
        }

    @property
    def newest(self) -> Generation:
        """The current generation; before there is one, the first."""
        return self.current or self.all[-1]

    @property
    def everyone(self) -> list[WorkerHandle]:
        """All that runs, in every generation."""
        return [worker for each in self.all for worker in each.handles]

    @property
    def draining(self) -> list[Generation]:
        """Those that drain, the oldest first."""
        return [each for each in self.all if each.state is GenerationState.DRAINING]

    def begin(self, plan: Plan) -> None:
        """Start the next generation."""
        plan = replace(plan, config=self._fit.apply(plan.config))
        self.last_number += 1
        generation = Generation(self.last_number, plan, plan.config.worker_count)
        self.all.append(generation)
        self._prepare(generation)

    def supersede(self, config: ServerConfig, patience: float) -> None:
        """Drain the generation before the current one, for at most *patience* seconds.

        Where more generations drain than `max_draining` allows, the oldest ones are stopped.
        """
        for generation in list(self.all):
            # Those that drain already keep the time they were given.
            if generation.state is GenerationState.SERVING and generation is not self.current:
                generation.has_successor = True
                generation.drained_by = self._loop.now + patience
                generation.grace = config.shutdown_timeout
                self._feed(generation, GenerationInput.DRAIN)
        self._stop_draining(self.draining[: -config.max_draining])

    def drain(self, generations: list[Generation], patience: float) -> None:
        """Drain *generations*, those that do already as well, for *patience* seconds from now.

        Nobody serves meanwhile.
        """
        for generation in generations:
            generation.drained_by = self._loop.now + patience
            generation.grace = SHORT_GRACE
            generation.stopping = True
            ending = [each for each in generation.handles if each.state in _ENDING]
            self._feed(generation, GenerationInput.DRAIN)
            for worker in ending:
                # Who takes over its connections, if anybody does, may have changed, and from now on
                # nobody else reads the UDP sockets for it.
                self._crew.drain(worker)

    def cut_off(self, generation: Generation) -> int:
        """Stop every worker of *generation* now; returns how many those are."""
        if generation.commands is not None:
            generation.commands.kill()
        workers = generation.handles
        for worker in workers:
            self._crew.feed(worker, WorkerInput.STOP)
        return len(workers)

    def stop_draining(self) -> int:
        """Stop every worker that drains, also of the current one; returns how many those are."""
        return self._stop_draining(self.all)

    # What the crew tells (crew.Owner)

    def worker_ready(self, worker: WorkerHandle) -> None:
        """Count it in; the last one completes its generation."""
        generation = worker.generation
        if worker.is_host:
            self._spawn_workers(generation)
            return
        if generation.replacements.get(worker.slot) is worker:
            self.renewal.ready(worker)
        self._budget.succeeded(worker.slot)
        if generation.state is GenerationState.SERVING:
            self._crew.send(worker, Serve())
        if len(generation.ready) == len(generation.slots):
            self._feed(generation, GenerationInput.COMPLETE)
        self._tell_application()

    def worker_leaves(self, worker: WorkerHandle) -> None:
        """Let it drain, as if it had been replaced, and fill its slot."""
        generation, slot = worker.generation, worker.slot
        if generation.state is GenerationState.SERVING and worker in generation.ready:
            logger.info(
                "worker %s was told by a signal or a call to drain; another takes its place",
                slot,
            )
            del generation.workers[slot]
            self.renewal.let_go(worker)
            if slot not in generation.replacements:
                self._respawn_worker(generation, slot, 0.0)

    def worker_lost(self, worker: WorkerHandle) -> None:
        """It ended unasked: what follows is its generation's matter."""
        generation = worker.generation
        failure = worker.failure or Failed(worker.why(), EX_SOFTWARE)
        if worker.slot in generation.workers or worker.slot in generation.respawns:
            # A replacement that failed, and whose slot is still held, or will be filled again.
            self._emit(WorkerFailed(*worker.identity, failure.reason))
        elif worker.is_host and generation.state is GenerationState.SERVING:
            # What it loaded is still there; often only the lifespan's shutdown will be missed.
            self._emit(WorkerCrashed(*worker.identity, failure.reason, respawn_in=None))
            if generation.host is not None and generation.host.runs_application:
                reason = "the application's event loop has ended or hangs; start the service anew"
                self._tell(ServiceInput.EXHAUSTED, PounceError(reason))
        else:
            was_ready = worker.ready_at is not None
            self._lose(generation, worker.identity, failure, was_ready=was_ready)

    def spawn_failed(self, generation: Generation, slot: Slot, reason: str) -> None:
        """As if it had started and ended at once."""
        identity = (generation.number, slot, 0)
        if slot in generation.workers or slot in generation.respawns:
            self._emit(WorkerFailed(*identity, reason))
        else:
            self._lose(generation, identity, Failed(reason, EX_SOFTWARE), was_ready=False)
            self._check_empty(generation)

    def worker_gone(self, worker: WorkerHandle) -> None:
        """Have another tell the application, and see whether it was the last one."""
        if self._mode == "process" and worker.generation.config.worker_ended:
            name = str(worker.slot)
            self._untold.append(Ended(worker.target.id, name, worker.generation.number))
            self._tell_application()
        self._check_empty(worker.generation)

    def _tell_application(self) -> None:
        """Tell a worker that serves of those that have ended, as soon as there is one."""
        ready = self.current.ready if self.current else []
        if ready:
            untold, self._untold = self._untold, []
            for ended in untold:
                self._crew.send(ready[0], ended)

    # Steps and actions

    def _feed(self, generation: Generation, what: GenerationInput) -> None:
        generation.state, action = GENERATION_TABLE[generation.state, what]
        self._actions[action](generation)

    def _prepare(self, generation: Generation) -> None:
        """Run its commands, if it has any; its workers follow."""
        if not generation.config.deploy.before:
            self._feed(generation, GenerationInput.PREPARED)
            return
        number, tell = generation.number, partial(self._prepared, generation)
        commands = Commands(
            generation.config, number, self._environment, self._loop, self._emit, tell
        )
        generation.commands = commands
        self._crew.undo_in_child.append(commands.close_in_child)
        commands.begin()

    def _prepared(self, generation: Generation, reason: str) -> None:
        assert generation.commands is not None  # noqa: S101 - they tell this
        self._crew.undo_in_child.remove(generation.commands.close_in_child)
        generation.commands = None
        if reason:
            generation.failure = Failed(reason, EX_SOFTWARE)
            self._feed(generation, GenerationInput.UNPREPARED)
            self._check_empty(generation)
        else:
            self._feed(generation, GenerationInput.PREPARED)

    def _load(self, generation: Generation) -> None:
        if self._mode == "thread":
            self._crew.spawn_host(generation)
        else:
            self._spawn_workers(generation)

    def _spawn_workers(self, generation: Generation) -> None:
        for slot in generation.slots:
            if generation.state is GenerationState.STARTING:
                self._crew.spawn_worker(generation, slot)

    def _lose(
        self,
        generation: Generation,
        identity: tuple[int, Slot, int],
        failure: Failed,
        *,
        was_ready: bool,
    ) -> None:
        generation.failure = generation.failure or failure
        generation.state, action = GENERATION_TABLE[generation.state, GenerationInput.WORKER_LOST]
        if action is GenerationAction.RESPAWN:
            slot = identity[1]
            delay = self._budget.delay(slot, was_ready=was_ready)
            self._emit(
                WorkerCrashed(*identity, failure.reason, delay)
                if was_ready
                else WorkerFailed(*identity, failure.reason)
            )
            self._respawn_worker(generation, slot, delay)
        else:
            self._emit(WorkerFailed(*identity, failure.reason))
            self._actions[action](generation)

    def _respawn_worker(self, generation: Generation, slot: Slot, delay: float) -> None:
        generation.respawns[slot] = self._loop.call_later(
            delay, partial(self._refill, generation, slot)
        )

    def _refill(self, generation: Generation, slot: Slot) -> None:
        del generation.respawns[slot]
        now = self._loop.now
        if self._budget.spend(now):
            self._budget_told = False
            if not self._crew.spawn_worker(generation, slot):
                # The system is short of something, for however long: this is no crash.
                self._budget.give_back()
            return
        self._respawn_worker(generation, slot, self._budget.wait(now))
        if not self._budget_told:
            self._budget_told = True
            self._emit(BudgetSpent(self._budget.restarts, self._budget.window))
        if not generation.workers:
            reason = "no worker is left and the restart budget (max_restarts) is spent"
            self._tell(ServiceInput.EXHAUSTED, PounceError(reason))

    def _switch(self, generation: Generation) -> None:
        self.current = generation
        if generation.host is not None:
            generation.host.stay()
        for worker in generation.ready:
            self._crew.send(worker, Serve())
        self._emit(GenerationReady(generation.number, len(generation.slots)))
        self._tell(ServiceInput.GENERATION_READY)

    def _fail(self, generation: Generation) -> None:
        self.cut_off(generation)
        if generation.host is not None:
            generation.host.withdraw()
        self._tell(ServiceInput.GENERATION_FAILED, _application_error(generation.failure))

    def _drain(self, generation: Generation) -> None:
        generation.cancel_respawns()
        if generation.commands is not None:
            generation.commands.stop()
        for worker in generation.all_workers:
            self._crew.feed(worker, WorkerInput.DRAIN)
        self._check_empty(generation)

    def _stop_draining(self, generations: list[Generation]) -> int:
        # Those that are being stopped have time to end; told again, they would be killed. The
        # lifespan's host ends after its workers, as ever.
        workers = [worker for each in generations for worker in each.all_workers]
        waited_for = (WorkerState.DRAINING, WorkerState.EXPIRED)
        draining = [worker for worker in workers if worker.state in waited_for]
        for worker in draining:
            self._crew.feed(worker, WorkerInput.STOP)
        return len(draining)

    def _check_empty(self, generation: Generation) -> None:
        if generation.all_workers or generation.commands is not None:
            return
        if generation.host_handle is None:
            self._feed(generation, GenerationInput.EMPTY)
        elif generation.state in (GenerationState.DRAINING, GenerationState.FAILED):
            # The lifespan ends after the last request that may use what it made.
            self._crew.feed(generation.host_handle, WorkerInput.DRAIN)

    def _retire(self, generation: Generation) -> None:
        self.all.remove(generation)
        self._emit(GenerationRetired(generation.number))
        if not self.all:
            self._tell(ServiceInput.EMPTY)
        elif self._mode == "thread":
            # Modules and workers refer to themselves in circles: old code would stay in memory
            # until the collector comes by chance. Posted, because callers still refer to some.
            generation.host = None
            self._loop.post(gc.collect)


def _application_error(failure: Failed | None) -> ApplicationError:
    if failure is None:
        return ApplicationError("a worker ended while it started")
    error = ApplicationError(failure.reason)
    error.exit_code = failure.exit_code
    return error
