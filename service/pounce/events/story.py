"""The service's own story, as records of its log."""

import logging
from dataclasses import replace

from pounce.events.lifecycle import (
    LIFESPAN,
    BudgetSpent,
    CommandFailed,
    CommandStarted,
    CommandStopped,
    GenerationReady,
    GenerationRetired,
    LifecycleEvent,
    ReloadCompleted,
    ReloadFailed,
    ReloadStarted,
    Stopped,
    Stopping,
    WorkerCrashed,
    WorkerEvent,
    WorkerFailed,
    WorkerHung,
    WorkerReady,
    WorkerStarted,
    WorkerStopped,
)
from pounce.events.loggers import Fields, get_logger


class LogCollector:
    """Tells the lifecycle as log records."""

    def __init__(self) -> None:
        self._logger = get_logger("pounce.supervisor")
        self._reason = ""  # the last one told

    def collect(self, event: LifecycleEvent) -> None:
        """Log *event*, if it is one that an operator wants to read."""
        told = _tell(self._shortened(event))
        if told is not None:
            level, text = told
            self._logger.log(level, "%s", text, extra={"pounce": _fields(event)})

    def _shortened(self, event: LifecycleEvent) -> LifecycleEvent:
        """*event*; of the reason for a failure only the first line if all of it was told before.

        Every worker of a generation may fail by the same import, and then the reload by that.
        """
        if isinstance(event, WorkerReady):
            self._reason = ""
        elif isinstance(event, WorkerFailed | ReloadFailed):
            summary, more, _ = event.reason.partition("\n")
            if more and event.reason == self._reason:
                return replace(event, reason=f"{summary} (more above)")
            self._reason = event.reason
        return event


def _fields(event: LifecycleEvent) -> Fields:
    fields: Fields = {"POUNCE_EVENT": type(event).__name__}
    if isinstance(event, WorkerEvent):
        fields["POUNCE_WORKER"] = event.slot.name
        fields["POUNCE_TARGET"] = event.target_id
    generation = getattr(event, "generation", None)
    if generation is not None:
        fields["POUNCE_GENERATION"] = generation
    return fields


def _tell(event: LifecycleEvent) -> tuple[int, str] | None:
    match event:
        case WorkerEvent():
            return _tell_worker(event)
        case CommandStarted() | CommandFailed() | CommandStopped():
            return _tell_command(event)
        case GenerationReady() | GenerationRetired():
            return _tell_generation(event)
        case ReloadStarted():
            return logging.INFO, f"reload: starting generation {event.generation}"
        case ReloadCompleted():
            return logging.INFO, f"reload: generation {event.generation} has taken over"
        case ReloadFailed():
            return logging.ERROR, f"reload failed, the old code still serves: {event.reason}"
        case BudgetSpent():
            return logging.ERROR, (
                f"{event.restarts} worker restarts in {event.window:g} s: "
                "no more until the window (restart_window) has passed"
            )
        case Stopping():
            return logging.INFO, f"stopping, {event.reason}; at most {event.timeout:g} s to drain"
        case Stopped():
            return logging.INFO, "stopped"
    return None


def _tell_command(event: CommandStarted | CommandFailed | CommandStopped) -> tuple[int, str]:
    match event:
        case CommandStarted():
            return logging.INFO, f"generation {event.generation}: running {event.command!r}"
        case CommandFailed():
            return logging.ERROR, event.reason
        case CommandStopped():
            # Nobody is at fault, but a migration may be half done.
            return logging.WARNING, event.reason


def _tell_generation(event: GenerationReady | GenerationRetired) -> tuple[int, str]:
    match event:
        case GenerationReady():
            return logging.INFO, f"generation {event.generation} serves: {_workers(event.workers)}"
        case GenerationRetired():
            return logging.INFO, f"generation {event.generation} is retired"


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _tell_worker(event: WorkerEvent) -> tuple[int, str] | None:
    who = f"worker {event.slot}" if event.slot != LIFESPAN else "the lifespan"
    who = f"{who} ({event.target_id})"
    match event:
        case WorkerStarted():
            return logging.DEBUG, f"{who} started"
        case WorkerReady():
            return logging.INFO, f"{who} is ready"
        case WorkerFailed():
            return logging.ERROR, f"{who} did not become ready: {event.reason}"
        case WorkerCrashed():
            follows = "" if event.respawn_in is None else f"; next one in {event.respawn_in:g} s"
            return logging.ERROR, f"{who} ended unasked: {event.reason}{follows}"
        case WorkerHung():
            return logging.ERROR, (
                f"{who} was silent for {event.silent_for:.1f} s and is replaced; "
                f"it stood at:\n{event.stacks}"
            )
        case WorkerStopped():
            if event.forced:
                return logging.WARNING, f"{who} took too long to end: it {event.outcome}"
            return logging.INFO, f"{who} stopped: it {event.outcome}"
    return None
