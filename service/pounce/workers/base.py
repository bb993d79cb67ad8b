"""What every worker that runs an event loop does besides serving.

It answers the supervisor's commands, stamps its heartbeat, and goes through one life:
load, start, ready, serve, drain, finish.
"""

import asyncio
import contextlib
import signal
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from pounce.application import ending, forks
from pounce.application.loops import check_unpatched, new_event_loop
from pounce.config.plan import Listener, Plan
from pounce.config.service import ServerConfig
from pounce.errors import EX_SOFTWARE, PounceError
from pounce.events import log
from pounce.events.lifecycle import Slot
from pounce.ipc.channel import (
    Channel,
    ChannelClosed,
    Done,
    Drain,
    Ended,
    Failed,
    Leaving,
    Ready,
    Reopen,
    Serve,
    Stop,
)
from pounce.ipc.flight import FlightRecord
from pounce.ipc.handover import Handover
from pounce.ipc.mailboxes import Mailboxes
from pounce.ipc.scoreboard import Row, Scoreboard
from pounce.threads import thread_sensitive
from pounce.workers.obituary import teller

# Twice a second: often enough to sweep timeouts given in seconds and to show a hang, and too
# seldom to be seen in a profile.
TICK = 0.5

# What handlers get to clean up where nobody says how long: a second signal to a worker.
_GRACE = 1.0

# How long, in seconds, a worker that was told to drain waits for what the supervisor says to that.
_ANSWER = 0.5


@dataclass(frozen=True, slots=True)
class Mail:
    """How an HTTP/3 worker is found: its mailbox, and the secret that connection ids hide it by."""

    mailboxes: Mailboxes
    number: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the supervisor hands to a worker.

    *slot* is its place, *listeners* are those of *plan* that it serves, and *mail* is for
    those of HTTP/3.
    """

    plan: Plan
    generation: int
    slot: Slot
    listeners: list[Listener]
    row: Row
    scoreboard: Scoreboard
    channel: Channel
    handover: Handover
    flight: FlightRecord
    mail: Mail | None = None

    @property
    def config(self) -> ServerConfig:
        """The plan's."""
        return self.plan.config


class LoopWorker(ABC):
    """A worker with an event loop of its own; `run` blocks until it has ended."""

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.config = assignment.config
        self.draining = self.stopping = False  # see pounce.ipc.channel.Drain
        # Made here, so that a thread's worker can be told things before it runs.
        self.loop = new_event_loop(self.config.loop)
        self._channel = assignment.channel
        self._ended = asyncio.Event()
        self._serving = False
        self._alone: asyncio.TimerHandle | None = None

    def run(self) -> int:
        """Live; returns the exit status."""
        log.identify(self.assignment.generation, self.assignment.slot)
        with (
            forks.guarding(self.loop, self.descriptors),
            ending.running(self.loop) as runner,
        ):
            # Modules may ask for the loop while they are imported, which happens before it runs.
            asyncio.set_event_loop(runner.get_loop())
            try:
                try:
                    with forks.confined():
                        self.load()
                        self._tell_of = teller(self.config)
                finally:  # a failed import may well be because of that
                    check_unpatched()
                return runner.run(self._live())
            except PounceError as error:
                return self._fail(str(error), error.exit_code)
            except Exception:
                return self._fail(traceback.format_exc(), EX_SOFTWARE)
            finally:
                asyncio.set_event_loop(None)

    def start_draining(self) -> None:
        """Accept nothing new, finish what is here, end. Callable from any thread.

        The supervisor fills the place.
        """
        self._call(self._leave)

    def terminate(self) -> None:
        """Drain; when already draining, stop at once. Callable from any thread."""
        self._call(self._terminate)

    def descriptors(self) -> list[int]:
        """What a child that the application forks must not keep, besides what the loop watches."""
        return [self._channel.fileno(), *(each.sock.fileno() for each in self.assignment.listeners)]

    def in_flight(self) -> str:
        """The requests in flight, one a line, for a person; callable while the loop is stuck."""
        return ""

    @abstractmethod
    def load(self) -> None:
        """Import what is to be served; blocking, before the loop runs."""

    @abstractmethod
    async def start(self) -> None:
        """Become ready."""

    @abstractmethod
    def serve(self) -> None:
        """Start accepting."""

    @abstractmethod
    def drain(self, *, hand_over: bool) -> None:
        """Accept nothing new; call `end` when all is done.

        Called again when *hand_over* may have changed: a stop can follow a reload.
        """

    @abstractmethod
    def stop(self, grace: float) -> None:
        """End what is still here within *grace* seconds, then call `end`.

        Called again, the shorter time counts.
        """

    @abstractmethod
    async def finish(self) -> None:
        """Clean up after the last request."""

    @abstractmethod
    def tick(self, now: float) -> None:
        """Do what is due twice a second and stamp the heartbeat; *now* is the loop's time."""

    def end(self) -> None:
        """Nothing is left to do but `finish`."""
        self._ended.set()

    def _call(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
            self.loop.call_soon_threadsafe(callback)

    async def _live(self) -> int:
        thread_sensitive.mark_contexts(self.loop)
        self.loop.add_reader(self._channel.fileno(), self._obey)
        if threading.current_thread() is threading.main_thread():
            self.loop.add_signal_handler(signal.SIGTERM, self._terminate)
            forks.keep_handler(signal.SIGTERM)
        self._tick()
        try:
            if await self._completes(self.start()):
                self._channel.send(Ready())
                await self._ended.wait()
                await self.finish()
                await _end_tasks()
                self.tick(self.loop.time())
        finally:
            self.loop.remove_reader(self._channel.fileno())
        with contextlib.suppress(ChannelClosed):
            self._channel.send(Done())
        return 0

    async def _completes(self, step: Coroutine[Any, Any, None]) -> bool:
        """Run *step* unless the worker is told to end meanwhile; false if it was."""
        task = asyncio.create_task(step)
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
        for each in (task, ended):
            each.cancel()
        if task.done():
            await task
            return True
        await asyncio.wait((task,))
        return False

    def _obey(self) -> None:
        try:
            for message in self._channel.receive():
                if isinstance(message, Serve):
                    self._serving = True
                    self.serve()
                elif isinstance(message, Drain):
                    self.stopping = message.stopping
                    self._drain(hand_over=message.hand_over)
                elif isinstance(message, Stop):
                    self.draining = True
                    self.stop(message.grace)
                elif isinstance(message, Reopen):
                    log.reopen_access_log()
                elif isinstance(message, Ended):
                    self.loop.run_in_executor(None, self._tell_of, message)
        except ChannelClosed:
            # The supervisor is gone, and the kernel ends this process with it.
            self.loop.remove_reader(self._channel.fileno())
            self._drain()

    def _drain(self, *, hand_over: bool = False) -> None:
        self.draining = True
        if self._alone is not None:
            self._alone.cancel()
        self.drain(hand_over=hand_over)

    def _terminate(self) -> None:
        if self.draining:
            self.stop(_GRACE)
        else:
            self._leave()

    def _leave(self) -> None:
        """Drain, though the supervisor has not asked for it: tell it, so that it fills the place.

        Its own command to drain follows. That says whether another worker goes on with the
        connections, so it is waited for, but not for long.
        """
        if self.draining:
            return
        self.draining = True
        try:
            if self._serving:
                self._channel.send(Leaving())
        except ChannelClosed:
            self._serving = False
        if self._serving:
            self._alone = self.loop.call_later(_ANSWER, self._drain)
        else:
            self._drain()

    def _tick(self) -> None:
        # First the next one: an error in this one, which the loop tells of, is no hang.
        self.loop.call_later(TICK, self._tick)
        log.flush()
        with contextlib.suppress(ChannelClosed):  # `_obey` hears of that, too
            self._channel.flush()
        self.tick(self.loop.time())

    def _fail(self, reason: str, exit_code: int) -> int:
        with contextlib.suppress(ChannelClosed):  # nobody may be left to be told
            self._channel.send(Failed(reason, exit_code))
        return exit_code


async def _end_tasks() -> None:
    """Cancel what the application has left on this loop, and wait for it.

    A task that ignores that is the supervisor's to end, with the worker.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
