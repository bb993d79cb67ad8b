"""The service's log: where records go, who they are from, and the service's own story in them.

Records carry journal fields as ``extra={"pounce": {"POUNCE_...": value}}``; each worker's
records get its generation and slot by themselves.
"""

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from pounce.events.formats import JSONFormatter, TextFormatter
from pounce.events.lifecycle import (
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
    worker_name,
)
from pounce.events.loggers import Fields, Logger, Routing, Voice, get_logger, identity
from pounce.events.outlets import LogFile, Outlet, Spool, standard_error

Encode = Callable[[logging.LogRecord], bytes]

# How long the end of a process waits for a reader of its last records.
_LAST_WORDS = 0.5

_PLAIN = logging.Formatter()

logger = get_logger("pounce.server")


def identify(generation: int, slot: int) -> None:
    """Mark the records of this thread, or of this process, as the worker's."""
    identity.set({"POUNCE_GENERATION": generation, "POUNCE_WORKER": worker_name(slot)})


class Spooled:
    """Writes each record to *spool*, in the bytes that *encode* makes of it.

    With *gathers* a record is as many as it has lines.
    """

    def __init__(self, spool: Spool, encode: Encode, *, gathers: bool = False) -> None:
        self.spool = spool
        self._encode = encode
        self._gathers = gathers

    def write(self, record: logging.LogRecord) -> None:
        """Write *record*, or that it cannot be formatted."""
        try:
            data = self._encode(record)
        except Exception as error:
            data = self._encode(_instead_of(record, error))
        self.spool.put(data, data.count(b"\n") if self._gathers else 1)

    def flush(self) -> None:
        """Write what could not be written before."""
        self.spool.flush()

    def finish(self, deadline: float) -> None:
        """The same, but wait until *deadline*."""
        self.spool.finish(deadline)

    def forget(self) -> None:
        """Drop what could not be written."""
        self.spool.forget()


def open_spool(journal: Outlet | None) -> Spool:
    """A spool for the service's log: *journal*, or standard error."""
    return Spool(journal or standard_error(), "the log", _warn)


def open_access_log(path: str) -> Spooled:
    """The access log in the file *path*; raises OSError."""
    spool = Spool(LogFile(path), f"the access log {path}", _warn, elsewhere=True)
    return Spooled(spool, _encode_message, gathers=True)


def encoder(style: Literal["text", "json"]) -> Encode:
    """What makes lines of records."""
    formatter = JSONFormatter() if style == "json" else TextFormatter()
    return lambda record: _line(formatter.format(record))


def configure(level: str, voice: Voice, access: Voice | None = None) -> None:
    """Send all records to *voice*, but those of the access log to *access*, if there is one."""
    if Logger.routing is None:
        _take_over()
    others = {} if access is None else {"pounce.access": access}
    Logger.routing = Routing(getattr(logging, level.upper()), voice, others)


def reopen_access_log() -> None:
    """Write the access log, if it is a file, to the one that has its name now (logrotate(8)).

    The next line would find it as well; but until then the file that was moved stays open, and
    takes its space also when it is removed.
    """
    for voice in _voices():
        if isinstance(voice, Spooled):
            try:
                voice.spool.follow()
            except OSError as error:
                logger.warning("the access log cannot be opened anew: %s", error)


def flush() -> None:
    """Write what could not be written before, and say what was lost; call it now and then."""
    for voice in _voices():
        voice.flush()
    _note_losses()


def finish() -> None:
    """Write what could not be written before, now or never: the process is to end."""
    deadline = time.monotonic() + _LAST_WORDS
    for voice in _voices():
        voice.finish(deadline)
    _note_losses()


def leave_losses_to(note: Callable[[int], None]) -> None:
    """Have *note* called with the number of records that are lost if this process ends now.

    A worker may end while nobody reads the log, and then cannot say how many it has lost.
    """
    global _note
    _note = note


def tell_losses(slot: int, target_id: int, count: int) -> None:
    """Say how many records are lost with a worker that has ended: it could not say so itself."""
    if count:
        _warn(f"worker {worker_name(slot)} ({target_id}) has ended; its records lost: {count}")


_note: Callable[[int], None] | None = None


def _note_losses() -> None:
    voice = Logger.routing.voice if Logger.routing else _unheard.spooled
    if _note is not None and isinstance(voice, Spooled):
        _note(voice.spool.unwritten)


def _voices() -> list[Voice]:
    return [_unheard, *(Logger.routing.voices if Logger.routing else [])]


def _forget() -> None:
    global _note
    _note = None
    for voice in _voices():
        voice.forget()


class _Unheard:
    """Standard error, for a program that pounce runs in and that has configured no handler.

    Python's own handler for such records (`logging.lastResort`) waits for the reader.
    """

    def __init__(self) -> None:
        self.spooled: Spooled | None = None
        self._identity = 0, 0

    def write(self, record: logging.LogRecord) -> None:
        """Write *record* as Python would, but without waiting."""
        last = logging.lastResort
        if last is None or record.levelno < last.level:
            return
        if isinstance(last, logging.StreamHandler) and last.stream is sys.__stderr__:
            with suppress(OSError):  # no descriptor is left, or the program has closed it
                self._standard_error().write(record)
        else:
            last.handle(record)  # it is the program's own, or writes to a stream that is

    def flush(self) -> None:
        """Write what could not be written before."""
        if self.spooled:
            self.spooled.flush()

    def finish(self, deadline: float) -> None:
        """The same, but wait until *deadline*."""
        if self.spooled:
            self.spooled.finish(deadline)

    def forget(self) -> None:
        """Drop what could not be written."""
        if self.spooled:
            self.spooled.forget()

    def _standard_error(self) -> Spooled:
        """What it is now: a program may have redirected it (dup2(2))."""
        status = os.fstat(2)
        identity = status.st_dev, status.st_ino
        if self.spooled is None or self._identity != identity:
            if self.spooled:
                self.spooled.spool.close()
            self.spooled, self._identity = Spooled(open_spool(None), _encode_plainly), identity
            atexit.unregister(finish)
            atexit.register(finish)
        return self.spooled


_unheard = _Unheard()
Logger.unheard = _unheard
os.register_at_fork(after_in_child=_forget)


def _warn(text: str) -> None:
    # Whatever the level is: this speaks of records that were severe enough.
    logger.handle(logger.makeRecord(logger.name, logging.WARNING, __file__, 0, "%s", (text,), None))


def _take_over() -> None:
    """Set up the application's side of logging, once: what it sets later is not touched."""
    # A handler of the application may hear pounce, but does not repeat it by being at the root.
    public = logging.getLogger("pounce")
    public.propagate = False
    public.setLevel(logging.DEBUG)
    logging.lastResort = _LastResort(logging.WARNING)


class _LastResort(logging.Handler):
    """What nobody has configured a handler for goes to the service's log, and never blocks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*, unless it is pounce's own and is there already."""
        routing = Logger.routing
        if routing is not None and not record.name.startswith("pounce."):
            identity.mark(record)
            routing.voice.write(record)


def _instead_of(record: logging.LogRecord, error: Exception) -> logging.LogRecord:
    what = f"a record cannot be formatted, {type(error).__name__}: {_text_of(record.msg)}"
    return logging.LogRecord(
        record.name, record.levelno, record.pathname, record.lineno, what, None, None
    )


def _text_of(message: object) -> str:
    try:
        return str(message)
    except Exception:  # an object of the application's may be logged, and fail in any way
        return f"an object of type {type(message).__name__}"


def _encode_message(record: logging.LogRecord) -> bytes:
    return _line(record.getMessage())


def _encode_plainly(record: logging.LogRecord) -> bytes:
    return _line(_PLAIN.format(record))


def _line(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace") + b"\n"


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
                return logging.WARNING, f"{who} took too long to end: it {event.outcome}"
            return logging.INFO, f"{who} stopped: it {event.outcome}"
    return None
