"""Connections, and the scoreboard's counts, on their way between two runs of the service."""

import os
import select
import socket
from collections import deque
from collections.abc import Collection

from pounce.events.loggers import get_logger
from pounce.ipc.handover import PAUSE, SCOREBOARD, Crowded, Handover, Keeper, Passage
from pounce.ipc.scoreboard import Scoreboard
from pounce.loop import Loop, Timer

logger = get_logger("pounce.supervisor")

Kept = tuple[socket.socket, Passage]


class Keeping:
    """Feeds an earlier run's connections into the handover, and keeps this run's at its end.

    The workers' side is the same as in a reload: connections come out of the handover when
    they begin to serve, and go into it when they drain.
    """

    def __init__(
        self, loop: Loop, handover: Handover, scoreboard: Scoreboard, keeper: Keeper
    ) -> None:
        self._loop = loop
        self._handover = handover
        self._scoreboard = scoreboard
        self._keeper = keeper
        self._recovered: deque[Kept] = deque(keeper.recover())
        self._feeding = False
        self._pause: Timer | None = None
        earlier = keeper.recall(SCOREBOARD)
        if earlier is not None:
            try:
                scoreboard.carry_on(earlier)
            except (OSError, ValueError) as error:
                logger.warning("the earlier run's counts are lost, its scoreboard: %s", error)
            finally:
                os.close(earlier)

    def begin(self) -> None:
        """Workers serve: give them the connections that were kept."""
        if self._recovered:
            self._recovered = deque(_waiting_first(self._recovered))
            self._start_feeding()
        self._keeper.forget()
        # From now on it counts; a run that never came so far has left the earlier one's.
        self._keeper.remember(SCOREBOARD, self._scoreboard.descriptor)

    def close_in_child(self) -> None:
        """Undo what a forked child has inherited: what it held, nobody else could close."""
        for connection, _ in self._recovered:
            connection.close()

    def end(self) -> None:
        """Workers drain: keep what they give away."""
        self._stop_feeding()
        self._loop.watch(self._handover.incoming, self._keep)

    def finish(self) -> None:
        """The last worker is gone."""
        while self._keep():
            pass
        for connection, passage in self._recovered:
            self._keeper.keep(connection, passage)
        self._loop.unwatch(self._handover.incoming)
        self._keeper.finish()

    def _start_feeding(self) -> None:
        self._feeding = True
        self._loop.watch_writable(self._handover.outgoing, self._feed)

    def _feed(self) -> None:
        while self._recovered:
            connection, passage = self._recovered[0]
            try:
                if not self._handover.give(connection.fileno(), passage):
                    return
            except Crowded:
                self._stop_feeding()
                self._pause = self._loop.call_later(PAUSE, self._start_feeding)
                return
            except OSError as error:  # the others must not wait behind it
                logger.warning("a kept connection is lost, it cannot be handed over: %s", error)
            connection.close()
            self._recovered.popleft()
        self._stop_feeding()

    def _stop_feeding(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        if self._feeding:
            self._feeding = False
            self._loop.unwatch(self._handover.outgoing)

    def _keep(self) -> bool:
        taken = self._handover.take()
        if taken is not None:
            self._keeper.keep(*taken)
        return taken is not None


def _waiting_first(connections: Collection[Kept]) -> list[Kept]:
    """Those first on which a request waits already: it has waited for the whole restart."""
    poll = select.poll()
    for connection, _ in connections:
        poll.register(connection, select.POLLIN)
    waiting = {descriptor for descriptor, _ in poll.poll(0)}
    return sorted(connections, key=lambda kept: kept[0].fileno() not in waiting)
