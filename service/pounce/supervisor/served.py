"""The sockets that a service serves, and how it serves each of them."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ssl import SSLContext

from pounce.config.service import DEFAULT_LISTEN, Listen
from pounce.events.lifecycle import H3_SLOTS
from pounce.supervisor.h3 import H3
from pounce.supervisor.sockets import group_by_address, share
from pounce.workers import Endpoint


class ServedSockets:
    """Stream *sockets*, and those of *h3*.

    By descriptor, *entries* say how a socket is served, and *ssl_contexts* by which TLS context;
    *default* is the context of sockets without an entry. Whoever made these mappings may change
    them: a generation gets what they say when it begins. *own* are the sockets that a stop closes.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        h3: H3 | None,
        entries: Mapping[int, Listen],
        ssl_contexts: Mapping[int, SSLContext],
        default: SSLContext | None,
        own: Sequence[socket.socket],
    ) -> None:
        self.own = own
        self.groups = group_by_address(sockets)
        self.h3 = h3
        self._entries = entries
        self._ssl_contexts = ssl_contexts
        self._default = default

    @property
    def largest_group(self) -> int:
        """How many stream sockets share one address; 1 where each has an address of its own."""
        return max(map(len, self.groups), default=1)  # there may be UDP sockets alone

    def of(self, slot: int, size: int, h3_size: int) -> list[socket.socket]:
        """The sockets of the worker in *slot*, of *size* workers and *h3_size* for HTTP/3."""
        if self.h3 and slot >= H3_SLOTS:
            return self.h3.share(slot - H3_SLOTS, h3_size)
        return share(self.groups, slot, size)

    def endpoints(self) -> dict[int, Endpoint]:
        """How each socket is to be served by a generation that begins now, by descriptor."""
        sockets = [sock for group in self.groups for sock in group] + self._datagram
        return {sock.fileno(): self._endpoint(sock) for sock in sockets}

    @property
    def _datagram(self) -> list[socket.socket]:
        return [sock for group in (self.h3.groups if self.h3 else ()) for sock in group]

    def _endpoint(self, sock: socket.socket) -> Endpoint:
        descriptor = sock.fileno()
        entry = self._entries.get(descriptor)
        default = None if entry else self._default
        if entry and entry.http3 and not self._has_datagrams(entry):
            # Clients must not be told of HTTP/3 (Alt-Svc) where no UDP socket serves it.
            entry = replace(entry, http3=False)
        context = self._ssl_contexts.get(descriptor, default)
        return Endpoint(entry or DEFAULT_LISTEN, context, closes=sock in self.own)

    def _has_datagrams(self, entry: Listen) -> bool:
        return any(self._entries.get(sock.fileno()) == entry for sock in self._datagram)
