"""Long frames, divided as their sender could have done."""

import random
import tracemalloc

import pytest

from pounce.websocket.engine import WebSocketEngine
from pounce.websocket.frames import Frames
from pounce.websocket.pieces import Pieces
from tests.websocket import BINARY, CONTINUATION, PING, TEXT, frame

ROOM = 1_000_000

CONTENTS = {size: random.Random(size).randbytes(size) for size in (0, 1, 125, 126, 65_535)}
LONG = {size: random.Random(size).randbytes(size) for size in (65_536, 65_537, 300_001)}
RSV1 = 0x40


def taken(data: bytes, step: int, room: int = ROOM) -> list[tuple[int, bytes]]:
    """The first byte and the content of each frame in *data*, of which *step* bytes come a time."""
    frames, whole = Frames(), bytearray()
    for start in range(0, len(data), step):
        piece, end = bytearray(data[start : start + step]), 0
        while end < len(piece):
            found, end = frames.take(piece, end, room)
            whole += found
    assert frames.between
    return list(read(bytes(whole)))


def read(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        first, length, at = data[at], data[at + 1] & 0x7F, at + 2
        if length >= 126:
            more = 2 if length == 126 else 8
            length, at = int.from_bytes(data[at : at + more]), at + more
        key, content = data[at : at + 4], data[at + 4 : at + 4 + length]
        assert len(content) == length
        mask = (key * (length // 4 + 1))[:length]
        plain = int.from_bytes(content) ^ int.from_bytes(mask)
        found.append((first, plain.to_bytes(length)))
        at += 4 + length
    return found


@pytest.mark.parametrize("step", [11, 70_000, 1_000_000])
@pytest.mark.parametrize("kind", [BINARY, TEXT, RSV1 | BINARY, CONTINUATION])
@pytest.mark.parametrize("fin", [True, False])
def test_a_long_frame_becomes_several(kind: int, step: int, fin: bool) -> None:
    for content in LONG.values():
        frames = taken(frame(kind, content, fin=fin), step)
        assert b"".join(part for _, part in frames) == content
        assert all(len(part) <= 65_535 for _, part in frames)
        firsts = [first for first, _ in frames]
        assert firsts[0] == kind
        assert set(firsts[1:-1]) <= {CONTINUATION}
        assert firsts[-1] == (0x80 | CONTINUATION if fin else CONTINUATION)


@pytest.mark.parametrize("step", [1, 3, 1_000_000])
def test_others_are_left_as_they_are(step: int) -> None:
    data = b"".join(frame(kind, each) for each in CONTENTS.values() for kind in (TEXT, BINARY))
    data += frame(PING, b"x")
    assert taken(data, step) == read(data)


def test_what_is_too_long_is_left_to_whoever_refuses_it() -> None:
    data = frame(BINARY, LONG[300_001])
    assert taken(data, 1000, room=300_000) == read(data)


def test_pieces() -> None:
    pieces, random_ = Pieces(), random.Random(0)
    added = [random_.randbytes(random_.choice((0, 1, 1000, 16_384, 200_000))) for _ in range(100)]
    for each in added:
        pieces.add(each)
    assert pieces.size == sum(map(len, added))
    assert pieces.take() == b"".join(added)
    assert (pieces.size, pieces.take()) == (0, b"")


def test_a_long_frame_takes_memory_once_until_it_is_whole() -> None:
    content = bytes(4_000_000)
    data = frame(BINARY, content)
    engine = WebSocketEngine(len(content), [], bytearray())
    tracemalloc.start()
    try:
        for start in range(0, len(data), 65_536):
            messages = engine.receive(data[start : start + 65_536])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert messages == [content]
    # The message itself; its pages until then are not counted here.
    assert peak < 1.5 * len(content)
