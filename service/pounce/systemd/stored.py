"""Judging what the descriptor store has given back, before anything of it is believed.

Another program, or another version of pounce, may have stored anything. The store outlives
restarts, so what is of no use is dropped with a warning, and the service starts without it.
"""

import base64
import json
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pounce.events.loggers import get_logger
from pounce.ipc.handover import MEMORIES, Passage
from pounce.net.host import unix_path
from pounce.systemd.activation import STORED

CONNECTION = f"{STORED}connection"
NOTE = f"{STORED}note"

_MEMORIES = (NOTE, *(f"{STORED}{name}" for name in MEMORIES))
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)

# Bytes. Sixteen thousand connections, systemd's default limit in pounce@.service, take a tenth.
_LARGEST_NOTE = 64 * 1024 * 1024

logger = get_logger("pounce.server")


class Stored:
    """What of *descriptors*, pairs of a name and a number, is what it should be.

    `connections` and `memories` have these, and `refused` the names of the rest, which is closed.
    """

    def __init__(self, descriptors: Iterable[tuple[str, int]]) -> None:
        self.connections: list[int] = []
        self.memories: dict[str, int] = {}
        refused: Counter[tuple[str, str]] = Counter()
        for name, descriptor in descriptors:
            if problem := self._place(name, descriptor):
                refused[name, problem] += 1
                with suppress(OSError):  # it may not even be open
                    os.close(descriptor)
        for (name, problem), count in refused.items():
            logger.warning("dropped from the descriptor store: %d as %s, %s", count, name, problem)
        self.refused = {name for name, _ in refused}

    def _place(self, name: str, descriptor: int) -> str:
        """Keep *descriptor*; if it is of no use, say why."""
        problem = _problem(name, descriptor)
        if not problem and name in self.memories:
            problem = "one too many"
        if not problem and name == CONNECTION:
            self.connections.append(descriptor)
        elif not problem:
            self.memories[name] = descriptor
        return problem


def read_note(descriptor: int) -> dict[str, Any]:
    """What is known of the connections, by their sockets' inodes; closes *descriptor*.

    It is empty, with a warning, where there is no such note.
    """
    try:
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            note = json.loads(file.read(_LARGEST_NOTE))
    # A disk's error; cut short; or nested more deeply than Python's stack.
    except (OSError, ValueError, RecursionError):
        note = None
    passages = note.get("passages") if isinstance(note, dict) else None
    if not isinstance(passages, dict):
        logger.warning("the descriptor store's note of the connections cannot be read")
        return {}
    return passages


def encode(passage: Passage) -> dict[str, Any]:
    """*passage* for the note."""
    return {**asdict(passage), "received": base64.b64encode(passage.received).decode()}


def decode(about: Any) -> Passage:
    """The passage that the note tells *about*.

    Raises KeyError, TypeError or ValueError where it does not.
    """
    passage = Passage(
        **{
            **about,
            "server": _address(about["server"]),
            "client": _address(about["client"]),
            "received": base64.b64decode(about["received"], validate=True),
        }
    )
    count = passage.requests
    if passage.scheme not in ("http", "https") or type(count) is not int or count < 0:
        raise ValueError("no passage")
    if passage.client is not None and passage.client[1] is None:
        raise ValueError("a client has a port")
    return passage


def guess(connection: socket.socket) -> Passage:
    """What *connection* itself tells; raises OSError where the client has left."""
    server, client = connection.getsockname(), connection.getpeername()
    if connection.family == socket.AF_UNIX:
        return Passage("http", (unix_path(server), None), None, 1)
    return Passage("http", server[:2], client[:2], 1)


def _problem(name: str, descriptor: int) -> str:
    try:
        kind = os.fstat(descriptor).st_mode
    except OSError as error:
        return str(error.strerror)
    if name in _MEMORIES:
        return _problem_of_memory(kind, descriptor)
    if name != CONNECTION:
        return "which is not pounce's"
    if not stat.S_ISSOCK(kind):
        return "which is no socket"
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:  # opened by the socket's path, with O_PATH: no operation works
        return str(error.strerror)
    try:
        return _problem_of_connection(sock)
    finally:
        sock.detach()


def _problem_of_memory(kind: int, descriptor: int) -> str:
    if not stat.S_ISREG(kind):
        return "which is no memory"
    try:
        os.pread(descriptor, 1, 0)
    except OSError:  # opened with O_PATH or O_WRONLY (open(2))
        return "which cannot be read"
    return ""


def _problem_of_connection(sock: socket.socket) -> str:
    if sock.family not in _FAMILIES or sock.type != socket.SOCK_STREAM:
        return "which is another kind of socket"
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "which listens"
    return ""


def _address(value: Any) -> tuple[str, Any] | None:
    if value is None:
        return None
    host, port = value
    if not isinstance(host, str) or type(port) not in (int, type(None)):
        raise ValueError("no address")
    return host, port
