"""What one generation of workers is made from."""

import socket
from dataclasses import dataclass

from pounce.config.listener import Listen
from pounce.config.service import ServerConfig
from pounce.events.loggers import Routing
from pounce.net.tls import TLS


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket that is served: as *entry* says and, where that has certificates, with *tls*.

    *closes* is whether a stop closes it: nobody comes later for what waits in its queue.
    """

    sock: socket.socket
    entry: Listen
    tls: TLS | None = None
    closes: bool = False

    @property
    def is_stream(self) -> bool:
        """Whether connections are accepted from it; the others are the UDP sockets of HTTP/3."""
        return self.sock.type == socket.SOCK_STREAM

    @property
    def is_quic(self) -> bool:
        """Whether HTTP/3 is served on it."""
        return not self.is_stream and self.tls is not None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one generation is made from, and whoever is started for it later.

    Preparing one changes nothing that serves. *log* is None where a program that embeds the service
    writes its records.
    """

    config: ServerConfig
    listeners: tuple[Listener, ...]
    log: Routing | None = None
