"""The threads of a worker that run blocking code."""

import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, Protocol

from pounce.threads import thread_sensitive
from pounce.threads.exchange import Exchange
from pounce.threads.handler import Handler
from pounce.threads.queue import Left, RequestQueue, Seat


class Employer(Protocol):
    """Who has started a worker."""

    def step_aside(self, worker: "SyncWorker") -> None:
        """*worker* is going to wait for a client; callable from its thread."""


class SyncWorker:
    """A thread that takes requests from *queue* and has *handler* answer them, one at a time.

    `current` is the one it is on, and `done` how many it has done. With `retired` the current
    one is its last: another thread has taken its place.

    It is a pounce.workers.TCPWorker whose connections are kept by the loop of its owner.
    """

    def __init__(
        self,
        queue: RequestQueue[Exchange],
        handler: Handler,
        name: str,
        owner: Employer,
    ) -> None:
        self.name = name
        self.current: Exchange | None = None
        self.done = 0
        self.retired = False
        self._noticed: tuple[Exchange | None, int, float] = (None, 0, 0.0)
        self._owner = owner
        self._queue = queue
        self._handler = handler.of_thread()
        self._answer = self._handler.answer
        self._seat = Seat()
        self._join = thread_sensitive.joining()
        # A daemon: nothing can end a thread that is stuck, and nobody is to wait for it.
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._seat.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stuck_for(self, now: float) -> float:
        """For how many seconds it has been on one request, or one piece of its response.

        It is known as far as was noticed, and asking is noticing: no request pays for a look at
        the clock.
        """
        current = self.current
        steps = current.steps if current is not None else 0
        if current is None or self._noticed[0] is not current or self._noticed[1] != steps:
            self._noticed = current, steps, now
        return now - self._noticed[2]

    def stack(self) -> str:
        """Where the thread stands."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - no other way
        return "".join(traceback.format_stack(frame)) if frame else ""

    def step_aside(self) -> None:
        """It is going to wait for a client: have another thread take its place."""
        if not self.retired:
            self._owner.step_aside(self)

    def set_lifespan_state(self, state: dict[str, Any]) -> None:
        """Nothing to keep: each request brings the state with it."""

    def start_draining(self) -> None:
        """Finish the current request, take no other, end. Callable from any thread."""
        self.retired = True
        self._queue.leave(self._seat)

    def is_idle(self) -> bool:
        """Whether it is on no request."""
        return self.current is None

    def run(self) -> int:
        """Answer requests until it drains; what its thread does."""
        self._join()
        with suppress(Left):
            while not self.retired:
                exchange = self._queue.take(self._seat)
                self.current = exchange
                exchange.run(self._answer, self)
                self.current = None
                self.done += 1
                del exchange  # it keeps a connection, and what the application made
        self._seat.close()
        self._handler.leave()
        return 0
