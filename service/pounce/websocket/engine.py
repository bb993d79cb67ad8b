"""The frames of one open WebSocket: bytes in, messages out, and back; no I/O.

`websockets` reads and writes the frames and keeps the state (RFC 6455 sections 5 and 7); what is
added is whole messages, and that text is UTF-8.
"""

import codecs
import logging
from typing import Any, NamedTuple, TypeAlias

from websockets.exceptions import InvalidState, ProtocolError
from websockets.extensions.base import Extension
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SEND_EOF, SERVER, Protocol

from pounce.asgi.types import MessageError

Message: TypeAlias = str | bytes

# The library would tell the content of every frame, and every end.
_logger = logging.getLogger("pounce.websocket")
_logger.setLevel(logging.ERROR)


class Close(NamedTuple):
    """How a WebSocket ends (RFC 6455 section 7.1.5)."""

    code: int
    reason: str


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


class Engine:
    """One WebSocket, from the accepted handshake on; messages have at most *max_size* bytes.

    Whatever is called, `output` has then what is to be sent.
    """

    __slots__ = ("_fragments", "_is_text", "_protocol", "_utf8", "ended")

    def __init__(self, max_size: int, extensions: list[Extension]) -> None:
        self._protocol = _Protocol(SERVER, max_size=max_size, logger=_logger)
        self._protocol.extensions = extensions
        self._fragments = bytearray()
        self._is_text = False
        self._utf8: Any = None
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

    def receive(self, data: bytes) -> list[Message]:
        """Take bytes as they were received; the messages that are complete with them.

        A violation of the protocol starts the close, with the code that tells which.
        """
        protocol = self._protocol
        protocol.receive_data(data)
        messages: list[Message] = []
        try:
            for frame in protocol.events_received():
                # The type says frame or handshake; the handshake is not the library's here.
                message = self._message(frame)  # type: ignore[arg-type]
                if message is not None:
                    messages.append(message)
        except UnicodeDecodeError:
            if self.open:
                protocol.fail(1007, "text is not UTF-8")
        return messages

    def send(self, message: Message) -> None:
        """Send *message* as one frame."""
        if isinstance(message, str):
            try:
                self._protocol.send_text(message.encode())
            except UnicodeEncodeError as error:
                raise MessageError(f"the text of websocket.send is not Unicode: {error}") from error
        else:
            self._protocol.send_binary(message)

    def ping(self) -> None:
        """Ask the client for a sign of life."""
        self._protocol.send_ping(b"")

    def start_close(self, code: int, reason: str) -> None:
        """Send a close frame; raises MessageError where there can be none like that."""
        try:
            self._protocol.send_close(code, reason)
        except (ProtocolError, InvalidState, UnicodeEncodeError) as error:
            raise MessageError(f"{code} {reason!r} cannot close a WebSocket: {error}") from error

    def output(self) -> bytes:
        """What is to be sent now; `ended` is then true if nothing may follow it."""
        pieces = self._protocol.data_to_send()
        if SEND_EOF in pieces:
            self.ended = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _message(self, frame: Frame) -> Message | None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if frame.fin:
                return str(frame.data, "utf-8") if opcode is Opcode.TEXT else bytes(frame.data)
            self._is_text = opcode is Opcode.TEXT
            self._utf8 = codecs.getincrementaldecoder("utf-8")()
        elif opcode is not Opcode.CONT:
            return None
        return self._fragment(frame)

    def _fragment(self, frame: Frame) -> Message | None:
        # Of many tiny fragments a list would take fifty times their size, so bytes are joined at
        # once. Text is checked as it comes, for the client to hear of an error early.
        if self._is_text:
            self._utf8.decode(frame.data, frame.fin)
        self._fragments += frame.data
        if not frame.fin:
            return None
        data = bytes(self._fragments)
        self._fragments.clear()
        return data.decode() if self._is_text else data
