"""Noticing that a service has no clients, for `idle_exit`."""

from collections.abc import Collection

from pounce.ipc.scoreboard import Row
from pounce.loop import Loop


class Idling:
    """Since when nobody has used the service, as far as its workers' rows tell.

    A row tells of every connection at once, and of work without one at the worker's next beat. Who
    comes and leaves between two looks leaves a request, if that.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._since = loop.now
        self._requests = 0

    @property
    def seconds(self) -> float:
        """For how long nobody has used it."""
        return self._loop.now - self._since

    def begin(self) -> None:
        """Count anew: the service is used, or does something itself."""
        self._since = self._loop.now

    def look(self, rows: Collection[Row], past_requests: int) -> None:
        """Look at the workers' *rows*; call it regularly.

        *past_requests* were answered by workers that are gone.
        """
        requests = past_requests + sum(row.requests for row in rows)
        if requests != self._requests or any(row.occupied for row in rows):
            self.begin()
        self._requests = requests
