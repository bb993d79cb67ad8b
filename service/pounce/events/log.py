"""The service's log: where records go, and who they are from.

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
from typing import Literal
from weakref import WeakSet

from pounce.events.formats import JSONFormatter, TextFormatter
from pounce.events.lifecycle import Slot
from pounce.events.loggers import Logger, Routing, Voice, get_logger, identity
from pounce.events.outlets import LogFile, Outlet, Spool, standard_error

Encode = Callable[[logging.LogRecord], bytes]

# How long the end of a process waits for a reader of its last records.
_LAST_WORDS = 0.5

_PLAIN = logging.Formatter()

# The logger of the access log.
_ACCESS = "pounce.access"

# Those that this process has open.
_access_logs: "WeakSet[Spooled]" = WeakSet()

logger = get_logger("pounce.server")


def identify(generation: int, slot: Slot) -> None:
    """Mark the records of this thread, or of this process, as the worker's."""
    identity.set({"POUNCE_GENERATION": generation, "POUNCE_WORKER": slot.name})


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
        if not self.spool.put(data, data.count(b"\n") if self._gathers else 1):
            self._pass_on(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        """A reload has closed this one while a thread was about to write."""
        routed = Logger.routing
        voice = routed and routed.others.get(record.name, routed.voice)
        if voice and voice is not self:
            voice.write(record)

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
    opened = Spooled(spool, _encode_message, gathers=True)
    _access_logs.add(opened)
    return opened


def encoder(style: Literal["text", "json"]) -> Encode:
    """What makes lines of records."""
    formatter = JSONFormatter() if style == "json" else TextFormatter()
    return lambda record: _line(formatter.format(record))


def routing(level: str, voice: Voice, access: Voice | None = None) -> Routing:
    """All records go to *voice*, but those of the access log to *access*, if there is one."""
    others = {} if access is None else {_ACCESS: access}
    return Routing(getattr(logging, level.upper()), voice, others)


def access_log_of(routed: Routing | None) -> Voice | None:
    """Where the access log goes, if not to the service's log."""
    return routed.others.get(_ACCESS) if routed else None


def use(routed: Routing) -> None:
    """Write the records of this process as *routed* says, from now on."""
    if Logger.routing is None:
        _take_over()
    Logger.routing = routed


def adopt(routed: Routing) -> None:
    """The same, in a forked worker: it keeps no access log of other generations open."""
    use(routed)
    for each in list(_access_logs):
        if each not in routed.voices:
            each.spool.close()


def drop(routed: Routing | None, kept: Routing | None) -> None:
    """Close the access log of *routed*, unless that of *kept* is the same."""
    access = access_log_of(routed)
    if isinstance(access, Spooled) and access is not access_log_of(kept):
        access.spool.close()


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


def tell_losses(slot: Slot, target_id: int, count: int) -> None:
    """Say how many records are lost with a worker that has ended: it could not say so itself."""
    if count:
        _warn(f"worker {slot} ({target_id}) has ended; its records lost: {count}")


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
