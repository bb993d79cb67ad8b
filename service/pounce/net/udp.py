"""UDP sockets, read and written in batches (udp(7), ip(7), ipv6(7))."""

import errno
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pounce.net.socket_filter import Program, attach, detach

# <linux/udp.h>; Python has no names for them. With UDP_SEGMENT one call sends many datagrams of
# one size, with UDP_GRO one call receives them.
_UDP_SEGMENT = 103
_UDP_GRO = 104
_SEGMENT = struct.Struct("H")
_GRO_SIZE = struct.Struct("i")
_MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS
_MAX_SIZE = 65_000  # less than what IP can carry, headers included

_IP_PKTINFO = 8  # <linux/in.h>; Python has the name since 3.14
_PKTINFO4 = struct.Struct("I4s4s")  # interface, local address, header's destination
_PKTINFO6 = struct.Struct("16sI")  # destination, interface
_ANCILLARY = 128

# As much as net.core.rmem_max and wmem_max allow: a reload must not overflow the queue.
_BUFFER = 4 * 1024 * 1024

Datagram = tuple[bytes, Any, Any]
"""What came, from whom, and to which of this machine's addresses (None: the socket's own)."""


class UDPPort:
    """A bound socket. Neither receiving nor sending ever blocks.

    On a socket that is bound to every interface, replies leave from the address that the client
    has sent to.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.reading = True
        """Whether `receive` may take more out of the kernel, which others may read as well."""
        self._buffer = memoryview(bytearray(65_536))
        self._segments = True
        self._empty = True
        self._filled = 0.0  # when something came to the empty queue
        self._prepare()

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._sock.fileno()

    def receive(self, most: int) -> Iterator[Datagram]:
        """What has come, of at most *most* calls to the kernel."""
        if self._empty:
            self._empty, self._filled = False, time.monotonic()
        for _ in range(most):
            if not self.reading:
                return
            try:
                size, ancillary, _, peer = self._sock.recvmsg_into([self._buffer], _ANCILLARY)
            except OSError:  # nothing more has come, or an ICMP error has (udp(7))
                self._empty = True
                return
            local, segment = _read_ancillary(ancillary)
            for start in range(0, size, segment or size or 1):
                end = min(size, start + segment) if segment else size
                yield bytes(self._buffer[start:end]), peer, local

    @property
    def backlog(self) -> float:
        """For how many seconds there has always been something to receive."""
        return 0.0 if self._empty else time.monotonic() - self._filled

    def filter(self, program: Program | None) -> None:
        """Have the kernel keep what *program* says, or everything."""
        if program is None:
            detach(self._sock)
            return
        with suppress(OSError):  # in sandboxes that imitate Linux
            attach(self._sock, program)

    def send(self, datagrams: Sequence[bytes], peer: Any, local: Any) -> None:
        """Send *datagrams*, all of one size but for a shorter last one.

        What the kernel has no room for is lost, as on any full link; QUIC sends it again.
        """
        for start in range(0, len(datagrams), _MAX_SEGMENTS):
            batch = datagrams[start : start + _MAX_SEGMENTS]
            fitting = max(1, _MAX_SIZE // len(batch[0]))
            for first in range(0, len(batch), fitting):
                self._send(batch[first : first + fitting], peer, local)

    def _send(self, batch: Sequence[bytes], peer: Any, local: Any) -> None:
        ancillary = [] if local is None else [self._source(local)]
        if len(batch) > 1 and self._segments:
            segment = (socket.SOL_UDP, _UDP_SEGMENT, _SEGMENT.pack(len(batch[0])))
            try:
                self._sock.sendmsg(batch, [*ancillary, segment], 0, peer)
            except BlockingIOError:
                return
            except OSError as error:
                # A device that cannot (EIO, udp(7)). Anything else is about this peer's address
                # or path, where a single datagram may still be possible.
                if error.errno == errno.EIO:
                    self._segments = False
            else:
                return
        for datagram in batch:
            try:
                self._sock.sendmsg([datagram], ancillary, 0, peer)
            except OSError:
                return

    def _prepare(self) -> None:
        sock = self._sock
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        try:
            sock.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
        except OSError:  # before Linux 5.0, and in sandboxes that imitate it
            self._segments = False
        if sock.getsockname()[0] not in ("0.0.0.0", "::"):  # noqa: S104 - compared with
            return
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def _source(self, local: str) -> tuple[int, int, bytes]:
        """The ancillary data that make a datagram leave from *local*."""
        if self._sock.family == socket.AF_INET6:
            packed = socket.inet_pton(socket.AF_INET6, local)
            return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(packed, 0)
        packed = socket.inet_pton(socket.AF_INET, local)
        return socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO4.pack(0, packed, bytes(4))


def _read_ancillary(ancillary: list[tuple[int, int, bytes]]) -> tuple[str | None, int]:
    """The address that was sent to, and the size of joined datagrams, or 0."""
    local, segment = None, 0
    for level, kind, data in ancillary:
        if level == socket.SOL_UDP and kind == _UDP_GRO:
            (segment,) = _GRO_SIZE.unpack_from(data)
        elif level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, _, destination = _PKTINFO4.unpack_from(data)
            local = socket.inet_ntop(socket.AF_INET, destination)
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            destination, _ = _PKTINFO6.unpack_from(data)
            local = socket.inet_ntop(socket.AF_INET6, destination)
    return local, segment
