"""Variable-length integers and frames."""

import pytest

from pounce.http3.errors import Code, ConnectionFailed
from pounce.http3.frames import (
    MAX_VARINT,
    Frame,
    FrameReader,
    Type,
    decode_varint,
    encode_frame,
    encode_varint,
)

# RFC 9000 appendix A.1, and the edges.
VARINTS = [
    ("c2197c5eff14e88c", 151288809941952652),
    ("9d7f3e7d", 494878333),
    ("7bbd", 15293),
    ("25", 37),
    ("00", 0),
    ("3f", 63),
    ("4040", 64),
    ("7fff", 16383),
    ("80004000", 16384),
    ("bfffffff", 2**30 - 1),
    ("c000000040000000", 2**30),
    ("ffffffffffffffff", MAX_VARINT),
]


@pytest.mark.parametrize(("wire", "value"), VARINTS)
def test_integers(wire: str, value: int) -> None:
    encoded = bytes.fromhex(wire)
    assert encode_varint(value) == encoded
    assert decode_varint(b"x" + encoded + b"y", 1) == (value, 1 + len(encoded))
    for size in range(len(encoded)):
        assert decode_varint(encoded[:size], 0) is None


def read(data: bytes, step: int) -> list[Frame]:
    reader, frames = FrameReader(100), []
    for start in range(0, len(data), step):
        reader.feed(data[start : start + step])
        while (frame := reader.next()) is not None:
            frames.append(frame)
    assert not reader.within_frame
    return frames


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_frames_in_pieces(step: int) -> None:
    data = (
        encode_frame(Type.HEADERS, b"head")
        + encode_frame(0x21, b"of a type that nobody knows" * 20)
        + encode_frame(Type.DATA, b"content")
        + encode_frame(Type.DATA, b"")
        + encode_frame(Type.HEADERS, b"")
    )
    frames = read(data, step)
    assert [frame for frame in frames if frame.type != Type.DATA] == [
        (Type.HEADERS, b"head"),
        (Type.HEADERS, b""),
    ]
    assert b"".join(frame.payload for frame in frames if frame.type == Type.DATA) == b"content"


def test_content_is_not_waited_for() -> None:
    reader = FrameReader(10)
    reader.feed(encode_varint(Type.DATA) + encode_varint(2**40) + b"begin")
    assert reader.next() == (Type.DATA, b"begin")
    assert reader.next() is None
    assert reader.within_frame


def test_a_frame_that_is_too_long() -> None:
    reader = FrameReader(10)
    reader.feed(encode_varint(Type.SETTINGS) + encode_varint(11))
    with pytest.raises(ConnectionFailed) as caught:
        reader.next()
    assert caught.value.code is Code.EXCESSIVE_LOAD


def test_fields_that_are_too_long_are_seen_before_they_have_come() -> None:
    reader = FrameReader(10)
    reader.feed(encode_varint(Type.HEADERS))
    assert not reader.oversized
    reader.feed(encode_varint(11))
    assert reader.oversized
