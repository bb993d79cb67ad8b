"""The service: its generations, and what becomes of it."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from ssl import SSLContext
from typing import Any

from pounce.channel import Failed, Serve
from pounce.config import ServerConfig
from pounce.errors import EX_SOFTWARE, ApplicationError, PounceError
from pounce.lifecycle import (
    BudgetSpent,
    GenerationReady,
    GenerationRetired,
    LifecycleEvent,
    Phase,
    ReloadCompleted,
    ReloadFailed,
    ReloadStarted,
    Stopped,
    Stopping,
    WorkerCrashed,
    WorkerFailed,
)
from pounce.supervisor import report
from pounce.supervisor.budget import RestartBudget
from pounce.supervisor.crew import Crew, WorkerMode
from pounce.supervisor.handle import _Generation, _WorkerHandle
from pounce.supervisor.loop import Loop
from pounce.supervisor.sockets import Groups
from pounce.supervisor.states import (
    GENERATION_TABLE,
    SERVICE_TABLE,
    GenerationAction,
    GenerationInput,
    GenerationState,
    ServiceAction,
    ServiceInput,
    ServiceState,
    WorkerInput,
    WorkerState,
)
from pounce.workers import Application

# Four looks within the shortest watchdog interval that makes sense (2 s).
_HEALTH_INTERVAL = 0.5

_PHASES = {
    ServiceState.STARTING: Phase.STARTING,
    ServiceState.SERVING: Phase.SERVING,
    ServiceState.RELOADING: Phase.SERVING,
    ServiceState.RESTARTING: Phase.STARTING,
}

Outcome = Future[None]


class Service:
    """Steps GENERATION_TABLE and SERVICE_TABLE on the supervisor's loop.

    *lifespan_state* is that of a lifespan that runs elsewhere; with None each process, or each
    generation of threads, runs the application's own.
    """

    def __init__(
        self,
        config: ServerConfig,
        reload_config: Callable[[], ServerConfig],
        application: Application,
        mode: WorkerMode,
        loop: Loop,
        emit: Callable[[LifecycleEvent], None],
        *,
        ssl_context: SSLContext | None,
        lifespan_state: dict[str, Any] | None,
    ) -> None:
        self.config = config
        self.error: PounceError | None = None
        self.crew = Crew(application, mode, loop, self, emit, ssl_context, lifespan_state)
        self._reload_config = reload_config
        self._mode = mode
        self._loop = loop
        self._emit = emit
        self._budget = RestartBudget(config.max_restarts, config.restart_window)
        self._state = ServiceState.STARTING
        self._phase_began = loop.now
        self._generations: list[_Generation] = []
        self._current: _Generation | None = None
        self._last_number = 0
        self._waiting: list[Outcome] = []
        self._queued: list[Outcome] = []
        self._cause = PounceError("it ended without a reason")
        self._reload_queued = False
        self._budget_told = False
        self._generation_actions: dict[GenerationAction, Callable[[_Generation], None]] = {
            GenerationAction.NOTHING: lambda _: None,
            GenerationAction.SWITCH: self._switch,
            GenerationAction.FAIL: self._fail_generation,
            GenerationAction.DRAIN: self._drain_generation,
            GenerationAction.RETIRE: self._retire_generation,
        }
        self._service_actions: dict[ServiceAction, Callable[[], None]] = {
            ServiceAction.NOTHING: lambda: None,
            ServiceAction.OPEN: self._open,
            ServiceAction.FAIL: self._fail,
            ServiceAction.BEGIN_RELOAD: self._begin_reload,
            ServiceAction.QUEUE_RELOAD: self._queue_reload,
            ServiceAction.END_RELOAD: self._end_reload,
            ServiceAction.GIVE_UP_RELOAD: self._give_up_reload,
            ServiceAction.BEGIN_RESTART: self._begin_restart,
            ServiceAction.BEGIN_AGAIN: self._begin_generation,
            ServiceAction.STOP: self._stop,
            ServiceAction.FORCE: self._force,
            ServiceAction.FINISH: lambda: self._emit(Stopped()),
        }

    @property
    def finished(self) -> bool:
        """Whether every worker is gone and none will come."""
        return self._state is ServiceState.STOPPED

    def begin(self, listeners: Groups) -> None:
        """Start the first generation on *listeners*."""
        self.crew.listeners = listeners
        self._begin_generation()
        self._watch()

    def request(self, what: ServiceInput, outcome: Outcome | None = None) -> None:
        """Let somebody outside (a signal, a caller) ask for *what*; *outcome* is answered."""
        if outcome is not None:
            later = self._state in (ServiceState.STARTING, ServiceState.RELOADING)
            (self._queued if later else self._waiting).append(outcome)
        self._feed(what)
        if self._state in (ServiceState.STOPPING, ServiceState.FORCED, ServiceState.STOPPED):
            self._answer_all(PounceError("the service is stopping"))

    def status(self) -> dict[str, Any]:
        """Every generation and worker."""
        return report.status(self._generations, self._phase, self._loop.now)

    # What the crew tells (crew.Owner)

    def worker_ready(self, worker: _WorkerHandle) -> None:
        """Count it in; the last one completes its generation."""
        generation = worker.generation
        if worker.is_host:
            self._spawn_workers(generation)
            return
        self._budget.succeeded(worker.slot)
        if generation.state is GenerationState.SERVING:
            self.crew.send(worker, Serve())
        if len(generation.ready) == generation.size:
            self._feed_generation(generation, GenerationInput.COMPLETE)

    def worker_lost(self, worker: _WorkerHandle) -> None:
        """It ended unasked: what follows is its generation's matter."""
        failure = worker.failure or Failed(worker.why(), EX_SOFTWARE)
        was_ready = worker.ready_at is not None
        if worker.is_host and worker.generation.state is GenerationState.SERVING:
            # What it loaded is still there; only the lifespan's shutdown will be missed.
            self._emit(WorkerCrashed(*worker.identity, failure.reason, respawn_in=-1.0))
            return
        self._lose(worker.generation, worker.identity, failure, was_ready=was_ready)

    def spawn_failed(self, generation: _Generation, slot: int, reason: str) -> None:
        """As if it had started and ended at once."""
        identity = (generation.number, slot, 0)
        self._lose(generation, identity, Failed(reason, EX_SOFTWARE), was_ready=False)
        self._check_empty(generation)

    def worker_gone(self, worker: _WorkerHandle) -> None:
        """See whether it was the last one."""
        self._check_empty(worker.generation)

    # Generations

    def _feed_generation(self, generation: _Generation, what: GenerationInput) -> None:
        generation.state, action = GENERATION_TABLE[generation.state, what]
        self._generation_actions[action](generation)

    def _begin_generation(self) -> None:
        self._last_number += 1
        generation = _Generation(self._last_number, self.config.worker_count, self.config)
        self._generations.append(generation)
        if self._mode == "thread":
            self.crew.spawn_host(generation)
        else:
            self._spawn_workers(generation)

    def _spawn_workers(self, generation: _Generation) -> None:
        for slot in range(generation.size):
            if generation.state is GenerationState.STARTING:
                self.crew.spawn_worker(generation, slot)

    def _lose(
        self,
        generation: _Generation,
        identity: tuple[int, int, int],
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
            self._generation_actions[action](generation)

    def _respawn_worker(self, generation: _Generation, slot: int, delay: float) -> None:
        generation.respawns[slot] = self._loop.call_later(
            delay, partial(self._refill, generation, slot)
        )

    def _refill(self, generation: _Generation, slot: int) -> None:
        del generation.respawns[slot]
        now = self._loop.now
        if self._budget.spend(now):
            self._budget_told = False
            self.crew.spawn_worker(generation, slot)
            return
        self._respawn_worker(generation, slot, self._budget.wait(now))
        if not self._budget_told:
            self._budget_told = True
            self._emit(BudgetSpent(self._budget.restarts, self._budget.window))
        if not generation.workers:
            self._exhausted("no worker is left and the restart budget (max_restarts) is spent")

    def _switch(self, generation: _Generation) -> None:
        self._current = generation
        for worker in generation.ready:
            self.crew.send(worker, Serve())
        self._emit(GenerationReady(generation.number, generation.size))
        self._feed(ServiceInput.GENERATION_READY)

    def _fail_generation(self, generation: _Generation) -> None:
        if generation.failure is not None:
            self._cause = _application_error(generation.failure)
        for worker in generation.handles:
            self.crew.feed(worker, WorkerInput.STOP)
        self._feed(ServiceInput.GENERATION_FAILED)

    def _drain_generation(self, generation: _Generation) -> None:
        generation.cancel_respawns()
        for worker in list(generation.workers.values()):
            self.crew.feed(worker, WorkerInput.DRAIN)
        self._check_empty(generation)

    def _check_empty(self, generation: _Generation) -> None:
        if generation.workers:
            return
        over = generation.state in (GenerationState.DRAINING, GenerationState.FAILED)
        if generation.host_handle is None:
            self._feed_generation(generation, GenerationInput.EMPTY)
        elif over:
            # The lifespan ends after the last request that may use what it made.
            self.crew.feed(generation.host_handle, WorkerInput.DRAIN)

    def _retire_generation(self, generation: _Generation) -> None:
        self._generations.remove(generation)
        self._emit(GenerationRetired(generation.number))
        if not self._generations:
            self._feed(ServiceInput.EMPTY)

    # The service

    def _feed(self, what: ServiceInput) -> None:
        phase = self._phase
        self._state, action = SERVICE_TABLE[self._state, what]
        if self._phase is not phase:
            self._phase_began = self._loop.now
        self._service_actions[action]()

    @property
    def _phase(self) -> Phase:
        return _PHASES.get(self._state, Phase.STOPPING)

    def _open(self) -> None:
        self._answer(None)
        self._next_reload()

    def _begin_reload(self) -> None:
        self._emit(ReloadStarted(self._last_number + 1))
        try:
            self.config = self._reload_config()
        except PounceError as error:
            self._last_number += 1
            self._cause = error
            self._feed(ServiceInput.GENERATION_FAILED)
        else:
            self._begin_generation()

    def _queue_reload(self) -> None:
        self._reload_queued = True

    def _end_reload(self) -> None:
        old = [each for each in self._generations if each is not self._current]
        for generation in old:
            generation.has_successor = True
        self._drain_all(self.config.reload_timeout, old)
        self._emit(ReloadCompleted(self._last_number))
        self._answer(None)
        self._next_reload()

    def _give_up_reload(self) -> None:
        reason = str(self._cause)
        self._emit(ReloadFailed(self._last_number, reason))
        self._answer(PounceError(f"generation {self._last_number} did not start: {reason}"))
        self._next_reload()

    def _next_reload(self) -> None:
        if self._reload_queued:
            self._reload_queued = False
            self._waiting, self._queued = self._queued, []
            self._feed(ServiceInput.RELOAD)

    def _begin_restart(self) -> None:
        self._drain_all(self.config.shutdown_timeout, list(self._generations))

    def _exhausted(self, why: str) -> None:
        self._cause = PounceError(why)
        self._feed(ServiceInput.EXHAUSTED)

    def _fail(self) -> None:
        self.error = self._cause
        self._stop_because("the service cannot go on")

    def _stop(self) -> None:
        self._stop_because("as asked")

    def _stop_because(self, reason: str) -> None:
        self._emit(Stopping(reason, self.config.shutdown_timeout))
        self._drain_all(self.config.shutdown_timeout, list(self._generations))
        self._answer_all(PounceError("the service is stopping"))

    def _drain_all(self, patience: float, generations: list[_Generation]) -> None:
        for generation in generations:
            generation.patience = patience
            for worker in generation.handles:
                if worker.state is WorkerState.DRAINING:
                    self.crew.set_deadline(worker, patience)
            self._feed_generation(generation, GenerationInput.DRAIN)

    def _force(self) -> None:
        for generation in list(self._generations):
            for worker in generation.handles:
                self.crew.feed(worker, WorkerInput.STOP)

    def _answer_all(self, error: PounceError) -> None:
        self._waiting += self._queued
        self._queued = []
        self._answer(error)

    def _answer(self, error: PounceError | None) -> None:
        waiting, self._waiting = self._waiting, []
        for outcome in waiting:
            if error is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(error)

    # Health

    def _watch(self) -> None:
        if self.finished:
            return
        self._loop.call_later(_HEALTH_INTERVAL, self._watch)
        everyone = [worker for each in self._generations for worker in each.handles]
        self.crew.look_for_silent(everyone, self.config.worker_timeout)
        if self.crew.stuck_threads() > self.config.worker_count:
            self._exhausted("more threads hang than there are workers; only a new process helps")
        current = self._current or self._generations[-1]
        elapsed = self._loop.now - self._phase_began
        self._emit(report.health(self._generations, current, self.config, self._phase, elapsed))


def _application_error(failure: Failed) -> ApplicationError:
    error = ApplicationError(failure.reason)
    error.exit_code = failure.exit_code
    return error
