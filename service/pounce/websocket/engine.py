"""The frames of one open WebSocket: bytes in, messages out, and back; no I/O.

`websockets` reads and writes the frames and keeps the state (RFC 6455 sections 5 and 7); what is
added is whole messages, and that text is UTF-8.
"""

import codecs
import logging
import zlib
from sys import maxsize
from typing import Any, NamedTuple, TypeAlias

from websockets.exceptions import InvalidState, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SEND_EOF, SERVER, Protocol

from pounce.application.types import MessageError
from pounce.events.loggers import get_logger
from pounce.websocket.frames import Frames
from pounce.websocket.inflation import Inflation
from pounce.websocket.pieces import Pieces

try:
    from websockets.speedups import apply_mask
except ImportError:  # it was built without a C compiler
    from websockets.utils import apply_mask

Message: TypeAlias = str | bytes

# RFC 6455 section 5.2: the first byte of a message in one frame; the most that the second byte can
# say of its length; and the bytes before the content.
_TEXT, _BINARY = 0x81, 0x82
_SHORT = 125
_MASKED_HEAD = 6

# What makes a turn: so many frames, each of which counts as another for so many of its bytes, or
# of those that it inflates to.
_TURN = 32
_MUCH = 16_384
_STEP = 262_144  # of a message that is inflated

# The library would tell the content of every frame, and every end.
_logger = get_logger("pounce.websocket", logging.ERROR)


class Close(NamedTuple):
    """How a WebSocket ends (RFC 6455 section 7.1.5)."""

    code: int
    reason: str


class _TooLong(Exception):
    """A message is longer than it may be."""


ABNORMAL = Close(1006, "")
"""No close frame was received or sent (RFC 6455 section 7.4.1)."""


class _Protocol(Protocol):
    """Takes a close in the middle of a fragmented message for what it is: no more will come.

    The library calls it an error, but control frames may come there (RFC 6455 section 5.4), and
    nothing obliges a client that leaves to finish its message first (section 5.5.1).
    """

    def recv_frame(self, frame: Frame) -> None:
        """Process *frame*."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = self.cur_size = None  # the latter before version 16
        super().recv_frame(frame)


class WebSocketEngine:
    """One WebSocket, from the accepted handshake on; messages have at most *max_size* bytes.

    Short messages, each in a frame of its own that comes and goes alone, are read and written
    here: nearly all are like that, and it takes a tenth of the time. The library has the last
    word on everything else.

    *unread* is what was received and is for later turns.
    """

    __slots__ = (
        "_fragmented",
        "_fragments",
        "_frames",
        "_incomplete",
        "_inflation",
        "_is_text",
        "_max_size",
        "_plain",
        "_protocol",
        "_utf8",
        "ended",
        "unread",
    )

    def __init__(
        self, max_size: int, extensions: list[PerMessageDeflate], unread: bytearray
    ) -> None:
        # A compressed frame may be longer than what it inflates to: then only `_fragment` can tell.
        judged = None if extensions else max_size
        self._protocol = _Protocol(SERVER, max_size=judged, logger=_logger)
        self._max_size = max_size
        self._inflation: Inflation | None = None
        for each in extensions:  # there is no other
            self._inflation = Inflation(each)
            self._protocol.extensions = [self._inflation]
        # Whether a short frame holds its message as it is, and cannot be too long.
        self._plain = not extensions and max_size >= _SHORT
        self._fragments = Pieces()
        self._fragmented = self._is_text = False
        self._utf8: Any = None
        self._frames = Frames()
        self._incomplete = 0  # what the library holds of a frame
        self.unread = unread
        self.ended = False

    @property
    def close(self) -> Close | None:
        """How it ends, as soon as a close frame was sent, which may be the client's own."""
        sent = self._protocol.close_sent
        return None if sent is None else Close(int(sent.code), sent.reason)

    @property
    def open(self) -> bool:
        """Whether messages can be sent and received."""
        return self._protocol.state is OPEN

    @property
    def held(self) -> int:
        """How many bytes it holds of a message that is not complete."""
        inflation = self._inflation
        compressed = inflation.held if inflation is not None else 0
        return self._fragments.size + self._incomplete + compressed

    @property
    def behind(self) -> bool:
        """Whether another turn has something to do with what was received."""
        inflation = self._inflation
        return bool(self.unread) or (inflation is not None and inflation.due)

    def receive(self, data: bytes) -> list[Message]:
        """Take bytes as they were received; the messages that are complete with them.

        It reads as many frames as make a turn, and inflates as much. Where that is not all, it is
        `behind`, and a call without *data* goes on. What is to be sent in answer is in `output`. A
        violation of the protocol starts the close, with the code that tells which.
        """
        if self._is_plain(data):
            content = apply_mask(data[6:], data[2:6])
            if data[0] == _BINARY:
                return [content]
            try:
                return [content.decode()]
            except UnicodeDecodeError:
                pass  # the library's answer is the same as to any other
        self.unread += data
        return self._read()

    def _is_plain(self, data: bytes) -> bool:
        """Whether *data* is what most messages are: one short frame, all of it, and no other."""
        return (
            _MASKED_HEAD <= len(data) <= _MASKED_HEAD + _SHORT
            and data[1] == 0x80 + len(data) - _MASKED_HEAD
            and data[0] in (_TEXT, _BINARY)
            and self._plain
            and not self.unread
            and self._frames.between
            and not self._fragmented
            and self._protocol.state is OPEN
        )

    def _read(self) -> list[Message]:
        """Have the library judge the frames of one turn."""
        unread, inflation, messages = self.unread, self._inflation, list[Message]()
        left, start = _TURN, 0
        while left > 0:
            if inflation is not None and inflation.due:
                left -= 1 + self._inflate(inflation, messages) // _MUCH
            elif start < len(unread):
                # What the library does not judge by its head is never to be held whole.
                room = self._max_size - self._fragments.size if inflation is None else maxsize
                frame, start = self._frames.take(unread, start, room)
                left -= 1 + self._judge(frame, messages) // _MUCH
            else:
                break
        del unread[:start]
        if self._protocol.eof_sent:  # nothing that still comes is looked at
            unread.clear()
        return messages

    def _inflate(self, inflation: Inflation, messages: list[Message]) -> int:
        """Inflate more of a message; how many bytes that came to."""
        data = b""
        try:
            data, whole = inflation.step(_STEP)
            message = self._fragment(data, whole)
            if message is not None:
                messages.append(message)
        except (UnicodeDecodeError, _TooLong, zlib.error) as error:
            inflation.due = False
            self._fail(error)
        return len(data)

    def _judge(self, data: bytes | bytearray, messages: list[Message]) -> int:
        """Have the library judge *data*, of one frame; how many bytes that was or came to."""
        protocol, size = self._protocol, len(data)
        self._incomplete = self._incomplete + size if self._frames.missing else 0
        protocol.receive_data(data)
        try:
            for frame in protocol.events_received():
                # The type says frame or handshake; the handshake is not the library's here.
                size = max(size, len(frame.data))  # type: ignore[union-attr]
                message = self._message(frame)  # type: ignore[arg-type]
                if message is not None:
                    messages.append(message)
        except (UnicodeDecodeError, _TooLong) as error:
            self._fail(error)
        return size

    def _fail(self, error: Exception) -> None:
        """Start the close for what *error* says of a message, which is dropped."""
        self._fragments.clear()
        if not self.open:
            return
        if isinstance(error, _TooLong):
            self._protocol.fail(1009, str(error))
        elif isinstance(error, UnicodeDecodeError):
            self._protocol.fail(1007, "text is not UTF-8")
        else:
            self._protocol.fail(1002, "decompression failed")

    def send(self, message: Message) -> bytes:
        """What to send for *message*, which is one frame; raises MessageError."""
        if isinstance(message, str):
            try:
                first, data = _TEXT, message.encode()
            except UnicodeEncodeError as error:
                raise MessageError(f"the text of websocket.send is not Unicode: {error}") from error
        else:
            first, data = _BINARY, message
        if self._plain and len(data) <= _SHORT:
            return bytes((first, len(data))) + data
        if first == _TEXT:
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)
        return self.output()

    def ping(self) -> bytes:
        """What asks the client for a sign of life."""
        self._protocol.send_ping(b"")
        return self.output()

    def start_close(self, code: int, reason: str) -> bytes:
        """A close frame to send; raises MessageError where there can be none like that."""
        try:
            self._protocol.send_close(code, reason)
        except (ProtocolError, InvalidState, UnicodeEncodeError) as error:
            raise MessageError(f"{code} {reason!r} cannot close a WebSocket: {error}") from error
        return self.output()

    def output(self) -> bytes:
        """What is to be sent now; `ended` is then true if nothing may follow it."""
        pieces = self._protocol.data_to_send()
        if SEND_EOF in pieces:
            self.ended = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def discard(self) -> None:
        """Drop the received bytes; call it last.

        The library's protocol, its parser and the parser's error refer to each other: without this
        a frame of many megabytes would stay in memory until the garbage collector runs.
        """
        self._fragments.clear()
        protocol = self._protocol
        protocol.parser.close()
        protocol.parser_exc = None  # its traceback has the parser's frames
        protocol.reader.discard()

    def _message(self, frame: Frame) -> Message | None:
        opcode, data, inflation = frame.opcode, frame.data, self._inflation
        compressed = inflation is not None and inflation.compressed
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if frame.fin and not compressed:
                self._check_size(data)
                return str(data, "utf-8") if opcode is Opcode.TEXT else bytes(data)
            self._is_text = opcode is Opcode.TEXT
            self._utf8 = codecs.getincrementaldecoder("utf-8")()
        elif opcode is not Opcode.CONT:
            return None
        self._fragmented = not frame.fin
        if inflation is not None and compressed:
            inflation.begin(frame)
            return None
        return self._fragment(data, frame.fin)

    def _fragment(self, piece: bytes | bytearray | memoryview, last: bool) -> Message | None:
        self._check_size(piece)
        # Text is checked as it comes, for the client to hear of an error early.
        if self._is_text:
            self._utf8.decode(piece, last)
        self._fragments.add(piece)
        if not last:
            return None
        data = self._fragments.take()
        return data.decode() if self._is_text else data

    def _check_size(self, piece: bytes | bytearray | memoryview) -> None:
        """Raise _TooLong where the message is too long with *piece*."""
        if self._fragments.size + len(piece) > self._max_size:
            raise _TooLong(f"over the limit of {self._max_size} bytes")
