"""pounce's own loggers, which an application's logging configuration cannot touch.

`logging` has one tree of loggers and one list of handlers for the whole process. `dictConfig` and
`fileConfig` close every handler on that list and, by default, disable every logger in that tree;
`logging.disable` silences all of it. The loggers here are in no tree and their voices on no list.
"""

import contextlib
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

Fields = dict[str, Any]


class Voice(Protocol):
    """Where records go."""

    def write(self, record: logging.LogRecord) -> None:
        """Write *record*. Never waits, never raises, and is callable from any thread."""

    def flush(self) -> None:
        """Write what could not be written before; never waits."""

    def finish(self, deadline: float) -> None:
        """The same, but wait until *deadline*, by the monotonic clock: the process is to end."""

    def forget(self) -> None:
        """Drop what could not be written: this is a forked child."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the records of a service go: to *voice*, or to a logger's own in *others*.

    Records less severe than *level* go nowhere.
    """

    level: int
    voice: Voice
    others: Mapping[str, Voice] = field(default_factory=dict)

    @property
    def voices(self) -> list[Voice]:
        """All of them."""
        return [self.voice, *self.others.values()]


class Identity:
    """Which worker the records of a thread are from.

    A thread-local, not a context variable: an application's task may run in a context of its own.
    """

    def __init__(self) -> None:
        self._threads = threading.local()
        self._process: Fields | None = None

    def get(self) -> Fields | None:
        """The journal fields that name this thread's worker; None in the supervisor."""
        fields: Fields | None = getattr(self._threads, "fields", self._process)
        return fields

    def set(self, fields: Fields | None) -> None:
        """Mark the records of this thread, or of this process if this is its main thread.

        A worker with a process of its own runs in the main thread; one that shares the
        supervisor's process does not.
        """
        self._threads.fields = fields
        if threading.current_thread() is threading.main_thread():
            self._process = fields

    def mark(self, record: logging.LogRecord) -> bool:
        """Name this thread's worker in *record*, if there is one; whether there is."""
        fields = self.get()
        if fields is not None:
            record.__dict__["pounce"] = {**fields, **record.__dict__.get("pounce", {})}
        return fields is not None


identity = Identity()


class Logger(logging.Logger):
    """A logger that writes to the service's own log.

    The application's logger of the same name gets what a worker logs, too, if a handler is there.
    It does not get the supervisor's records: in thread mode, a handler that blocks would block the
    supervisor. Without a service (`routing` is None) that logger gets everything: logging is then
    left to the program. Where that has no handler, *unheard* gets the record.
    """

    routing: ClassVar[Routing | None] = None
    unheard: ClassVar[Voice | None] = None

    def __init__(self, name: str, level: int = logging.NOTSET) -> None:
        super().__init__(name, level)
        self._public = logging.getLogger(name)

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        """Whether a record of *level* would go anywhere; takes no lock, unlike logging's own."""
        if level < self.level:
            return False
        routing = self.routing
        return self._program_wants(level) if routing is None else level >= routing.level

    def makeRecord(  # noqa: N802 - logging's name and parameters
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """Make a record; the application's record factory, which may fail, has no part in it."""
        record = logging.LogRecord(name, level, fn, lno, msg, args, exc_info, func, sinfo)
        record.__dict__.update(extra or {})
        return record

    def handle(self, record: logging.LogRecord) -> None:
        """Write *record* to the service's log, and offer it to the application's logging."""
        routing, is_workers = self.routing, identity.mark(record)
        if routing is None:
            self._leave_to_the_program(record)
            return
        routing.others.get(self.name, routing.voice).write(record)
        if is_workers and self._has_an_audience():
            self._offer(record)

    # By default, dictConfig() and fileConfig() disable all loggers that they do not name. A program
    # that configures logging does not mean to silence its server, so `disabled` does not count.

    def _program_wants(self, level: int) -> bool:
        public = self._public
        if not public.disabled:
            return public.isEnabledFor(level)
        return level >= public.getEffectiveLevel() and level > public.manager.disable

    def _leave_to_the_program(self, record: logging.LogRecord) -> None:
        passed = self._public.filter(record)
        if not passed:
            return
        if isinstance(passed, logging.LogRecord):  # a filter may put another in its place
            record = passed
        if self.unheard is None or self._has_an_audience():
            self._public.callHandlers(record)
        else:
            self.unheard.write(record)

    def _has_an_audience(self) -> bool:
        # Error reporters replace this method instead of adding a handler.
        return logging.Logger.callHandlers is not _call_handlers or self._public.hasHandlers()

    def _offer(self, record: logging.LogRecord) -> None:
        # What a handler or a record factory of the application raises must not reach the request.
        with contextlib.suppress(Exception):
            if self._public.isEnabledFor(record.levelno):
                # A copy: filters of the application may change it, its factory may add to it.
                copy = logging.makeLogRecord(record.__dict__)
                copy.exc_text = None  # the traceback as our formatter has it
                self._public.handle(copy)


_call_handlers = logging.Logger.callHandlers


def get_logger(name: str, level: int = logging.NOTSET) -> Logger:
    """The logger *name*, which is "pounce.…"; what is less severe than *level* it never logs."""
    return Logger(name, level)
