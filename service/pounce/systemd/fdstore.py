"""What outlives a restart: the file descriptor store (FileDescriptorStoreMax=, systemd.service(5)).

Idle client connections are put there when the service stops, with a note of what is known
of them, and the next run gets all of it back. Memory (memfd_create(2)) is put there while it
runs, so that it outlives a crash as well. systemd holds each descriptor open until it is told to
forget it, or until the peer hangs up.
"""

import base64
import json
import os
import select
import socket
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pounce.handover import Passage
from pounce.systemd.activation import STORED
from pounce.systemd.notify import SystemdNotifier

_CONNECTION = f"{STORED}connection"
_NOTE = f"{STORED}note"

# Milliseconds to wait, at the end, until systemd has taken everything.
_PATIENCE_MS = 5000


class ConnectionStore:
    """The store's side of a handover; *stored* is what an earlier run has left there."""

    def __init__(self, notifier: SystemdNotifier, stored: Sequence[tuple[str, int]]) -> None:
        self._notifier = notifier
        self._passages: dict[str, dict[str, Any]] = {}
        self._stored = stored
        note = next((_read(each) for name, each in stored if name == _NOTE), {})
        self._known: dict[str, dict[str, Any]] = note.get("passages", {})

    def recall(self, name: str) -> int | None:
        """The descriptor of the memory that was stored as *name*; it is the caller's."""
        return next((each for stored, each in self._stored if stored == STORED + name), None)

    def remember(self, name: str, descriptor: int) -> None:
        """Store the memory behind *descriptor*, instead of what there is as *name*."""
        self._store(STORED + name, descriptor)

    def recover(self) -> list[tuple[socket.socket, Passage]]:
        """The connections that were stored. They stay in the store until `forget`."""
        found = []
        for name, descriptor in self._stored:
            if name == _CONNECTION:
                connection = socket.socket(fileno=descriptor)
                try:
                    found.append((connection, self._passage(connection)))
                except OSError:  # the client has left meanwhile
                    connection.close()
        return found

    def forget(self) -> None:
        """Have systemd close its copies: workers own the connections now."""
        if self._stored:
            for name in (_CONNECTION, _NOTE):
                self._notifier.send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def keep(self, connection: socket.socket, passage: Passage) -> None:
        """Store *connection* and close it here."""
        self._passages[_identity(connection.fileno())] = _encode(passage)
        self._notifier.send(f"FDSTORE=1\nFDNAME={_CONNECTION}", [connection.fileno()])
        connection.close()

    def finish(self) -> None:
        """Store what is known of the connections, and wait until systemd has all of it."""
        descriptor = os.memfd_create(_NOTE)
        with os.fdopen(descriptor, "w") as file:
            json.dump({"passages": self._passages}, file)
            file.flush()
            self._store(_NOTE, descriptor)
        self._wait()

    def _store(self, name: str, descriptor: int) -> None:
        self._notifier.send(f"FDSTOREREMOVE=1\nFDNAME={name}")
        self._notifier.send(f"FDSTORE=1\nFDNAME={name}", [descriptor])

    def _passage(self, connection: socket.socket) -> Passage:
        try:
            return _decode(self._known[_identity(connection.fileno())])
        except (KeyError, TypeError, ValueError):
            # The earlier run ended before it could leave its note, or was of a version that
            # knew other things.
            return _guess(connection)

    def _wait(self) -> None:
        # sd_notify_barrier(3): systemd closes the pipe when it has read all that came before.
        reader, writer = os.pipe()
        self._notifier.send("BARRIER=1", [writer])
        os.close(writer)
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


def _encode(passage: Passage) -> dict[str, Any]:
    return {**asdict(passage), "received": base64.b64encode(passage.received).decode()}


def _decode(about: dict[str, Any]) -> Passage:
    addresses = {
        name: tuple(about[name]) if about[name] is not None else None
        for name in ("server", "client")
    }
    return Passage(**{**about, **addresses, "received": base64.b64decode(about["received"])})


def _guess(connection: socket.socket) -> Passage:
    """What the socket itself tells."""
    server, client = connection.getsockname(), connection.getpeername()
    if connection.family == socket.AF_UNIX:
        return Passage("http", (server, None), None, 1)
    return Passage("http", server[:2], client[:2], 1)


def _read(descriptor: int) -> dict[str, Any]:
    """The note; empty if it was not written to its end."""
    with os.fdopen(descriptor, "r") as file:
        file.seek(0)
        try:
            note: dict[str, Any] = json.load(file)
        except ValueError:
            return {}
        return note
