"""Closing the service's own listeners at a stop: new clients are refused from then on.

Every worker holds the listeners too, and so may programs that the application has started. So a
listener is not only closed here: it is told to listen no more (shutdown(2)), which is true of the
socket itself, whoever holds it. For TCP that resets the connections that wait in its queue, so
workers take those first, and meanwhile the kernel adds none. A worker that is stuck takes none, and
new clients would wait with it, so workers have a second for that.

The workers for HTTP/3 refuse new clients themselves, and need their UDP sockets for the clients
they have. Once the last of these workers has ended, the kernel refuses whoever still comes.
"""

import ctypes
import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from pounce.loop import Loop, Timer

# Seconds between two looks at the queues.
_STEP = 0.02

# Seconds that workers have for the queues. A client's next attempt comes after a second, too (the
# first retransmission of its SYN, RFC 6298), and is refused then.
_PATIENCE = 1.0

_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>; Python has no name for it

# A classic BPF program (<linux/filter.h>) on each TCP header that the listener gets: drop what
# has SYN without ACK, which begins a connection, and let everything else pass.
_NO_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x54, 0, 0, 0x12),  # and it with SYN | ACK
        (0x15, 0, 1, 0x02),  # skip one unless it is SYN
        (0x06, 0, 0, 0),  # drop the packet
        (0x06, 0, 0, 0xFFFFFFFF),  # keep the packet
    )
)


class Closing:
    """Closes *listeners*; `begin` before workers are told to empty the queues."""

    def __init__(self, loop: Loop, listeners: Sequence[socket.socket]) -> None:
        self._loop = loop
        self._left = [sock for sock in listeners if sock.type == socket.SOCK_STREAM]
        self._datagram = [sock for sock in listeners if sock.type == socket.SOCK_DGRAM]
        self._timer: Timer | None = None
        self._deadline = 0.0

    def begin(self, *, wait: bool) -> None:
        """Let the kernel take in no more connections; with *wait*, workers take those it has."""
        if self._timer is not None:
            return
        # A program may have closed its own listeners already.
        self._left = [sock for sock in self._left if sock.fileno() >= 0]
        self._deadline = self._loop.now + _PATIENCE
        for sock in self._left:
            _take_in_no_more(sock)
        if wait:
            self._timer = self._loop.call_later(0.0, self._look)
        else:
            self.finish()

    def refuse_datagrams(self) -> None:
        """No worker reads the UDP sockets any more: have the kernel say so (ICMP, udp(7))."""
        for sock in self._datagram:
            _hear_nobody(sock)

    def finish(self) -> None:
        """Refuse from now on, whatever waits."""
        if self._timer is not None:
            self._timer.cancel()
        self._close(self._left)
        self.refuse_datagrams()

    def _look(self) -> None:
        """Close those whose queue is empty, or all of them when the time is over."""
        waiting = _with_a_queue(self._left) if self._loop.now < self._deadline else []
        self._close([sock for sock in self._left if sock not in waiting])
        if self._left:
            self._timer = self._loop.call_later(_STEP, self._look)

    def _close(self, listeners: Sequence[socket.socket]) -> None:
        for sock in listeners:
            with suppress(OSError):  # some sandboxes that imitate Linux cannot
                sock.shutdown(socket.SHUT_RDWR)
        self._left = [sock for sock in self._left if sock not in listeners]


def _with_a_queue(listeners: Sequence[socket.socket]) -> list[socket.socket]:
    """Those of *listeners* on which a connection waits; one that is closed has none."""
    open_ones = {sock.fileno(): sock for sock in listeners if sock.fileno() >= 0}
    poll = select.poll()
    for descriptor in open_ones:
        poll.register(descriptor, select.POLLIN)
    return [open_ones[descriptor] for descriptor, _ in poll.poll(0)]


def _take_in_no_more(sock: socket.socket) -> None:
    with suppress(OSError):
        if sock.family == socket.AF_UNIX:
            # Connecting fails from now on; what waits can still be accepted (unix_stream_connect
            # in net/unix/af_unix.c).
            sock.shutdown(socket.SHUT_RD)
        else:
            program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
            count = len(_NO_SYN) // struct.calcsize("HBBI")
            about = struct.pack("HP", count, ctypes.addressof(program))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, about)


def _hear_nobody(sock: socket.socket) -> None:
    """Connect *sock* to itself: the kernel then takes no datagrams for it from others (udp(7))."""
    with suppress(OSError):  # it is closed already
        host, *rest = sock.getsockname()
        # An address for every interface is nobody's own.
        own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with
        sock.connect((own, *rest))
