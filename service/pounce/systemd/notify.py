"""Telling systemd how the service fares: sd_notify(3), from lifecycle events.

The messages go through sdnotify's socket. With debug=True it raises what it hides otherwise; its
text is sent as Latin-1, so UTF-8 is passed in bytes that look like that; its socket does not block
here, and has descriptors sent on it.
"""

import errno
import os
import select
import socket
import time
import warnings
from collections import deque
from collections.abc import Sequence

import sdnotify

from pounce.events.lifecycle import (
    BudgetSpent,
    CommandFailed,
    GenerationReady,
    HealthChecked,
    LifecycleEvent,
    Phase,
    ReloadCompleted,
    ReloadFailed,
    ReloadStarted,
    Stopped,
    Stopping,
    WorkerFailed,
)
from pounce.events.loggers import get_logger

logger = get_logger("pounce.server")

# How long one message keeps a slow start or stop alive. Well above any health interval, so a
# supervisor that turns is never cut off; short enough that one that froze soon is.
_EXTENSION = "EXTEND_TIMEOUT_USEC=30000000"

# How many messages wait while systemd reads none. That lasts minutes, in which nothing new is said.
_MOST_UNSENT = 1000

# Seconds that the end of the service waits for systemd to take the last messages.
_LAST_WORDS = 1.0

_MAX_REASON = 200  # characters of an error in the status line; the journal has all of it


class SystemdNotifier:
    """The lifecycle collector that tells systemd, through NOTIFY_SOCKET.

    It takes its variables out of the environment, so that no child speaks for the service,
    and without them says nothing. It never raises: a service manager that does not listen is
    no reason to stop serving, but one for a warning.
    """

    def __init__(self) -> None:
        self._transport = _notify_transport()
        self._watchdog = _watchdog_interval()
        self._next_ping = 0.0
        self._ready = False
        self._stop_reason = self._start_failure = ""
        self._generation = 1
        self._workers = 0
        self._budget_spent = ""
        self._reload_failed = ""
        self._starting = ""  # the generation that a reload starts
        self._command = ""
        self._status = ""  # as sent last
        self._heard = True
        self._unsent: deque[tuple[bytes, list[int]]] = deque()

    @property
    def has_manager(self) -> bool:
        """Whether there is a service manager to tell."""
        return self._transport is not None

    def collect(self, event: LifecycleEvent) -> None:
        """Tell systemd what *event* means to it, if anything."""
        self._flush()
        match event:
            case HealthChecked():
                self._on_health_checked(event)
            case GenerationReady():
                self._on_generation_ready(event)
            case WorkerFailed() | CommandFailed():
                self._on_start_failed(event)
            case BudgetSpent():
                self._on_budget_spent(event)
            case ReloadStarted():
                self._on_reload_started(event)
            case ReloadCompleted() | ReloadFailed():
                self._on_reload_ended(event)
            case Stopping():
                self._on_stopping(event)
            case Stopped():
                # systemctl status goes on showing it.
                self._send(status=self._start_failure or f"Stopped: {self._stop_reason}")

    def send(self, states: str, descriptors: Sequence[int] = ()) -> None:
        """Send *states*, lines of NAME=value, with *descriptors* (FDSTORE=1, BARRIER=1).

        It never waits. If systemd's queue is full, the message is sent by a later call.
        """
        data = states.encode("utf-8", "backslashreplace")
        if self._unsent or not self._is_sent(data, descriptors):
            self._keep(data, descriptors)

    def say_why(self, error: str) -> None:
        """Have `systemctl status` show *error*, for which the service ends.

        It shows no journal entries of a start that has failed and will be tried again.
        """
        self._send(status=f"{'Failed' if self._ready else 'Start failed'}: {_first_line(error)}")

    def finish(self, timeout: float) -> None:
        """Wait for at most *timeout* seconds until systemd's queue has taken every message."""
        deadline = time.monotonic() + timeout
        while self._transport and self._unsent and (left := deadline - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self._transport.socket, select.POLLOUT)
            poll.poll(left * 1000)
            self._flush()

    def close(self) -> None:
        """Close the socket, once the last messages are sent; nothing is sent afterwards."""
        self.finish(_LAST_WORDS)
        if self._transport is not None:
            self._transport.socket.close()
            self._transport = None

    def _flush(self) -> None:
        while self._unsent and self._is_sent(*self._unsent[0]):
            _, descriptors = self._unsent.popleft()
            for each in descriptors:
                os.close(each)

    def _is_sent(self, data: bytes, descriptors: Sequence[int]) -> bool:
        """Send *data*; false if it has to wait. A message that nobody will take is not kept."""
        if self._transport is not None:
            try:
                if descriptors:
                    socket.send_fds(self._transport.socket, [data], descriptors)
                else:
                    self._transport.notify(data.decode("latin-1"))
            except BlockingIOError:
                return False
            except OSError as error:
                self._not_heard(error)
            else:
                self._heard = True
        return True

    def _keep(self, data: bytes, descriptors: Sequence[int]) -> None:
        if len(self._unsent) >= _MOST_UNSENT and not descriptors:
            self._not_heard(BlockingIOError(errno.EAGAIN, "it reads no messages"))
            return
        try:
            self._unsent.append((data, [os.dup(each) for each in descriptors]))
        except OSError as error:  # out of descriptors
            self._not_heard(error)

    def _on_generation_ready(self, event: GenerationReady) -> None:
        self._generation, self._workers = event.generation, event.workers
        if not self._ready:
            self._ready = True
            self._send("READY=1", status=self._serving(event.workers))

    def _on_start_failed(self, event: WorkerFailed | CommandFailed) -> None:
        if not self._ready:
            self._start_failure = f"Start failed: {_first_line(event.reason)}"
            self._send(status=self._start_failure)

    def _on_health_checked(self, event: HealthChecked) -> None:
        self._generation, self._workers = event.generation, event.workers
        self._command = f", running {_first_line(repr(event.command))}" if event.command else ""
        # Half of it, since a worker that comes back may do so at the last moment.
        alive = self._watchdog is not None and event.silent_for < self._watchdog / 2
        states = ["WATCHDOG=1"] if event.can_serve and alive and self._is_ping_due() else []
        # The unit's own timeout is unknown here, and an extension never shortens it
        # (sd_notify(3)): so it is sent from the beginning, until pounce's own deadline.
        if event.phase is not Phase.SERVING and event.phase_elapsed < event.phase_timeout:
            states.append(_EXTENSION)
        self._send(*states, status=self._health(event))

    def _is_ping_due(self) -> bool:
        """Four pings an interval are plenty; health checks come far more often than that."""
        now = time.monotonic()
        if self._watchdog is None or now < self._next_ping:
            return False
        self._next_ping = now + self._watchdog / 4
        return True

    def _on_budget_spent(self, event: BudgetSpent) -> None:
        self._budget_spent = f"{event.restarts} restarts in {event.window:g} s, no more for now"

    def _on_reload_started(self, event: ReloadStarted) -> None:
        self._reload_failed = ""
        self._starting = f"starting generation {event.generation}"
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(
            "RELOADING=1",
            f"MONOTONIC_USEC={now}",
            status=self._serving(self._workers),
        )

    def _on_reload_ended(self, event: ReloadCompleted | ReloadFailed) -> None:
        self._starting = self._command = ""
        if isinstance(event, ReloadFailed):
            self._reload_failed = f"reload failed: {_first_line(event.reason)}"
        else:
            self._generation = event.generation
        # READY=1 ends a failed reload, too: the protocol has no message for the failure.
        # After STOPPING=1, which is final, nothing may claim to be ready.
        if not self._stop_reason:
            self._send("READY=1", status=self._serving(self._workers))

    def _on_stopping(self, event: Stopping) -> None:
        self._stop_reason = _first_line(event.reason)
        self._send("STOPPING=1", _EXTENSION, status=f"Stopping: {self._stop_reason}")

    def _health(self, event: HealthChecked) -> str:
        if event.phase is Phase.STARTING:
            ready = f", {event.ready_workers} of {_count(event.workers, 'worker')} ready"
            return f"Starting generation {event.generation}{self._command or ready}"
        if event.phase is Phase.STOPPING:
            return f"Stopping, {_count(event.connections, 'connection')} left"
        if event.ready_workers == event.workers:
            self._budget_spent = ""
        return self._serving(event.ready_workers, event.draining_connections)

    def _serving(self, ready: int, draining: int = 0) -> str:
        workers = _count(self._workers, "worker")
        if ready == self._workers:
            status = f"Serving generation {self._generation}, {workers}"
        elif ready:
            status = f"Degraded: serving generation {self._generation}, {ready} of {workers}"
        else:
            status = f"Cannot serve: no worker of generation {self._generation} is ready"
        if draining:
            status += f", {_count(draining, 'connection')} draining"
        starting = self._starting + self._command
        notes = (status, starting, self._budget_spent, self._reload_failed)
        return "; ".join(filter(None, notes))

    def _send(self, *states: str, status: str) -> None:
        lines = list(states)
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        if lines:
            self.send("\n".join(lines))

    def _not_heard(self, error: OSError) -> None:
        # Once: it is told something many times a minute.
        if self._heard:
            logger.warning("the service manager cannot be told how the service fares: %s", error)
        self._heard = False


def _notify_transport() -> sdnotify.SystemdNotifier | None:
    """sdnotify's side of NOTIFY_SOCKET, which no child gets to see; None without one."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address and not address.startswith(("/", "@")):
        logger.warning(
            "NOTIFY_SOCKET=%s is no unix socket: the service manager hears nothing", address
        )
        address = ""
    try:
        return _connected() if address else None
    except OSError as error:
        logger.warning("NOTIFY_SOCKET=%s: the service manager hears nothing: %s", address, error)
        return None
    finally:
        os.environ.pop("NOTIFY_SOCKET", None)


def _connected() -> sdnotify.SystemdNotifier:
    with warnings.catch_warnings():
        # It leaves a socket that it cannot connect to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        transport = sdnotify.SystemdNotifier(debug=True)
    transport.socket.setblocking(False)
    return transport


def _watchdog_interval() -> float | None:
    """Seconds within which systemd wants a sign of life; None if it wants none.

    See sd_watchdog_enabled(3).
    """
    microseconds = os.environ.pop("WATCHDOG_USEC", "")
    pid = os.environ.pop("WATCHDOG_PID", "")
    is_ours = pid in ("", str(os.getpid()))
    if is_ours and microseconds.isascii() and microseconds.isdigit():
        return int(microseconds) / 1_000_000
    return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _first_line(reason: str) -> str:
    """*reason* cut to one line: in this protocol a line break would begin another variable."""
    line = next(iter(reason.strip().splitlines()), "")
    return line if len(line) <= _MAX_REASON else line[:_MAX_REASON] + "…"
