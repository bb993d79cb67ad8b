"""What happens to a service, as typed events, and who hears of it.

The supervisor reports here and knows nobody who listens: the systemd notifier, the log and
a test's list are all collectors. Collectors run on the supervisor's loop, so `collect` must
not block. If it raises, the error is logged, and the collector goes on being called.
"""

import time
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NamedTuple, Protocol

from pounce.events.loggers import get_logger

logger = get_logger("pounce.supervisor")

# Seconds between two log records about the same collector: health is checked twice a second.
_QUIET = 10.0


MOST_WORKERS: Final = 1024
"""How many workers of a kind a generation may have."""


class Kind(IntEnum):
    """What a worker does."""

    HTTP = 0
    HTTP3 = 1
    LIFESPAN = 2
    """Loads the application, and may run its lifespan, for a generation of threads."""


class Slot(NamedTuple):
    """A worker's place in its generation, which a successor of the same place takes over."""

    kind: Kind
    number: int = 0

    @property
    def name(self) -> int | str:
        """What people and applications call the worker: 0, "h3-0" or "lifespan"."""
        match self.kind:
            case Kind.HTTP:
                return self.number
            case Kind.HTTP3:
                return f"h3-{self.number}"
            case Kind.LIFESPAN:
                return "lifespan"

    def __str__(self) -> str:
        return str(self.name)


LIFESPAN = Slot(Kind.LIFESPAN)


def slots(kind: Kind, first: int, end: int) -> list[Slot]:
    """Those of one *kind* from number *first* to the one before *end*."""
    return [Slot(kind, number) for number in range(first, end)]


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """Something that happened to the service."""


@dataclass(frozen=True, slots=True)
class WorkerEvent(LifecycleEvent):
    """Something that happened to one worker; *target_id* is its pid, or its thread's id."""

    generation: int
    slot: Slot
    target_id: int


@dataclass(frozen=True, slots=True)
class WorkerStarted(WorkerEvent):
    """The worker's process or thread exists; the application is not loaded yet."""


@dataclass(frozen=True, slots=True)
class WorkerReady(WorkerEvent):
    """Application imported, lifespan started, listeners attached."""


@dataclass(frozen=True, slots=True)
class WorkerFailed(WorkerEvent):
    """The worker did not become ready; *reason* is for a person, with the traceback if any."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerCrashed(WorkerEvent):
    """The worker ended though nobody asked it to.

    *respawn_in* is the delay in seconds before its slot is filled again; None for a lifespan's
    thread, which is not started again.
    """

    reason: str
    respawn_in: float | None


@dataclass(frozen=True, slots=True)
class WorkerHung(WorkerEvent):
    """The worker's loop has not turned for *silent_for* seconds; *stacks* is where it stands."""

    silent_for: float
    stacks: str


@dataclass(frozen=True, slots=True)
class WorkerStopped(WorkerEvent):
    """The worker ended after it was told to; *forced* if it had to be killed or abandoned."""

    outcome: str
    forced: bool


@dataclass(frozen=True, slots=True)
class CommandStarted(LifecycleEvent):
    """A *command* of ``[deploy] before`` runs for *generation*."""

    generation: int
    command: str


@dataclass(frozen=True, slots=True)
class CommandFailed(LifecycleEvent):
    """A command failed, and with it *generation*; *reason* is for a person, and names it."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class CommandStopped(LifecycleEvent):
    """A stop of the service ended a command of *generation*; *reason* names it, and says how."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class GenerationReady(LifecycleEvent):
    """All *workers* of the generation are ready, and it serves from now on."""

    generation: int
    workers: int


@dataclass(frozen=True, slots=True)
class GenerationRetired(LifecycleEvent):
    """The last worker of the generation is gone."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReloadStarted(LifecycleEvent):
    """A reload began; *generation* is the one being started."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReloadFailed(LifecycleEvent):
    """The new *generation* is torn down and the old one still serves."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReloadCompleted(LifecycleEvent):
    """The new *generation* serves; the old one drains."""

    generation: int


@dataclass(frozen=True, slots=True)
class BudgetSpent(LifecycleEvent):
    """*restarts* worker restarts in *window* seconds: no more until the window has passed."""

    restarts: int
    window: float


@dataclass(frozen=True, slots=True)
class Stopping(LifecycleEvent):
    """A stop is decided; workers drain for at most *timeout* seconds."""

    reason: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Stopped(LifecycleEvent):
    """All workers are gone."""


class Phase(Enum):
    """What the service as a whole is doing."""

    STARTING = "starting"
    SERVING = "serving"
    RELOADING = "reloading"  # serving, while the next generation starts
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class HealthChecked(LifecycleEvent):
    """The supervisor looked at every worker; sent at each health interval.

    *generation* is the current one (the first while starting). *connections* are all that
    clients have open, *draining_connections* those of them that older generations (or, in a
    stop, all) hold. *phase_elapsed* and
    *phase_timeout* are seconds (a timeout of 0: the phase has none). *can_serve* is true
    while at least one worker of the current generation is ready. *silent_for* is for how many
    seconds none of those has turned its loop. *command* is the program of ``[deploy] before`` that
    runs, or "".
    """

    phase: Phase
    generation: int
    ready_workers: int
    workers: int
    connections: int
    draining_connections: int
    can_serve: bool
    phase_elapsed: float
    phase_timeout: float
    silent_for: float = 0.0
    command: str = ""


class LifecycleCollector(Protocol):
    """Whoever wants to hear of lifecycle events."""

    def collect(self, event: LifecycleEvent) -> None:
        """Take note of *event*; returns at once."""


class Collectors:
    """Several collectors as one. An error in one of them stops neither the rest nor the caller."""

    def __init__(self, *collectors: LifecycleCollector) -> None:
        self._collectors = [_Guarded(collector) for collector in collectors]

    def collect(self, event: LifecycleEvent) -> None:
        """Tell every collector."""
        for collector in self._collectors:
            collector.collect(event)


class _Guarded:
    """A collector whose errors are logged, at most once in _QUIET seconds."""

    def __init__(self, collector: LifecycleCollector) -> None:
        self._collector = collector
        self._quiet_until = 0.0
        self._untold = 0

    def collect(self, event: LifecycleEvent) -> None:
        """Tell the collector."""
        try:
            self._collector.collect(event)
        # SystemExit and CancelledError too: a collector watches the service and must not end it.
        except BaseException:
            self._log(event)

    def _log(self, event: LifecycleEvent) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            self._untold += 1
            return
        logger.exception(
            "the lifecycle collector %s raised at %s (errors not logged since the last one: %d)",
            type(self._collector).__name__,
            type(event).__name__,
            self._untold,
        )
        self._quiet_until, self._untold = now + _QUIET, 0
