"""One connection's HTTP/3: bytes of QUIC streams in, events out (RFC 9114)."""

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from pounce.config.service import ServerConfig
from pounce.http3.errors import Code, ConnectionFailed, RequestFailed
from pounce.http3.fields import HTTP3Head, check_trailers, request_head
from pounce.http3.frames import (
    MAX_VARINT,
    FrameReader,
    Type,
    decode_varint,
    encode_frame,
    encode_varint,
)
from pounce.http3.qpack import Decoder, Fields, encode

# What a client's SETTINGS and the like may be at most.
_MAX_CONTROL_FRAME = 4096


class Content(NamedTuple):
    """A piece of a request's content."""

    data: bytes


class EndOfRequest(NamedTuple):
    """All of a request has come."""


Event = HTTP3Head | Content | EndOfRequest


class _Setting(IntEnum):
    """RFC 9114 section 7.2.4.1. QPACK's (RFC 9204 section 5) are right as they are: no table."""

    MAX_FIELD_SECTION_SIZE = 0x6


# RFC 9114 section 7.2.4.1: settings of HTTP/2 that have no meaning here.
_FORBIDDEN_SETTINGS = frozenset((0x0, 0x2, 0x3, 0x4, 0x5))


class _StreamType(IntEnum):
    """RFC 9114 section 6.2, RFC 9204 section 4.2."""

    CONTROL = 0x0
    PUSH = 0x1
    QPACK_ENCODER = 0x2
    QPACK_DECODER = 0x3


class HTTP3Reader:
    """What comes on one request stream."""

    __slots__ = ("_config", "_decoder", "_ended", "_frames", "_head", "_received", "_trailers")

    def __init__(self, decoder: Decoder, config: ServerConfig) -> None:
        self._decoder = decoder
        self._config = config
        # Huffman coding may shorten a field, and nothing makes it longer than its letters by
        # more than a few bytes (RFC 9204 section 4.5).
        self._frames = FrameReader(config.max_header_size + config.max_request_line)
        self._head: HTTP3Head | None = None
        self._received = 0
        self._trailers = False
        self._ended = False

    def receive(self, data: bytes, ended: bool) -> Iterator[Event]:
        """What *data* brings. Raises RequestFailed, after which nothing more may be fed, or
        ConnectionFailed.
        """
        self._frames.feed(data)
        while True:
            if self._frames.oversized:
                raise RequestFailed(431, "header fields too large", Code.EXCESSIVE_LOAD)
            frame = self._frames.next()
            if frame is None:
                break
            if frame.type == Type.DATA:
                yield from self._content(frame.payload)
            elif frame.type == Type.HEADERS:
                yield from self._fields(frame.payload)
            else:
                raise ConnectionFailed(Code.FRAME_UNEXPECTED, "on a request stream")
        if ended:
            yield self._end()

    def _fields(self, block: bytes) -> Iterator[HTTP3Head]:
        if self._trailers:
            raise ConnectionFailed(Code.FRAME_UNEXPECTED, "fields after the trailers")
        fields = self._decoder.fields(block)
        if self._head is None:
            self._head = request_head(fields, self._config)
            yield self._head
        else:
            self._trailers = True
            check_trailers(fields, self._config)

    def _content(self, data: bytes) -> Iterator[Content]:
        if self._head is None or self._trailers:
            raise ConnectionFailed(Code.FRAME_UNEXPECTED, "content out of place")
        self._received += len(data)
        if 0 <= self._head.length < self._received:
            raise RequestFailed(400, "more content than its length")
        if self._config.max_body_size and self._received > self._config.max_body_size:
            raise RequestFailed(413, "content too large", Code.NO_ERROR)
        if data:
            yield Content(data)

    def _end(self) -> EndOfRequest:
        if self._frames.within_frame:
            raise ConnectionFailed(Code.FRAME_ERROR, "the stream ends within a frame")
        if self._head is None:
            raise RequestFailed(400, "no request", Code.REQUEST_INCOMPLETE)
        if self._head.length not in (-1, self._received):
            raise RequestFailed(400, "less content than its length")
        return EndOfRequest()


class _ControlStream:
    """The client's control stream (RFC 9114 section 6.2.1)."""

    def __init__(self) -> None:
        self._frames = FrameReader(_MAX_CONTROL_FRAME)
        self._has_settings = False

    def receive(self, data: bytes) -> None:
        self._frames.feed(data)
        while (frame := self._frames.next()) is not None:
            if frame.type == Type.SETTINGS:
                self._settings(frame.payload)
            elif not self._has_settings:
                raise ConnectionFailed(Code.MISSING_SETTINGS, "")
            elif frame.type == Type.CANCEL_PUSH:
                raise ConnectionFailed(Code.ID_ERROR, "nothing is pushed")
            elif frame.type not in (Type.GOAWAY, Type.MAX_PUSH_ID):
                raise ConnectionFailed(Code.FRAME_UNEXPECTED, "on the control stream")

    def _settings(self, payload: bytes) -> None:
        if self._has_settings:
            raise ConnectionFailed(Code.FRAME_UNEXPECTED, "a second SETTINGS")
        self._has_settings = True
        names = list(_pairs(payload))
        if len(set(names)) != len(names) or not _FORBIDDEN_SETTINGS.isdisjoint(names):
            raise ConnectionFailed(Code.SETTINGS_ERROR, "repeated or reserved")


def _pairs(payload: bytes) -> Iterator[int]:
    """The identifiers in SETTINGS; nothing that a client can set there concerns this server."""
    at = 0
    while at < len(payload):
        name = decode_varint(payload, at)
        value = decode_varint(payload, name[1]) if name else None
        if name is None or value is None:
            raise ConnectionFailed(Code.FRAME_ERROR, "malformed SETTINGS")
        yield name[0]
        at = value[1]


class _EncoderStream:
    """The client's QPACK encoder stream: the table has no room, so nothing can be inserted."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def receive(self, data: bytes) -> None:
        self._decoder.instructions(data)


class _Ignored:
    """A stream whose content concerns nobody: the client's QPACK decoder has nothing to say."""

    def receive(self, data: bytes) -> None:
        pass


_UniReader = _ControlStream | _EncoderStream | _Ignored


class HTTP3Engine:
    """What streams of one connection share."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._decoder = Decoder()
        self._unidirectional: dict[int, _UniReader | None] = {}  # None: it does not concern us
        self._beginnings: dict[int, bytes] = {}
        self._critical: set[int] = set()  # types of which there is one already

    def opening(self) -> bytes:
        """What begins the server's control stream."""
        config = self._config
        # RFC 9114 section 4.2.2 counts 32 bytes more a field.
        most = config.max_header_size + config.max_request_line + 32 * config.max_header_count
        settings = {_Setting.MAX_FIELD_SECTION_SIZE: most}
        payload = b"".join(encode_varint(k) + encode_varint(v) for k, v in settings.items())
        return encode_varint(_StreamType.CONTROL) + encode_frame(Type.SETTINGS, payload)

    def goaway(self) -> bytes:
        """For the control stream: some later request will be the first not to be served.

        The highest possible id of a request stream announces that (RFC 9114 section 5.2).
        """
        return encode_frame(Type.GOAWAY, encode_varint(MAX_VARINT - 3))

    def fields(self, fields: Fields) -> bytes:
        """A HEADERS frame."""
        return encode_frame(Type.HEADERS, encode(fields))

    def content(self, data: bytes) -> bytes:
        """A DATA frame."""
        return encode_frame(Type.DATA, data)

    def request_reader(self) -> HTTP3Reader:
        """For a new request stream."""
        return HTTP3Reader(self._decoder, self._config)

    def receive_unidirectional(self, stream_id: int, data: bytes, ended: bool) -> bool:
        """Take what the client sends on its own; false where it should stop (section 6.2.3).

        Raises ConnectionFailed.
        """
        if stream_id not in self._unidirectional:
            data = self._beginnings.pop(stream_id, b"") + data
            kind = decode_varint(data, 0)
            if kind is None:
                self._beginnings[stream_id] = data
            else:
                self._unidirectional[stream_id] = self._open(kind[0])
                data = data[kind[1] :]
        reader = self._unidirectional.get(stream_id)
        if reader is not None:
            reader.receive(data)
        wanted = reader is not None or stream_id in self._beginnings
        if ended:
            self.close_unidirectional(stream_id)
        return wanted

    def close_unidirectional(self, stream_id: int) -> None:
        """The client has ended or reset a stream; raises ConnectionFailed where it must not."""
        self._beginnings.pop(stream_id, None)
        if self._unidirectional.pop(stream_id, None) is not None:
            raise ConnectionFailed(Code.CLOSED_CRITICAL_STREAM, "")

    def _open(self, kind: int) -> _UniReader | None:
        if kind == _StreamType.PUSH or kind in self._critical:
            raise ConnectionFailed(Code.STREAM_CREATION_ERROR, "")
        if kind not in (_StreamType.CONTROL, _StreamType.QPACK_ENCODER, _StreamType.QPACK_DECODER):
            return None
        self._critical.add(kind)
        if kind == _StreamType.CONTROL:
            return _ControlStream()
        return _EncoderStream(self._decoder) if kind == _StreamType.QPACK_ENCODER else _Ignored()
