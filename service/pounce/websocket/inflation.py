"""Compressed messages, inflated a step at a time (RFC 7692).

16 KB may inflate to 16 MB, which takes 40 ms at once. The library would do it where it reads the
frame; here it reads a frame that is still compressed, and the engine asks for as much as its turn
allows.
"""

import zlib
from typing import Any

from websockets.exceptions import ProtocolError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import CTRL_OPCODES, Frame, Opcode

# RFC 7692 section 7.2.2: the end of each message's last block, which is not sent.
_END = b"\x00\x00\xff\xff"


class Inflation(Extension):
    """permessage-deflate as *agreed*; `compressed` is whether the message under way is."""

    name = PerMessageDeflate.name

    def __init__(self, agreed: PerMessageDeflate) -> None:
        self._agreed = agreed
        self._decoder: Any = None  # takes 40 KB, so only for a client that compresses
        self._rest = b""
        self._final = False
        self.due = False
        self.compressed = False

    @property
    def held(self) -> int:
        """How many bytes have yet to be inflated."""
        return len(self._rest)

    def encode(self, frame: Frame) -> Frame:
        """Compress *frame*."""
        return self._agreed.encode(frame)

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Take note whether *frame* is compressed; it stays so."""
        if frame.opcode in CTRL_OPCODES:
            return frame
        if frame.opcode is not Opcode.CONT:
            self.compressed = frame.rsv1
        elif frame.rsv1:
            raise ProtocolError("RSV1 bit set in continuation frame")
        frame.rsv1 = False
        return frame

    def begin(self, frame: Frame) -> None:
        """The content of *frame* is `due`, for `step` to inflate."""
        fresh = frame.opcode is not Opcode.CONT and self._agreed.remote_no_context_takeover
        if self._decoder is None or self._decoder.eof or fresh:
            self._decoder = zlib.decompressobj(wbits=-self._agreed.remote_max_window_bits)
        self._final = frame.fin
        self._rest = bytes(frame.data) + (_END if frame.fin else b"")
        self.due = True

    def step(self, most: int) -> tuple[bytes, bool]:
        """The next *most* bytes, and whether they end the message; raises zlib.error."""
        data = self._decoder.decompress(self._rest, most)
        # After a final block (section 7.2.3.4) there is nothing; the next message begins anew.
        self._rest = b"" if self._decoder.eof else self._decoder.unconsumed_tail
        # What zlib has taken in may be more than it was allowed to give out.
        self.due = bool(self._rest) or (len(data) == most and not self._decoder.eof)
        return data, self._final and not self.due
