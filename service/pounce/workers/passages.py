"""A worker's two sides of the handover: connections that come, and connections that go."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from pounce.events.loggers import get_logger
from pounce.http.connections import Movable
from pounce.ipc.handover import PAUSE, Crowded, Handover, Passage
from pounce.workers.acceptor import Source

logger = get_logger("pounce.worker")


class Arrivals(Source):
    """Takes connections of older generations while this worker serves."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handover: Handover,
        is_my_turn: Callable[[], bool],
        take: Callable[[socket.socket, Passage], None],
    ) -> None:
        super().__init__(loop, handover.incoming, is_my_turn)
        self._handover = handover
        self._take = take

    def take_one(self) -> None:
        """Take one out of the queue."""
        taken = self._handover.take()
        if taken is not None:
            self._take(*taken)


class Departures:
    """Gives away connections while this worker drains."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handover: Handover) -> None:
        self._loop = loop
        self._handover = handover
        self._leaving: deque[Movable] = deque()

    def hand_over(self, connection: Movable) -> None:
        """Give *connection* away as soon as there is room for it."""
        self._leaving.append(connection)
        if len(self._leaving) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._leaving:
            connection = self._leaving[0]
            if not connection.gone and not self._give(connection):
                return
            self._leaving.popleft()
        self._loop.remove_writer(self._handover.outgoing)

    def _give(self, connection: Movable) -> bool:
        """Give *connection* away, if possible; if not, `_flush` is called when it may be."""
        try:
            given = self._handover.give(connection.descriptor, connection.passage())
        except Crowded:
            self._loop.remove_writer(self._handover.outgoing)
            self._loop.call_later(PAUSE, self._flush)
            return False
        except OSError as error:  # the others must not wait behind it
            logger.warning("a connection is lost, it cannot be handed over: %s", error)
            connection.abort()
            return True
        if given:
            connection.depart()
        else:
            self._loop.add_writer(self._handover.outgoing, self._flush)
        return given
