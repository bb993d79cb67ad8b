"""The service's log: where records go, who they are from, and the service's own story in them.

Records carry journal fields as ``extra={"pounce": {"POUNCE_...": value}}``; each worker's
records get its generation and slot by themselves.
"""

import json
import logging
import sys
from contextvars import ContextVar
from logging.handlers import WatchedFileHandler
from typing import Any, Literal

from pounce.lifecycle import (
    BudgetSpent,
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
    worker_name,
)

Fields = dict[str, Any]

_identity: ContextVar[Fields | None] = ContextVar("pounce_identity", default=None)


def identify(generation: int, slot: int) -> None:
    """Mark the records of this context (a worker's process or thread) as the worker's."""
    _identity.set({"POUNCE_GENERATION": generation, "POUNCE_WORKER": worker_name(slot)})


def configure(
    level: str, style: Literal["text", "json"], handler: logging.Handler | None = None
) -> None:
    """Send the "pounce" loggers to *handler*, or to standard error in *style*.

    Called again with the same *handler*, it misses no record of the threads that log meanwhile.
    """
    logger = logging.getLogger("pounce")
    if handler is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_JSONFormatter() if style == "json" else _TextFormatter())
    handler.addFilter(_add_identity)
    _replace(logger, [handler])
    logger.setLevel(level.upper())
    # The application's own logging configuration must neither repeat nor silence ours.
    logger.propagate = False


def configure_access_log(handler: logging.Handler | None) -> None:
    """Send the access log to *handler* alone, or with everything else."""
    access = logging.getLogger("pounce.access")
    _replace(access, [handler] if handler is not None else [])
    access.propagate = handler is None


def reopen_access_log() -> None:
    """Write the access log, if it is a file, to the one that has its name now (logrotate(8)).

    The next line would find it as well; but until then the file that was moved stays open, and
    takes its space also when it is removed.
    """
    for handler in logging.getLogger("pounce.access").handlers:
        if isinstance(handler, WatchedFileHandler):
            handler.acquire()
            try:
                handler.reopenIfNeeded()
            except OSError as error:
                text = "the access log cannot be opened anew: %s"
                logging.getLogger("pounce.server").warning(text, error)
            finally:
                handler.release()


def _replace(logger: logging.Logger, handlers: list[logging.Handler]) -> None:
    # In this order, because other threads log all the while.
    old, logger.handlers = logger.handlers, handlers
    for each in old:
        if each not in handlers:
            each.close()


def _add_identity(record: logging.LogRecord) -> bool:
    identity = _identity.get()
    if identity is not None:
        record.pounce = {**identity, **getattr(record, "pounce", {})}
    return True


class _TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00 INFO  [1.0] message``, where 1.0 is generation and slot."""

    def format(self, record: logging.LogRecord) -> str:
        fields: Fields = getattr(record, "pounce", {})
        who = ""
        if "POUNCE_WORKER" in fields:
            who = f"[{fields['POUNCE_GENERATION']}.{fields['POUNCE_WORKER']}] "
        when = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{when} {record.levelname:7} {who}{super().format(record)}"


class _JSONFormatter(logging.Formatter):
    """One JSON object a line; the journal fields are members, in lower case."""

    def format(self, record: logging.LogRecord) -> str:
        fields: Fields = getattr(record, "pounce", {})
        return json.dumps(
            {
                "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": super().format(record),
                **{name.lower(): value for name, value in fields.items()},
            },
            default=str,
        )


class LogCollector:
    """Tells the lifecycle as log records."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("pounce.supervisor")

    def collect(self, event: LifecycleEvent) -> None:
        """Log *event*, if it is one that an operator wants to read."""
        told = _tell(event)
        if told is not None:
            level, text = told
            self._logger.log(level, "%s", text, extra={"pounce": _fields(event)})


def _fields(event: LifecycleEvent) -> Fields:
    fields: Fields = {"POUNCE_EVENT": type(event).__name__}
    if isinstance(event, WorkerEvent):
        fields["POUNCE_WORKER"] = worker_name(event.slot)
        fields["POUNCE_TARGET"] = event.target_id
    generation = getattr(event, "generation", None)
    if generation is not None:
        fields["POUNCE_GENERATION"] = generation
    return fields


def _tell(event: LifecycleEvent) -> tuple[int, str] | None:
    match event:
        case WorkerEvent():
            return _tell_worker(event)
        case GenerationReady():
            return logging.INFO, f"generation {event.generation} serves: {_workers(event.workers)}"
        case GenerationRetired():
            return logging.INFO, f"generation {event.generation} is retired"
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


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _tell_worker(event: WorkerEvent) -> tuple[int, str] | None:
    who = f"worker {worker_name(event.slot)}" if event.slot >= 0 else "the lifespan"
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
                return logging.WARNING, f"{who} had to be stopped by force; it {event.outcome}"
            return logging.INFO, f"{who} stopped: it {event.outcome}"
    return None
