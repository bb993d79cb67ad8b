"""The fields every response has unless the application sets them or an option turns them off."""

import time
from email.utils import formatdate

from pounce.config import ServerConfig

SERVER = b"pounce"


class DefaultHeaders:
    """``Server`` and ``Date``, made once a second for all connections of a worker.

    *server*, *date* and *both* hold finished HTTP/1.1 lines, empty where the configuration says
    so; call `refresh` before reading the last two.
    """

    __slots__ = ("_until", "_with_date", "both", "date", "server")

    def __init__(self, config: ServerConfig) -> None:
        self._with_date = config.date_header
        self._until = 0.0
        self.server = b"server: %b\r\n" % SERVER if config.server_header else b""
        self.date = b""
        self.both = self.server

    def refresh(self) -> None:
        """Bring the date up to the present second (RFC 9110 section 6.6.1)."""
        now = time.time()
        # The clock may be set back, too.
        if self._with_date and not self._until - 1 <= now < self._until:
            self._until = int(now) + 1
            self.date = b"date: %b\r\n" % formatdate(int(now), usegmt=True).encode("ascii")
            self.both = self.server + self.date
