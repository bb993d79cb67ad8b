"""The service as a whole: steps SERVICE_TABLE."""

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from pounce.config.durations import spell
from pounce.config.plan import Plan
from pounce.config.service import ServerConfig
from pounce.errors import PounceError
from pounce.events import log
from pounce.events.lifecycle import (
    MOST_WORKERS,
    LifecycleEvent,
    Phase,
    ReloadCompleted,
    ReloadFailed,
    ReloadStarted,
    Stopped,
    Stopping,
)
from pounce.events.loggers import get_logger
from pounce.ipc.channel import Reopen
from pounce.ipc.handover import Keeper
from pounce.loop import Loop
from pounce.supervisor import report
from pounce.supervisor.budget import RestartBudget
from pounce.supervisor.closing import Closing
from pounce.supervisor.crew import Crew
from pounce.supervisor.generations import Generations
from pounce.supervisor.idling import Idling
from pounce.supervisor.keeping import Keeping
from pounce.supervisor.starter import WorkerMode
from pounce.supervisor.states import SERVICE_TABLE, ServiceAction, ServiceInput, ServiceState
from pounce.workers import Application, check

# Four looks within the shortest watchdog interval that makes sense (2 s).
_HEALTH_INTERVAL = 0.5

_PHASES = {
    ServiceState.STARTING: Phase.STARTING,
    ServiceState.SERVING: Phase.SERVING,
    ServiceState.RELOADING: Phase.RELOADING,
    ServiceState.RESTARTING: Phase.RELOADING,
}

_QUEUING = (ServiceAction.QUEUE_RELOAD, ServiceAction.QUEUE_RESTART)

Waiter = Future[None]
Prepare = Callable[[Plan], Plan]

logger = get_logger("pounce.supervisor")


class Service:
    """What the supervisor runs; everything happens on its loop.

    *lifespan_state* is that of a lifespan that runs elsewhere; with None each process, or each
    generation of threads, runs the application's own. *plan* is the first generation's, and
    *prepare* makes the next one's from the one that serves; it raises PounceError. *keeper* holds
    connections from one run to the next, and *own* are the sockets that a stop closes.
    """

    def __init__(
        self,
        plan: Plan,
        prepare: Prepare,
        application: Application,
        mode: WorkerMode,
        loop: Loop,
        emit: Callable[[LifecycleEvent], None],
        *,
        lifespan_state: dict[str, Any] | None,
        keeper: Keeper | None,
        own: Sequence[socket.socket],
    ) -> None:
        self._plan = self._next_plan = plan
        self.error: PounceError | None = None
        self.crew = Crew(application, mode, loop, emit, lifespan_state)
        budget = RestartBudget(plan.config.max_restarts, plan.config.restart_window)
        self._generations = Generations(self.crew, mode, loop, emit, self._told, budget)
        self.crew.owner = self._generations
        self._keeping = (
            Keeping(loop, self.crew.handover, self.crew.scoreboard, keeper) if keeper else None
        )
        if self._keeping:
            self.crew.undo_in_child.append(self._keeping.close_in_child)
        self._idling = Idling(loop)
        self._prepare = prepare
        self._own = own
        self._closing = Closing(loop, own)
        self._loop = loop
        self._emit = emit
        self._state = ServiceState.STARTING
        self._phase_began = loop.now
        self._cause = PounceError("it ended without a reason")
        # The callers that wait for the reload or restart that is under way, and for the next one.
        self._waiting: list[Waiter] = []
        self._queued: list[Waiter] = []
        self._next: ServiceInput | None = None
        self._actions: dict[ServiceAction, Callable[[], None]] = {
            ServiceAction.NOTHING: lambda: None,
            ServiceAction.OPEN: self._open,
            ServiceAction.FAIL: self._fail,
            ServiceAction.BEGIN_RELOAD: self._begin_reload,
            ServiceAction.QUEUE_RELOAD: lambda: self._queue(ServiceInput.RELOAD),
            ServiceAction.QUEUE_RESTART: lambda: self._queue(ServiceInput.RESTART),
            ServiceAction.SKIP_RESTART: self._skip_restart,
            ServiceAction.END_RELOAD: lambda: self._end_reload(self._newest.reload_timeout),
            ServiceAction.END_RESTART: lambda: self._end_reload(self._newest.shutdown_timeout),
            ServiceAction.GIVE_UP_RELOAD: self._give_up_reload,
            ServiceAction.REST: self._rest,
            ServiceAction.STOP: lambda: self._stop("as asked"),
            ServiceAction.FORCE: self._force,
            ServiceAction.FINISH: self._finish,
        }

    @property
    def config(self) -> ServerConfig:
        """That of the generation that serves; before there is one, of the first."""
        return self._plan.config

    @property
    def finished(self) -> bool:
        """Whether every worker is gone and none will come."""
        return self._state is ServiceState.STOPPED

    @property
    def generation(self) -> int:
        """The number of the current generation; 0 before the first one serves."""
        current = self._generations.current
        return current.number if current else 0

    @property
    def worker_count(self) -> int:
        """How many workers of the generation that serves, or is to, run; for any thread."""
        generation = self._generations.current or next(iter(self._generations.all), None)
        return generation.running if generation else 0

    def begin(self) -> None:
        """Start the first generation; raises ConfigError."""
        check(self.config)
        self._generations.begin(self._plan)
        self._watch()

    def close(self) -> None:
        """Give back everything; what still runs has lost its supervisor, and ends."""
        self.crew.close(self._generations.everyone)

    def request(self, what: ServiceInput, outcome: Waiter | None = None) -> None:
        """Let somebody outside (a signal, a caller) ask for *what*; *outcome* is answered."""
        _, action = SERVICE_TABLE[self._state, what]
        skipped = action is ServiceAction.SKIP_RESTART
        if outcome is not None and not skipped:
            (self._queued if action in _QUEUING else self._waiting).append(outcome)
        self._feed(what)
        if outcome is not None and skipped:
            outcome.set_result(None)
        if self._phase is Phase.STOPPING:
            self._answer_all(PounceError("the service is stopping"))

    def status(self) -> dict[str, Any]:
        """Every generation and worker, and for how long nobody has been connected."""
        past = self.crew.scoreboard.past_requests
        told = report.status(self._generations.all, self._phase, past, self._loop.now)
        if self._may_rest:
            idle_exit = self.config.idle_exit
            told |= {"idle": round(self._idling.seconds, 3), "idle_exit": idle_exit}
        return told

    def stop_draining(self) -> int:
        """Stop every worker that still drains; returns how many those are."""
        return self._generations.stop_draining()

    def scale(self, size: int) -> None:
        """Change the current generation's number of workers; raises PounceError if it cannot."""
        generation = self._generations.current
        if generation is None or self._phase is not Phase.SERVING:
            raise PounceError(f"the service is {self._phase.value}; try again later")
        if size == generation.size:
            return
        most = generation.largest_group
        if most > 1:
            # The sockets of a group are dealt out when workers start (SO_REUSEPORT).
            raise PounceError(f"a listener has {most} sockets; set `workers` and reload")
        logger.info("from %s to %s workers", generation.size, size)
        self._generations.renewal.resize(generation, size)

    def scale_by(self, difference: int) -> None:
        """One worker more or less (SIGTTIN, SIGTTOU), within 1 and MOST_WORKERS."""
        current = self._generations.current
        if current is not None:
            try:
                self.scale(min(max(1, current.size + difference), MOST_WORKERS))
            except PounceError as error:
                logger.warning("the number of workers stays as it is: %s", error)

    def reopen_log(self) -> None:
        """Have every process open the access log's file anew (SIGUSR1)."""
        logger.info("SIGUSR1: the access log, if it is a file, is opened anew")
        log.reopen_access_log()
        for worker in self._generations.everyone:
            self.crew.send(worker, Reopen())

    def _told(self, outcome: ServiceInput, cause: PounceError | None = None) -> None:
        self._cause = cause or self._cause
        self._feed(outcome)

    def _feed(self, what: ServiceInput) -> None:
        phase = self._phase
        self._state, action = SERVICE_TABLE[self._state, what]
        if self._phase is not phase:
            self._phase_began = self._loop.now
        self._actions[action]()

    @property
    def _phase(self) -> Phase:
        return _PHASES.get(self._state, Phase.STOPPING)

    # The actions of SERVICE_TABLE

    def _open(self) -> None:
        if self._keeping and self.generation == 1:
            self._keeping.begin()
        self._answer(None)
        self._next_reload()

    def _begin_reload(self) -> None:
        generations = self._generations
        self._emit(ReloadStarted(generations.last_number + 1))
        self._next_plan = self._plan
        try:
            self._next_plan = plan = self._prepare(self._plan)
            check(plan.config)
            if self.crew.h3:
                self.crew.h3.prepare(plan.config)
        except Exception as error:
            generations.last_number += 1
            cause = error if isinstance(error, PounceError) else PounceError(repr(error))
            self._told(ServiceInput.GENERATION_FAILED, cause)
        else:
            generations.begin(plan)

    def _queue(self, what: ServiceInput) -> None:
        # Of both, the reload: it gives the old workers more time.
        if self._next is not ServiceInput.RELOAD:
            self._next = what

    def _skip_restart(self) -> None:
        logger.info("restart_workers() is skipped: a reload is replacing the workers already")

    @property
    def _newest(self) -> ServerConfig:
        return self._generations.newest.config

    def _end_reload(self, patience: float) -> None:
        self._commit()
        self._generations.supersede(self.config, patience)
        self._emit(ReloadCompleted(self.generation))
        self._answer(None)
        self._next_reload()

    def _commit(self) -> None:
        """Make the supervisor's own part of the new generation's plan what it goes by."""
        old, self._plan = self._plan, self._generations.newest.plan
        if self._plan.log is not None:
            log.use(self._plan.log)
            log.drop(old.log, kept=self._plan.log)

    def _give_up_reload(self) -> None:
        log.drop(self._next_plan.log, kept=self._plan.log)
        number = self._generations.last_number
        self._emit(ReloadFailed(number, str(self._cause)))
        self._answer(PounceError(f"generation {number} did not start: {self._cause}"))
        self._next_reload()

    def _next_reload(self) -> None:
        if self._next is not None:
            what, self._next = self._next, None
            self._waiting, self._queued = self._queued, []
            self._feed(what)

    def _fail(self) -> None:
        self.error = self._cause
        self._answer_all(self._cause)
        self._stop("the service cannot go on")

    def _rest(self) -> None:
        # Whoever connects from now on waits until the next run. Who got in at the last moment is
        # answered here: systemd closes what it keeps for a service that ends by itself
        # (FileDescriptorStorePreserve= in systemd.service(5)).
        self._stop(f"no connection for {spell(self.config.idle_exit)}", keeps=False)

    def _stop(self, reason: str, *, keeps: bool = True) -> None:
        self._emit(Stopping(reason, self.config.shutdown_timeout))
        if self._keeping:
            self._keeping.end()
        # Workers that do not serve take nothing out of the queues.
        self._closing.begin(wait=self._generations.current is not None)
        for generation in self._generations.all:
            # Without a keeper nobody will read the handover from now on.
            generation.has_successor = keeps and self._keeping is not None
        self._generations.drain(list(self._generations.all), self.config.shutdown_timeout)
        if self.crew.h3:
            self.crew.h3.when_unread(self._closing.refuse_datagrams)
        self._answer_all(PounceError("the service is stopping"))

    def _force(self) -> None:
        for generation in list(self._generations.all):
            self._generations.cut_off(generation)

    def _finish(self) -> None:
        self._closing.finish()
        if self._keeping:
            self._keeping.finish()
        self._emit(Stopped())

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
        log.flush()
        generations = self._generations
        self.crew.look_for_silent(generations.everyone, self.config.worker_timeout)
        if generations.current is not None:
            generations.renewal.check(generations.current, self._loop.now)
        if self.crew.stuck_threads() > self.config.worker_count:
            reason = "more threads hang than there are workers; only a new process helps"
            self._told(ServiceInput.EXHAUSTED, PounceError(reason))
        self._look_for_clients()
        elapsed = self._loop.now - self._phase_began
        newest = generations.newest
        silence = self.crew.lookout.least(newest.ready)
        self._emit(
            report.health(generations.all, newest, self.config, self._phase, elapsed, silence)
        )

    @property
    def _may_rest(self) -> bool:
        """Whether it ends where nobody is connected: only what systemd holds is opened again."""
        return self.config.idle_exit > 0 and not self._own

    def _look_for_clients(self) -> None:
        if self._phase is not Phase.SERVING or not self._may_rest:
            self._idling.begin()
            return
        rows = [worker.row for worker in self._generations.everyone]
        self._idling.look(rows, self.crew.scoreboard.past_requests)
        if self._idling.seconds >= self.config.idle_exit:
            self._feed(ServiceInput.IDLE)
