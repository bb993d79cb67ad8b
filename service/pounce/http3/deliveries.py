"""Complete responses on their way to the client."""

from collections.abc import Callable
from math import inf


class Deliveries:
    """The streams of one connection whose response is complete, but not yet acknowledged.

    *undelivered* tells how many bytes of a stream the client has not acknowledged. A client that
    acknowledges nothing more of a response for *patience* seconds is given up, as HTTP/1.1 does
    by write_timeout.
    """

    __slots__ = ("_left", "_patience", "_undelivered")

    def __init__(self, undelivered: Callable[[int], int], patience: float) -> None:
        self._undelivered = undelivered
        self._patience = patience
        # By stream: the undelivered bytes at the last sweep, when they must have become less, and
        # how long that may take.
        self._left: dict[int, tuple[float, float, float]] = {}

    def __len__(self) -> int:
        return len(self._left)

    def add(self, stream_id: int, patience: float | None) -> None:
        """The response on this stream is complete; nothing is kept if it has arrived already.

        *patience* is there where it is not that of other streams.
        """
        if self._undelivered(stream_id):
            own = self._patience if patience is None else patience
            self._left[stream_id] = (inf, inf, own)

    def confirm(self) -> None:
        """Forget the responses that the client has acknowledged, or that either side gave up."""
        for stream_id in [each for each in self._left if not self._undelivered(each)]:
            del self._left[stream_id]

    def stalled(self, now: float) -> list[int]:
        """The streams that no acknowledgement has moved for too long; *now* is the loop's time."""
        stalled = []
        for stream_id, (before, deadline, patience) in self._left.items():
            left = self._undelivered(stream_id)
            if left < before:
                self._left[stream_id] = (left, now + patience, patience)
            elif now >= deadline:
                stalled.append(stream_id)
        return stalled
