"""The channel between the supervisor and one worker.

A pair of unix SOCK_SEQPACKET sockets: each send is one message, received whole or not at all,
and the end of either side is seen by the other as end of file (unix(7)). Process and thread
workers use the same channel.
"""

import json
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Self

from pounce.errors import is_shortage
from pounce.events.loggers import get_logger

logger = get_logger("pounce.supervisor")

# A message must fit the socket's send buffer (net.core.wmem_default, 208 KiB) even if every
# character takes six bytes, as an escaped control character does in JSON; a traceback longer
# than this loses its middle.
_MAX_TEXT = 34_000
_MAX_MESSAGE = 256 * 1024

# Where so many messages wait to be sent, nobody reads.
_MOST_WAITING = 1000


@dataclass(frozen=True, slots=True)
class Serve:
    """Down: start accepting."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Down: accept nothing new, finish what is here, then end.

    *hand_over*: connections between requests go to the generation that serves now, or to the
    service manager, instead of being closed. *stopping*: nobody serves meanwhile, so whoever is
    only connected is not waited for.
    """

    hand_over: bool
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Down: handlers are told that their clients are gone, and end within *grace* seconds."""

    grace: float


@dataclass(frozen=True, slots=True)
class Reopen:
    """Down: the access log's file may have been moved; open it anew."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Down: another worker's process has ended, and the application wants to hear of it."""

    pid: int
    worker: str
    generation: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Up: application imported, lifespan started, listeners attached."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Up: the worker could not start; *reason* is for a person, *exit_code* for the service."""

    reason: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """Up: the worker drains because somebody else than the supervisor has told it to."""


@dataclass(frozen=True, slots=True)
class Done:
    """Up: the lifespan has ended; the loop turns no more, but the application's threads may run."""


Message = Serve | Drain | Stop | Reopen | Ended | Ready | Failed | Leaving | Done

_TYPES: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (Serve, Drain, Stop, Reopen, Ended, Ready, Failed, Leaving, Done)
}


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel:
    """One end of a channel. Neither sending nor receiving ever blocks."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unsent: deque[bytes] = deque()

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """The supervisor's end and the worker's end."""
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in ends:
            end.setblocking(False)
        return cls(ends[0]), cls(ends[1])

    def fileno(self) -> int:
        """The descriptor to wait on; readable when there is a message or the other side ended."""
        return self._sock.fileno()

    def send(self, message: Message) -> None:
        """Send *message*; raises ChannelClosed when nobody can read it any more.

        Where there is no room or no memory for it now, it waits for `flush`.
        """
        body = {"type": type(message).__name__, **asdict(message)}
        if "reason" in body:
            body["reason"] = _shortened(body["reason"])
        text = json.dumps(body, ensure_ascii=False)
        self._unsent.append(text.encode(errors="backslashreplace"))
        self.flush()

    @property
    def waiting(self) -> int:
        """How many messages wait to be sent."""
        return len(self._unsent)

    def flush(self) -> None:
        """Send what waits, in its order; raises ChannelClosed."""
        try:
            while self._unsent:
                self._sock.send(self._unsent[0])
                self._unsent.popleft()
        except OSError as error:
            if not is_shortage(error) or len(self._unsent) > _MOST_WAITING:
                raise ChannelClosed(str(error)) from error

    def receive(self) -> Iterator[Message]:
        """Yield the messages that have arrived.

        Raises ChannelClosed at the end of the other side, and where something else than that has
        written: an application has this descriptor in its process.
        """
        while True:
            try:
                data = self._sock.recv(_MAX_MESSAGE)
            except OSError as error:
                if is_shortage(error):
                    return
                raise ChannelClosed(str(error)) from error
            if not data:
                raise ChannelClosed("end of file")
            yield _parse(data)

    def close(self) -> None:
        """Close this end."""
        self._sock.close()


def _parse(data: bytes) -> Message:
    try:
        fields = json.loads(data)
        return _TYPES[fields.pop("type")](**fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        logger.warning("a channel is closed: %r is no message on it", data[:100])
        raise ChannelClosed("no message") from error


def _shortened(text: str) -> str:
    if len(text) <= _MAX_TEXT:
        return text
    half = _MAX_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
