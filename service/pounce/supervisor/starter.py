"""Making workers, and starting them as processes or threads."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

from pounce.application import ending
from pounce.config.descriptors import raise_limit
from pounce.events import log
from pounce.supervisor import titles
from pounce.supervisor.targets import ProcessTarget, Target, ThreadTarget
from pounce.workers import Application, Assignment, LifespanHost, ServingWorker, TCPWorker

WorkerMode = Literal["thread", "process"]


class Started(NamedTuple):
    """What runs, and the worker itself where it is in this process: a thread's."""

    target: Target
    worker: TCPWorker | None = None


class Starter:
    """Starts what serves *application*.

    *lifespan_state* is that of a lifespan that runs elsewhere. *undo* is called in each forked
    child: it drops what is not the child's.
    """

    def __init__(
        self,
        application: Application,
        mode: WorkerMode,
        lifespan_state: dict[str, Any] | None,
        undo: Callable[[], None],
    ) -> None:
        self._application = application
        self._mode = mode
        self._lifespan_state = lifespan_state
        self._undo = undo

    def for_workers(self, host: LifespanHost | None) -> Callable[[Assignment], Started]:
        """What starts a worker of a generation; threads share what its *host* loaded."""
        return self._fork if self._mode == "process" else partial(self._start_thread, host)

    def start_host(self, assignment: Assignment) -> tuple[LifespanHost, Target]:
        """Start the thread that loads the application for a generation of threads."""
        host = self._application.lifespan_host(assignment)
        if self._lifespan_state is not None:
            host.set_lifespan_state(self._lifespan_state)
        return host, _start_thread(host, assignment)

    def _fork(self, assignment: Assignment) -> Started:
        worker: ServingWorker | None = None  # made in the child

        def main() -> int:
            nonlocal worker
            raise_limit()
            name = str(assignment.slot)
            titles.entitle(f"worker {name}, generation {assignment.generation}")
            os.environ["POUNCE_WORKER"] = name
            os.environ["POUNCE_GENERATION"] = str(assignment.generation)
            try:
                if assignment.plan.log is not None:
                    log.adopt(assignment.plan.log)
                log.leave_losses_to(assignment.row.lose)
                worker = self._create_worker(assignment, None)
                status = worker.run()
                all_ended = ending.await_threads()
            finally:
                log.finish()
            if not all_ended:
                ending.end_at_once(status, forked=True)
            return status

        target = ProcessTarget(
            main,
            name=f"pounce-{assignment.slot}",
            undo=self._undo,
            in_flight=lambda: worker.in_flight() if worker else "",
            noted=assignment.flight.read,
        )
        assignment.channel.close()
        return Started(target)

    def _start_thread(self, host: LifespanHost | None, assignment: Assignment) -> Started:
        worker = self._create_worker(assignment, host)
        return Started(_start_thread(worker, assignment), worker)

    def _create_worker(self, assignment: Assignment, host: LifespanHost | None) -> ServingWorker:
        """A worker that loads the application, or shares what its generation's *host* loaded."""
        worker = self._application.worker(assignment, host)
        state = host.state if host else self._lifespan_state
        if state is not None:
            worker.set_lifespan_state(state)
        return worker


def _start_thread(worker: ServingWorker | LifespanHost, assignment: Assignment) -> Target:
    name = assignment.slot.name

    def main() -> int:
        who = f"worker {name}" if isinstance(name, int) else name
        titles.name_thread(f"{who} gen {assignment.generation}")
        try:
            return worker.run()
        finally:
            assignment.channel.close()

    return ThreadTarget(
        main,
        name=f"pounce-{assignment.generation}-{name}",
        stop=worker.terminate,
        in_flight=worker.in_flight,
    )
