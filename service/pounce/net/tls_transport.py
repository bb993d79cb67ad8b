"""TLS on top of a connection's plain transport: as much of it as a server needs.

asyncio and uvloop have such transports, too. But those cannot close one direction, so that a
client that is still sending may never read an early answer. They do not tell how much of what
was written has left, so that a client that reads slowly looks like one that has stopped, and
they cut off what is left of a response if it takes longer than their timeout once they close.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from pounce.net.tls import TLS
from pounce.net.turns import Turns, Units

_HANDSHAKE = b"\x16"  # the content type of a client's first record (RFC 8446 section 5.1)
_RECORD = 16_384  # the most content of a record (RFC 8446 section 5.1)
_RECORD_HEAD = 5  # its type, version and length

# How many records make a turn. OpenSSL reads any number of KeyUpdates (RFC 8446 section 4.6.3) in
# one call, and each takes as long as 20 KB of content.
_MOST_RECORDS = 32

Buffer = bytes | bytearray | memoryview


class TLSTransport(asyncio.Transport, asyncio.Protocol):
    """A transport for the protocol above, and a protocol of the plain transport below.

    *factory* makes the protocol above once the handshake is complete. *on_plaintext* gets the
    plain transport of a client that seems to speak HTTP without TLS. `settled` is done when
    either has happened; its exception, an OSError, tells of a handshake that failed.

    Of what comes, as many records are decrypted as make a turn. The transport below does not read
    while `_unread` has more, nor while the client leaves the answers to its KeyUpdates unread
    (`_stuffed`), nor while the protocol above wants nothing (`_unwanted`).
    """

    __slots__ = (
        "_below",
        "_closing",
        "_factory",
        "_incoming",
        "_on_plaintext",
        "_outgoing",
        "_protocol",
        "_read_ended",
        "_records",
        "_ssl",
        "_stuffed",
        "_tls",
        "_turns",
        "_unread",
        "_unwanted",
        "_write_ended",
        "_write_paused",
        "settled",
    )

    def __init__(
        self,
        tls: TLS,
        factory: Callable[[], asyncio.Protocol],
        on_plaintext: Callable[[asyncio.Transport], None],
        turns: Turns,
    ) -> None:
        super().__init__()
        self.settled: asyncio.Future[None] = turns.loop.create_future()
        self._turns = turns
        self._tls = tls
        self._factory = factory
        self._on_plaintext = on_plaintext
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl: ssl.SSLObject | None = None  # takes memory, so only for a client that speaks
        self._protocol: asyncio.Protocol | None = None
        self._records, self._unread = Units(_record_size, _RECORD_HEAD), bytearray()
        self._read_ended = self._write_ended = self._closing = False
        self._write_paused = self._stuffed = self._unwanted = False

    @property
    def begun(self) -> bool:
        """Whether the client has sent something."""
        return self._ssl is not None

    # What the plain transport tells.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client is connected."""
        self._below = transport

    def data_received(self, data: bytes) -> None:
        """Records, or parts of them, have come."""
        if self._ssl is None:
            if not data.startswith(_HANDSHAKE) and data[:1].isalpha():
                self._settle()
                self._on_plaintext(self._below)
                return
            self._ssl = self._tls.wrap_bio(self._incoming, self._outgoing, server_side=True)
        if self._unread:
            self._unread += data
            return
        end = self._records.pass_some(data, _MOST_RECORDS)
        self._unread += data[end:]
        self._decrypt(data if end == len(data) else data[:end])
        if self._unread or self._stuffed:
            self._go_on()

    def eof_received(self) -> bool:
        """The client has closed its side, perhaps without a word (close_notify)."""
        return self._protocol is not None and self._end_input(self._protocol)

    def connection_lost(self, exc: Exception | None) -> None:
        """The plain transport is closed."""
        self._unread.clear()
        self._settle(exc if isinstance(exc, OSError) else ConnectionResetError("the client left"))
        if self._protocol is not None:
            self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than is written."""
        self._write_paused = True
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """What was written has gone out."""
        self._write_paused = False
        if self._stuffed:
            self._stuffed = False
            self._go_on()
        if self._protocol is not None:
            self._protocol.resume_writing()

    def _decrypt(self, records: bytes) -> None:
        connection = self._ssl
        assert connection is not None  # noqa: S101 - something has come
        self._incoming.write(records)
        if self._protocol is None:
            self._shake_hands(connection)
        if self._protocol is not None:
            self._read(connection, self._protocol)

    @property
    def _may_read(self) -> bool:
        return not (self._unwanted or self._stuffed or self.is_closing())

    def _go_on(self) -> None:
        """Read on in a later turn, or from the client, or not at all."""
        if self.is_closing():
            return
        if self._unread and self._may_read:
            self._turns.later(self._take_turn)
        if self._unread or not self._may_read:
            self._below.pause_reading()
        else:
            self._below.resume_reading()

    def _take_turn(self) -> None:
        if self._may_read:
            end = self._records.pass_some(self._unread, _MOST_RECORDS)
            records = bytes(self._unread[:end])
            del self._unread[:end]
            self._decrypt(records)
            self._go_on()

    def _shake_hands(self, connection: ssl.SSLObject) -> None:
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()  # the alert that tells the client why
            self._below.close()
            self._settle(error)
        else:
            self._flush()
            self._protocol = self._factory()
            self._protocol.connection_made(self)
            self._settle()

    def _settle(self, error: OSError | None = None) -> None:
        if self.settled.done():
            return
        if error is None:
            self.settled.set_result(None)
        else:
            self.settled.set_exception(error)

    def _read(self, connection: ssl.SSLObject, protocol: asyncio.Protocol) -> None:
        pieces = []
        try:
            while piece := connection.read(_RECORD):
                pieces.append(piece)
            ended = True
        except ssl.SSLWantReadError:
            ended = False
        except ssl.SSLZeroReturnError:  # as by b"", after this side has ended, too
            ended = True
        except ssl.SSLError:
            self.abort()
            return
        if self._outgoing.pending:  # OpenSSL may have something to answer, as to a KeyUpdate
            self._flush()
            self._stuffed = self._write_paused
        if pieces:
            protocol.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended:
            self._unread.clear()
            # By now it may have another protocol.
            self._end_input(self._protocol or protocol)

    def _end_input(self, protocol: asyncio.Protocol) -> bool:
        if not self._read_ended:
            self._read_ended = True
            if not protocol.eof_received():
                self.close()
        return True

    # What the protocol above asks for.

    def write(self, data: Buffer) -> None:
        """Encrypt *data* and send it."""
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Buffer]) -> None:
        """Encrypt each of *list_of_data*, and send all together."""
        if self._write_ended or self._closing:
            return
        assert self._ssl is not None  # noqa: S101 - there was a handshake
        try:
            for data in list_of_data:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._ssl.write(rest) :]  # a record at a time
        except ssl.SSLError:
            self.abort()
        else:
            self._flush()

    def can_write_eof(self) -> bool:
        """Whether one direction can be closed alone."""
        return True

    def write_eof(self) -> None:
        """Say that nothing more is sent (close_notify), and go on reading."""
        if not self._closing:
            self._notify()
            self._below.write_eof()

    def close(self) -> None:
        """Send what was written and close_notify, then close.

        The client's own close_notify is not waited for (RFC 8446 section 6.1).
        """
        if not self._closing:
            self._notify()
            self._closing = True
            self._below.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing or self._below.is_closing()

    def pause_reading(self) -> None:
        """Leave in the kernel what the client sends, but for what has come already."""
        self._unwanted = True
        self._go_on()

    def resume_reading(self) -> None:
        """Read again."""
        self._unwanted = False
        self._go_on()

    def is_reading(self) -> bool:
        """Whether it reads."""
        return not self._unwanted and not self.is_closing()

    def get_write_buffer_size(self) -> int:
        """How many bytes, encrypted, wait to be sent."""
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high mark of the bytes that wait."""
        return self._below.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks."""
        self._below.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol above."""
        assert isinstance(protocol, asyncio.Protocol)  # noqa: S101 - all of ours are
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol above."""
        return self._protocol or self

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As any transport; `ssl_object` and `sslcontext` are this connection's."""
        own = {"ssl_object": self._ssl, "sslcontext": self._tls}
        return own[name] if name in own else self._below.get_extra_info(name, default)

    def _notify(self) -> None:
        if not self._write_ended and self._ssl is not None:
            self._write_ended = True
            with contextlib.suppress(ssl.SSLError):  # it would like to read the client's, too
                self._ssl.unwrap()
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())


def _record_size(head: bytes) -> int:
    return _RECORD_HEAD + int.from_bytes(head[3:]) if len(head) == _RECORD_HEAD else 0
