"""What outlives a restart: the file descriptor store (FileDescriptorStoreMax=, systemd.service(5)).

Idle client connections are put there when the service stops, with a note of what is known
of them, and the next run gets all of it back. Memory (memfd_create(2)) is put there while it
runs, so that it outlives a crash as well. systemd holds each descriptor open until it is told to
forget it, or until the peer hangs up.
"""

import json
import os
import select
import socket
from collections.abc import Sequence
from typing import Any

from pounce.events.loggers import get_logger
from pounce.ipc.handover import Passage
from pounce.systemd.activation import STORED
from pounce.systemd.notify import SystemdNotifier
from pounce.systemd.stored import CONNECTION, NOTE, Stored, decode, encode, guess, read_note

logger = get_logger("pounce.server")

# Milliseconds to wait, at the end, until systemd has taken everything.
_PATIENCE_MS = 5000


class ConnectionStore:
    """The store's side of a handover; *stored* is what an earlier run has left there."""

    def __init__(self, notifier: SystemdNotifier, stored: Sequence[tuple[str, int]]) -> None:
        self._notifier = notifier
        self._passages: dict[str, dict[str, Any]] = {}
        found = Stored(stored)
        self._memories = found.memories
        self._connections = found.connections
        self._had_any = bool(stored)
        note = self._memories.pop(NOTE, None)
        self._known = {} if note is None else read_note(note)
        # Good connections share their name with the refused ones, and leave with them: `forget`.
        for name in found.refused - {CONNECTION}:
            self._remove(name)

    def recall(self, name: str) -> int | None:
        """The descriptor of the memory that was stored as *name*; it is the caller's."""
        return self._memories.pop(STORED + name, None)

    def remember(self, name: str, descriptor: int) -> None:
        """Store the memory behind *descriptor*, instead of what there is as *name*."""
        self._store(STORED + name, descriptor)

    def recover(self) -> list[tuple[socket.socket, Passage]]:
        """The connections that were stored. They stay in the store until `forget`."""
        found = []
        for descriptor in self._connections:
            connection = socket.socket(fileno=descriptor)
            try:
                found.append((connection, self._passage(connection)))
            except OSError:  # the client has left meanwhile
                connection.close()
        return found

    def forget(self) -> None:
        """Have systemd close its copies: workers own the connections now."""
        if self._had_any:
            for name in (CONNECTION, NOTE):
                self._remove(name)

    def keep(self, connection: socket.socket, passage: Passage) -> None:
        """Store *connection* and close it here."""
        self._passages[_identity(connection.fileno())] = encode(passage)
        self._notifier.send(f"FDSTORE=1\nFDNAME={CONNECTION}", [connection.fileno()])
        connection.close()

    def finish(self) -> None:
        """Store what is known of the connections, and wait until systemd has all of it."""
        try:
            self._leave_note()
            self._wait()
        except OSError as error:  # no descriptor is left, say
            logger.warning("the next run will know less of idle connections: %s", error)

    def _leave_note(self) -> None:
        descriptor = os.memfd_create(NOTE)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"passages": self._passages}, file)
            file.flush()
            self._store(NOTE, descriptor)

    def _store(self, name: str, descriptor: int) -> None:
        self._remove(name)
        self._notifier.send(f"FDSTORE=1\nFDNAME={name}", [descriptor])

    def _remove(self, name: str) -> None:
        self._notifier.send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _passage(self, connection: socket.socket) -> Passage:
        try:
            return decode(self._known[_identity(connection.fileno())])
        except (KeyError, TypeError, ValueError):
            # The earlier run ended before it could leave its note, or was of a version that
            # knew other things.
            return guess(connection)

    def _wait(self) -> None:
        # sd_notify_barrier(3): systemd closes the pipe when it has read all that came before.
        reader, writer = os.pipe()
        self._notifier.send("BARRIER=1", [writer])
        os.close(writer)
        self._notifier.finish(_PATIENCE_MS / 1000)
        poll = select.poll()
        poll.register(reader, select.POLLHUP)
        poll.poll(_PATIENCE_MS)
        os.close(reader)


def descriptor_store_is_on() -> bool:
    """Whether the unit has a store: systemd says so from 254 on ($FDSTORE, systemd.exec(5))."""
    return os.environ.pop("FDSTORE", "0") not in ("", "0")


def _identity(descriptor: int) -> str:
    """The socket's inode: the same for every descriptor of one connection (socket(7))."""
    return str(os.fstat(descriptor).st_ino)
