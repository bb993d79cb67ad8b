"""Where requests' contents wait until a thread takes them, and how much room that may take."""

import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from math import inf

from pounce.config.service import ServerConfig
from pounce.events.loggers import get_logger
from pounce.events.seldom import Seldom

logger = get_logger("pounce.worker")

MEMORY = 65_536
"""How much of a content is kept in memory; more goes to a temporary file."""

LARGEST = 134_217_728
"""The largest content that is stored where the configuration names no other."""


class NotStored(Exception):
    """A content cannot be stored; the client is told *status* and *reason*."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def bounded(config: ServerConfig) -> ServerConfig:
    """*config* for a worker that stores contents: there is always a largest one."""
    if config.max_body_size:
        return config
    return replace(config, max_body_size=min(LARGEST, config.max_stored_size or LARGEST))


def storage_of(config: ServerConfig) -> "Storage":
    """What a worker's contents share: at least one of the largest has room there."""
    most = config.max_stored_size
    return Storage(most and max(most, config.max_body_size))


class Storage:
    """The room that a worker's contents share, beside what each has in memory.

    It is *most* bytes; 0 is without a limit. The loop takes room, and threads give it back.
    """

    def __init__(self, most: int) -> None:
        self._most = most or inf
        self._taken = 0
        self._seldom_full, self._seldom_failed = Seldom(), Seldom()
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        """How many bytes of room are taken."""
        return self._taken

    def take(self, size: int) -> None:
        """Take room for *size* bytes; raises NotStored where there is none."""
        with self._lock:
            if self._taken + size <= self._most:
                self._taken += size
                return
        if self._seldom_full.is_due():
            logger.warning(
                "request bodies that wait for threads take up max_stored_size (%d bytes); "
                "requests with more are answered 503",
                self._most,
            )
        raise NotStored(503, "too much content is waiting here")

    def fail(self, error: OSError) -> NotStored:
        """What to raise where the system has no room for a content; the log is told why."""
        if self._seldom_failed.is_due():
            logger.error(
                "request bodies cannot be stored in %s: %s; requests with one are answered 507 "
                "(TMPDIR in [environment] names another directory)",
                tempfile.tempdir or "any directory for temporary files",
                error,
            )
        # RFC 4918 section 11.5. Unlike a 503, it will hardly be better in a second.
        return NotStored(507, "there is no room for the content")

    def give_back(self, size: int) -> None:
        """Give room for *size* bytes back. Callable from any thread."""
        with self._lock:
            self._taken -= size


class StoredContent(tempfile.SpooledTemporaryFile[bytes]):
    """A content that takes room in *storage* for all that is not in memory, until it is closed."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(MEMORY)
        self._storage = storage
        self._room = 0

    def add(self, data: bytes) -> None:
        """Append *data*; raises NotStored."""
        size = self.tell() + len(data)
        if size > MEMORY:
            self._storage.take(size - self._room)
            self._room = size
        try:
            self.write(data)
        except OSError as error:
            raise self._storage.fail(error) from error

    def finish(self) -> int:
        """Go back to the beginning; returns the size. Raises NotStored."""
        size = self.tell()
        try:
            self.seek(0)  # which writes what is still buffered
        except OSError as error:
            raise self._storage.fail(error) from error
        return size

    def close(self) -> None:
        """Let the content go, at once: its file has no name."""
        with suppress(OSError):  # what could not be written before cannot be now
            super().close()
        room, self._room = self._room, 0
        self._storage.give_back(room)
