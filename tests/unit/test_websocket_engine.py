"""The engine alone: frames in, messages and answers out, and every violation's close code."""

import gc
import random
import struct
import tracemalloc
import weakref
import zlib
from itertools import cycle, zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate

from pounce.application.types import MessageError
from pounce.websocket.engine import Close, Message, WebSocketEngine
from tests.websocket import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, closing, frame


def engine(max_size: int = 1000, deflate: bool = False, forgetful: bool = False) -> WebSocketEngine:
    extension = PerMessageDeflate(
        remote_no_context_takeover=forgetful,
        local_no_context_takeover=False,
        remote_max_window_bits=15,
        local_max_window_bits=15,
    )
    return WebSocketEngine(max_size, [extension] if deflate else [], bytearray())


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (frame(TEXT, "Grüße".encode()), ["Grüße"]),
        (frame(BINARY, b"\x00\xff"), [b"\x00\xff"]),
        (frame(TEXT), [""]),
        (frame(BINARY), [b""]),
        (frame(TEXT, b"a") + frame(BINARY, b"b"), ["a", b"b"]),
        (frame(TEXT, b"x" * 126) + frame(TEXT, b"y" * 200), ["x" * 126, "y" * 200]),
        # A character may be divided between frames, but not between messages.
        (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\xbc"), ["ü"]),
        (
            frame(BINARY, b"a", fin=False)
            + frame(PING, b"!")
            + frame(CONTINUATION, b"", fin=False)
            + frame(CONTINUATION, b"b")
            + frame(TEXT, b"c"),
            [b"ab", "c"],
        ),
        (frame(PONG, b"unasked"), []),
    ],
)
@pytest.mark.parametrize("piecewise", [False, True])
def test_messages_arrive_whole_however_they_are_divided(
    data: bytes, messages: list[Message], piecewise: bool
) -> None:
    side = engine()
    pieces = [data[i : i + 1] for i in range(len(data))] if piecewise else [data]
    received = [message for piece in pieces for message in side.receive(piece)]
    assert received == messages
    assert [type(message) for message in received] == [type(message) for message in messages]
    assert side.open
    assert side.close is None


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (1002, frame(TEXT, b"a", masked=False)),
        (1002, frame(0x40 | TEXT, b"a")),
        (1002, frame(0x10 | TEXT, b"a")),
        (1002, frame(3)),
        (1002, frame(11)),
        (1002, frame(PING, b"x" * 126)),
        (1002, frame(PING, fin=False)),
        (1002, frame(CONTINUATION, b"a")),
        (1002, frame(TEXT, b"a", fin=False) + frame(TEXT, b"b")),
        (1002, frame(CLOSE, b"x")),
        (1002, closing(999)),
        (1002, closing(1005)),
        (1007, frame(CLOSE, struct.pack("!H", 1000) + b"\xff")),
        (1007, frame(TEXT, b"\xff")),
        (1007, frame(TEXT, b"\xed\xa0\x80")),
        (1007, frame(TEXT, b"\xc3")),
        (1007, frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"", fin=True)),
        (1007, frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xff", fin=False)),
        (1009, frame(TEXT, b"x" * 1001)),
        (1009, frame(TEXT, b"x" * 1001)[:4]),
        (1009, frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401)),
    ],
)
def test_a_violation_ends_it_with_its_code(code: int, data: bytes) -> None:
    side = engine()
    assert side.receive(data) == []
    assert side.close is not None
    assert side.close.code == code
    output = side.output()
    assert output[:1] == b"\x88"
    assert output[2:4] == struct.pack("!H", code)
    assert side.ended
    # What still comes is not looked at.
    assert side.receive(frame(TEXT, b"late")) == []
    assert side.output() == b""


def test_a_message_within_another_is_a_violation_when_it_comes_alone() -> None:
    side = engine()
    assert side.receive(frame(TEXT, b"a", fin=False)) == []
    assert side.receive(frame(TEXT, b"b")) == []
    assert side.close is not None
    assert side.close.code == 1002


def test_content_that_looks_like_a_frame_is_content() -> None:
    inner = frame(TEXT, b"not a message")
    outer = frame(BINARY, inner, masked=True)
    side = engine()
    assert side.receive(outer[:6]) == []
    assert side.receive(outer[6:]) == [inner]
    unmasked = frame(BINARY, bytes(len(inner)))[:6]
    assert side.receive(unmasked) == []
    assert side.receive(inner) == [bytes(a ^ b for a, b in zip(inner, cycle(MASK), strict=False))]


def test_messages_before_a_violation_are_not_lost() -> None:
    side = engine()
    assert side.receive(frame(TEXT, b"good") + frame(TEXT, b"\xff")) == ["good"]


@pytest.mark.parametrize(
    ("data", "close"),
    [
        (closing(1000, "bye"), Close(1000, "bye")),
        (closing(4321), Close(4321, "")),
        (frame(CLOSE), Close(1005, "")),
        (frame(TEXT, b"half", fin=False) + closing(1000), Close(1000, "")),
    ],
)
def test_the_clients_close_is_answered_in_kind(data: bytes, close: Close) -> None:
    side = engine()
    side.receive(data)
    assert side.close == close
    assert not side.open
    output = side.output()
    assert output[0] == 0x88
    assert output[2:] == (b"" if close.code == 1005 else struct.pack("!H", close.code)) + (
        close.reason.encode()
    )
    assert side.ended


def test_our_close_ends_with_the_clients_answer() -> None:
    side = engine()
    assert side.start_close(1012, "service restart") == b"\x88\x11\x03\xf4service restart"
    assert (side.open, side.ended) == (False, False)
    side.receive(frame(TEXT, b"crossing") + closing(1012))
    assert side.output() == b""
    assert side.ended
    assert side.close == Close(1012, "service restart")


@pytest.mark.parametrize(
    ("code", "reason"), [(1005, ""), (1006, ""), (999, ""), (5000, ""), (1000, "x" * 124)]
)
def test_a_close_that_cannot_be_sent_is_the_applications_error(code: int, reason: str) -> None:
    side = engine()
    with pytest.raises(MessageError):
        side.start_close(code, reason)
    assert side.open


def test_pings_are_answered() -> None:
    side = engine()
    assert side.receive(frame(PING, b"abc") + frame(PING)) == []
    assert side.output() == b"\x8a\x03abc\x8a\x00"


def test_ours_are_empty() -> None:
    assert engine().ping() == b"\x89\x00"


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("ü", b"\x81\x02\xc3\xbc"),
        (b"\x00", b"\x82\x01\x00"),
        ("", b"\x81\x00"),
        (b"x" * 300, b"\x82\x7e\x01\x2c" + b"x" * 300),
    ],
)
def test_messages_are_sent_as_one_frame(message: Message, data: bytes) -> None:
    assert engine().send(message) == data


def test_a_lone_surrogate_is_the_applications_error() -> None:
    with pytest.raises(MessageError, match="not Unicode"):
        engine().send("\ud800")


def deflated(data: bytes) -> bytes:
    """RFC 7692 section 7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_compressed_messages_are_read_and_written() -> None:
    side = engine(deflate=True)
    assert side.receive(frame(0x40 | TEXT, deflated(b"a" * 900))) == ["a" * 900]
    assert len(side.send("a" * 900)) < 50
    assert side.send("a")[0] == 0xC1


def test_what_inflates_beyond_the_limit_ends_it() -> None:
    side = engine(deflate=True)
    assert side.receive(frame(0x40 | TEXT, deflated(b"a" * 1_000_000))) == []
    assert side.close is not None
    assert side.close.code == 1009


@pytest.mark.parametrize("end", [frame(CONTINUATION), b""])
def test_what_a_small_frame_inflates_to_takes_several_turns(end: bytes) -> None:
    text = "aü€" * 500_000
    side, turns = engine(max_size=10_000_000, deflate=True), 1
    data = frame(
        0x40 | TEXT, deflated(text.encode()) + (b"\0\0\xff\xff" if end else b""), fin=not end
    )
    messages = side.receive(data + end + frame(TEXT, b"next"))
    while side.behind:
        assert side.held > 0
        turns += 1
        messages += side.receive(b"")
    assert turns > 3
    assert messages == [text, "next"]
    assert side.held == 0


@pytest.mark.parametrize("size", [1, 1000, 65_000, 65_536, 300_000])
@pytest.mark.parametrize("part", [10, 1_000_000])
def test_the_limit_is_for_messages_as_they_are_inflated(size: int, part: int) -> None:
    content = random.Random(size).randbytes(size)
    compressor, packed = zlib.compressobj(level=0, wbits=-15), b""
    for start in range(0, size, part):
        packed += compressor.compress(content[start : start + part])
        packed += compressor.flush(zlib.Z_SYNC_FLUSH)
    packed = packed[:-4]
    assert len(packed) > size
    for limit, code in ((size, None), (size - 1, 1009)):
        side, messages = engine(max_size=limit, deflate=True), []
        halves = packed[: size // 2], packed[size // 2 :]
        data = frame(0x40 | BINARY, packed)
        if limit % 2:
            data = frame(0x40 | BINARY, halves[0], fin=False) + frame(CONTINUATION, halves[1])
        messages += side.receive(data)
        while side.behind:
            messages += side.receive(b"")
        assert messages == ([] if code else [content])
        assert (side.close and side.close.code) == code


@pytest.mark.parametrize("size", [2, 1000, 65_000, 70_000, 300_000])
def test_what_is_not_compressed_has_the_same_limit(size: int) -> None:
    for limit, code in ((size, None), (size - 1, 1009)):
        for fragments in ([size], [1, size - 1]):
            side = engine(max_size=limit, deflate=True)
            messages = []
            for number, each in enumerate(fragments, 1):
                kind = BINARY if number == 1 else CONTINUATION
                messages += side.receive(frame(kind, bytes(each), fin=number == len(fragments)))
            while side.behind:
                messages += side.receive(b"")
            assert messages == ([] if code else [bytes(size)])
            assert (side.close and side.close.code) == code
            assert side.held == 0


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("kind", [PING, PONG, CLOSE])
def test_a_long_control_frame_is_not_waited_for(kind: int, deflate: bool) -> None:
    side = engine(max_size=10_000_000, deflate=deflate)
    side.receive(frame(kind, bytes(1_000_000))[:100_000])
    while side.behind:
        side.receive(b"")
    assert side.close is not None
    assert side.close.code == 1002


def test_inflation_stops_at_the_limit_exactly() -> None:
    for size, code in ((1_000_000, None), (1_000_001, 1009)):
        side = engine(max_size=1_000_000, deflate=True)
        messages = side.receive(frame(0x40 | BINARY, deflated(bytes(size))))
        while side.behind:
            messages += side.receive(b"")
        assert [len(each) for each in messages] == ([] if code else [size])
        assert (side.close and side.close.code) == code


@pytest.mark.parametrize(
    ("code", "data"),
    [
        (1002, b"\xff" * 20),
        (1007, deflated(b"a\xff")),
        (1007, deflated("ü".encode()[:1])),
    ],
)
def test_what_does_not_inflate_to_text_ends_it(code: int, data: bytes) -> None:
    side = engine(deflate=True)
    assert side.receive(frame(0x40 | TEXT, data) + frame(TEXT, b"late")) == []
    assert side.close is not None
    assert side.close.code == code
    assert not side.behind


def test_messages_may_refer_to_those_before_unless_it_was_agreed_otherwise() -> None:
    compressor = zlib.compressobj(wbits=-15)
    messages = [
        frame(0x40 | TEXT, (compressor.compress(b"hello" * 20) + compressor.flush(2))[:-4])
        for _ in range(2)
    ]
    assert engine(deflate=True).receive(b"".join(messages)) == ["hello" * 20] * 2
    side = engine(deflate=True, forgetful=True)
    assert side.receive(b"".join(messages)) == ["hello" * 20]
    assert side.close is not None
    assert side.close.code == 1002


def test_a_final_block_ends_one_message_and_no_more() -> None:
    # RFC 7692 section 7.2.3.4
    final = frame(0x40 | TEXT, bytes.fromhex("f348cdc9c90700") + b"\0")
    assert engine(deflate=True).receive(final * 3) == ["Hello"] * 3


def test_many_tiny_fragments_take_no_more_memory_than_their_bytes() -> None:
    side = engine(max_size=100_000)
    side.receive(frame(TEXT, b"a", fin=False))
    piece = frame(CONTINUATION, b"bb", fin=False)
    tracemalloc.start()
    try:
        for _ in range(10_000):
            side.receive(piece)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 60_000
    assert side.receive(frame(CONTINUATION, b"c")) == ["a" + "b" * 20_000 + "c"]


@pytest.mark.parametrize(
    "data",
    [
        frame(BINARY, bytes(100_000))[:-1],
        frame(BINARY, bytes(100_000), fin=False),
        frame(BINARY, bytes(100_000)) + frame(3, bytes(100_000)),
        frame(BINARY, bytes(200_000)),
        frame(BINARY, bytes(100_000))[:-1] + b"x" + closing(1000),
    ],
    ids=["frame begun", "message begun", "bad frame", "too long", "closed"],
)
@pytest.mark.parametrize("deflate", [False, True])
def test_what_it_holds_goes_with_it(data: bytes, deflate: bool) -> None:
    gc.disable()  # it would come too late
    try:
        side = engine(max_size=150_000, deflate=deflate)
        side.receive(data)
        protocol = weakref.ref(side._protocol)
        side.discard()
        del side
        assert protocol() is None
    finally:
        gc.enable()


FRAMES = st.builds(
    frame,
    st.sampled_from([CONTINUATION, TEXT, TEXT, TEXT, BINARY, BINARY, CLOSE, PING, PONG, 3, 0x41]),
    st.one_of(st.binary(max_size=8), st.text(max_size=200).map(str.encode), st.just(b"x" * 66_000)),
    fin=st.sampled_from([True, True, True, False]),
    masked=st.sampled_from([True, True, True, True, False]),
)


@given(
    st.lists(FRAMES, max_size=8),
    st.lists(st.integers(0, 70_000), max_size=4),
    st.sampled_from([100, 200, 70_000]),
)
def test_what_is_read_here_is_what_the_library_would_read(
    frames: list[bytes], cuts: list[int], max_size: int
) -> None:
    ours, library = engine(max_size), engine(max_size)
    library._plain = False
    for piece in pieces(frames, cuts):
        assert ours.receive(piece) == library.receive(piece)
        assert ours.output() == library.output()
        assert (ours.close, ours.open, ours.ended) == (library.close, library.open, library.ended)
        if ours.open:
            assert ours.send("echo") == library.send("echo")


def pieces(frames: list[bytes], cuts: list[int]) -> list[bytes]:
    """The frames one by one, but those that a cut falls on are cut there."""
    divided = []
    for each, cut in zip_longest(frames, cuts[: len(frames)], fillvalue=0):
        assert isinstance(each, bytes)
        assert isinstance(cut, int)
        divided += [piece for piece in (each[:cut], each[cut:]) if piece]
    return divided
