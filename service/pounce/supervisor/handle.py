"""What the supervisor knows of its workers and generations."""

from dataclasses import dataclass, field
from typing import Literal

from pounce.config.plan import Listener, Plan
from pounce.config.service import ServerConfig
from pounce.events.lifecycle import Kind, Slot, slots
from pounce.ipc.channel import Channel, Failed
from pounce.ipc.scoreboard import Row
from pounce.loop import Timer
from pounce.supervisor.commands import Commands
from pounce.supervisor.sockets import Groups, group_by_address, largest, share
from pounce.supervisor.states import GenerationState, WorkerState
from pounce.supervisor.targets import Target
from pounce.workers import LifespanHost, TCPWorker


@dataclass(eq=False, slots=True)
class WorkerHandle:
    """One running worker. The *generation*'s lifespan host has a handle as well.

    *worker* is what *target* runs, where that is a thread of this process; a forked process makes
    its own.
    """

    generation: "Generation"
    slot: Slot
    target: Target
    worker: TCPWorker | None
    channel: Channel
    row: Row
    started_at: float  # seconds of CLOCK_MONOTONIC, as all times here
    state: WorkerState = WorkerState.STARTING
    failure: Failed | None = None
    ready_at: float | None = None
    condemned: float | None = None  # seconds it was silent, or took to start
    request_limit: int = 0  # after how many requests it is replaced; 0 is not drawn yet
    forced: bool = False
    deadline: Timer | None = None

    @property
    def kind(self) -> Literal["http", "http3"]:
        """What it serves."""
        return "http"

    @property
    def worker_id(self) -> int:
        """Its number among the generation's workers of its kind."""
        return self.slot.number

    @property
    def is_host(self) -> bool:
        """Whether it is the generation's lifespan host, which serves nobody."""
        return self.slot.kind is Kind.LIFESPAN

    @property
    def identity(self) -> tuple[int, Slot, int]:
        """Generation, slot and target id, as lifecycle events begin."""
        return self.generation.number, self.slot, self.target.id

    def why(self) -> str:
        """Why it ended unasked, for a person."""
        if self.failure:
            return self.failure.reason
        if not self.forced:
            return f"it {self.target.outcome()}"
        if self.ready_at is not None:
            return "it hung"
        return f"it was not ready within {self.generation.config.startup_timeout:g} s"

    def cancel_deadline(self) -> None:
        """Forget the deadline, if there is one."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


@dataclass(eq=False, slots=True, kw_only=True)
class H3WorkerHandle(WorkerHandle):
    """One running worker that serves HTTP/3, by way of its *mailbox* too."""

    mailbox: int

    @property
    def kind(self) -> Literal["http", "http3"]:
        """What it serves."""
        return "http3"


@dataclass(eq=False, slots=True)
class Generation:
    """The workers made from one *plan*."""

    number: int
    plan: Plan
    size: int
    state: GenerationState = GenerationState.PREPARING
    commands: Commands | None = None  # while it prepares
    workers: dict[Slot, WorkerHandle] = field(default_factory=dict)
    # While it serves: by slot, those that will take over from a worker, and those that drain
    # because one did or because there are to be fewer.
    replacements: dict[Slot, WorkerHandle] = field(default_factory=dict)
    leaving: set[WorkerHandle] = field(default_factory=set)
    respawns: dict[Slot, Timer] = field(default_factory=dict)
    host_handle: WorkerHandle | None = None
    host: LifespanHost | None = None  # threads only: what loads the application for them
    failure: Failed | None = None
    # Until when it may drain (CLOCK_MONOTONIC): its workers, and then its host with what is left.
    drained_by: float = 0.0
    grace: float = 0.0  # seconds that its handlers may then take to end
    has_successor: bool = False  # its connections can be handed over
    stopping: bool = False  # nobody serves while it drains
    h3_size: int = field(init=False)  # workers for HTTP/3, besides
    _streams: Groups = field(init=False)
    _datagrams: Groups = field(init=False)

    def __post_init__(self) -> None:
        listeners = self.plan.listeners
        self._streams = group_by_address(each for each in listeners if each.is_stream)
        self._datagrams = group_by_address(each for each in listeners if each.is_quic)
        self.h3_size = min(self.size, largest(self._datagrams)) if self._datagrams else 0

    @property
    def config(self) -> ServerConfig:
        """Its plan's."""
        return self.plan.config

    @property
    def largest_group(self) -> int:
        """How many stream sockets share one address."""
        return largest(self._streams)

    def listeners_of(self, slot: Slot) -> list[Listener]:
        """Those of the worker in *slot*; the lifespan host has none."""
        match slot.kind:
            case Kind.HTTP:
                return share(self._streams, slot.number, self.size)
            case Kind.HTTP3:
                return share(self._datagrams, slot.number, self.h3_size)
            case Kind.LIFESPAN:
                return []

    @property
    def command(self) -> str:
        """The command of ``[deploy] before`` that runs, or ""."""
        return self.commands.line if self.commands else ""

    @property
    def slots(self) -> list[Slot]:
        """Every slot, of all kinds of workers."""
        return [*slots(Kind.HTTP, 0, self.size), *slots(Kind.HTTP3, 0, self.h3_size)]

    @property
    def handles(self) -> list[WorkerHandle]:
        """All that runs, the lifespan host last."""
        host = [self.host_handle] if self.host_handle is not None else []
        return [*self.all_workers, *host]

    @property
    def all_workers(self) -> list[WorkerHandle]:
        """Every worker, whether it holds a slot or not."""
        return [*self.workers.values(), *self.replacements.values(), *self.leaving]

    @property
    def running(self) -> int:
        """How many of its workers for HTTP/1.1 have become ready and not ended.

        Callable from any thread: a copy is looked at.
        """
        ready = [each for each in self.workers.copy().values() if each.ready_at is not None]
        return sum(each.slot.kind is Kind.HTTP for each in ready)

    @property
    def hands_over(self) -> bool:
        """Whether somebody is there to go on with the connections of a draining worker."""
        return self.has_successor or self.state is GenerationState.SERVING

    @property
    def ready(self) -> list[WorkerHandle]:
        """The workers that serve, or could."""
        return [worker for worker in self.workers.values() if worker.state is WorkerState.READY]

    def forget(self, worker: WorkerHandle) -> None:
        """Drop a worker, or the host, that has ended."""
        if worker is self.host_handle:
            self.host_handle = None
        elif worker in self.leaving:
            self.leaving.remove(worker)
        else:
            for holders in (self.workers, self.replacements):
                if holders.get(worker.slot) is worker:
                    del holders[worker.slot]

    def cancel_respawns(self) -> None:
        """Leave the empty slots empty."""
        for timer in self.respawns.values():
            timer.cancel()
        self.respawns.clear()
