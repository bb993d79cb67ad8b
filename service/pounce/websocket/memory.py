"""What the messages of all WebSockets of one worker may take together."""

from typing import Protocol

from pounce.events.loggers import get_logger

logger = get_logger("pounce.worker")


class Holder(Protocol):
    """A WebSocket that holds messages."""

    def give_up(self) -> None:
        """Close, and drop all messages; it ends with a `hold` of nothing."""


class MessageMemory:
    """Counts what is held, and has the one that holds most give up where all hold too much.

    Whoever comes last may be anybody. The one with most is hardly one of many that behave: those
    hold little at a time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[Holder, int] = {}
        self._total = 0
        self._told = False

    @property
    def total(self) -> int:
        """How many bytes all hold."""
        return self._total

    def hold(self, holder: Holder, size: int) -> None:
        """*holder* holds *size* bytes now."""
        self._total += size - self._held.pop(holder, 0)
        if size:
            self._held[holder] = size
        if self._total > self._limit:
            self._tell()
            max(self._held, key=self._held.__getitem__).give_up()
        elif self._total < self._limit // 2:
            self._told = False

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            logger.warning(
                "WebSocket messages take more than %d bytes; where that is so, the connection that "
                "holds most is closed with 1013 (websocket_max_memory)",
                self._limit,
            )
