"""The request readers: events, limits, and what is refused, however the bytes arrive."""

import time
from collections.abc import Iterable

import pytest

from pounce.config.service import ServerConfig
from pounce.http1.events import (
    END_OF_REQUEST,
    NEED_DATA,
    BadRequest,
    Body,
    Event,
    RequestHead,
)
from pounce.http1.fast_reader import FastReader
from pounce.http1.reader import RequestReader
from pounce.http1.strict_reader import StrictReader

READERS: list[type[RequestReader]] = [StrictReader, FastReader]
SIZES = [1, 2, 3, 1_000_000]
HEAD = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def pieces(data: bytes, size: int) -> Iterable[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def read(reader: RequestReader, data: bytes, size: int = 1_000_000) -> list[Event]:
    """All events of *data*, fed *size* bytes at a time."""
    events: list[Event] = []
    for piece in pieces(data, size):
        event = reader.receive(piece)
        while event is not NEED_DATA:
            events.append(event)
            event = reader.next_event()
    return events


def refusal(data: bytes, size: int = 1_000_000, **limits: int) -> int:
    """The status *data* is refused with."""
    with pytest.raises(BadRequest) as caught:
        read(StrictReader(ServerConfig(**limits)), data, size)  # type: ignore[arg-type]
    return caught.value.status


def head_of(data: bytes) -> RequestHead:
    head = read(StrictReader(ServerConfig()), data)[0]
    assert isinstance(head, RequestHead)
    return head


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reader", READERS)
def test_requests_follow_each_other(reader: type[RequestReader], size: int) -> None:
    sized = b"POST /a?b HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"
    chunks = CHUNKED + b'2;x\r\nhe\r\n3 ; y="z"\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n'
    events = read(reader(ServerConfig()), sized + HEAD + b"\r\n" + chunks + HEAD, size)
    kinds = [type(event).__name__ for event in events if not isinstance(event, Body)]
    assert kinds == ["RequestHead", "EndOfRequest", "RequestHead"] * 2
    assert b"".join(e.data for e in events if isinstance(e, Body)) == b"hellohello"
    assert events[-2] is END_OF_REQUEST
    assert events[0] == RequestHead(
        method="POST",
        target=b"/a?b",
        headers=[(b"host", b"a.example"), (b"content-length", b"5")],
        http_version="1.1",
        keep_alive=True,
        expect_continue=False,
        has_body=True,
    )


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: Close\r\n", False),
        (b"1.1", b"Connection: x, close\r\n", False),
        (b"1.1", b"Connection: x\r\nConnection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
        (b"1.7", b"", True),
    ],
)
def test_keep_alive(version: bytes, fields: bytes, *, keep_alive: bool) -> None:
    head = head_of(b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, fields))
    assert head.keep_alive is keep_alive
    assert head.http_version == ("1.0" if version == b"1.0" else "1.1")


@pytest.mark.parametrize(
    ("version", "value", "expected"),
    [
        (b"1.1", b"100-continue", True),
        (b"1.1", b"100-Continue", True),
        (b"1.0", b"100-continue", False),
        (b"1.1", b"200-ok", False),
    ],
)
def test_expectation(version: bytes, value: bytes, *, expected: bool) -> None:
    head = head_of(
        b"POST / HTTP/%b\r\nHost: a\r\nContent-Length: 1\r\nExpect: %b\r\n\r\n" % (version, value)
    )
    assert head.expect_continue is expected


LINE, FIELDS, COUNT = 64, 256, 4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * (LINE - 14)), None),
        (b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * (LINE - 13)), 414),
        (b"G" * (LINE + 1), 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"y" * (FIELDS - 14)), None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"y" * (FIELDS - 13)), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: %b" % (b"y" * FIELDS), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"x: y\r\n" * (COUNT - 1)), None),
        (b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"x: y\r\n" * COUNT), 431),
        (CHUNKED + b"1;" + b"x" * FIELDS * 2, 431),
        (CHUNKED + b"1;%b\r\na\r\n" % (b"x" * 40) * 7, 431),
        (CHUNKED + b"0\r\nx: " + b"y" * FIELDS * 2, 431),
        (CHUNKED + b"0\r\n" + b"x: y\r\n" * (COUNT + 1), 431),
        (CHUNKED + b"8\r\n12345678\r\n0\r\n\r\n", None),
        (CHUNKED + b"8\r\n12345678\r\n1\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n" % (b"9" * 30), 413),
    ],
)
def test_limits(data: bytes, status: int | None, size: int) -> None:
    limits = {
        "max_request_line": LINE,
        "max_header_size": FIELDS,
        "max_header_count": COUNT,
        "max_body_size": 8,
    }
    if status is None:
        assert read(StrictReader(ServerConfig(**limits)), data, size)  # type: ignore[arg-type]
    else:
        assert refusal(data, size, **limits) == status


@pytest.mark.parametrize("digits", [19, 5000])
def test_a_length_of_absurd_size(digits: int) -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n" % (b"9" * digits)
    assert refusal(data) == 413


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01",
        b"GET / HTTP/1.1\nHost: a",
        b"GET / HTTP/1.1\r\nHost: a\r\n b",
        b"GET / HTTP/1.1\rH",
        b"\r\n\r\nGET",
        b"\x16\x03\x01",
        CHUNKED + b"x\r\n",
        CHUNKED + b"1\r\nab",
        CHUNKED + b"1\r\na\rb",
    ],
)
def test_what_can_be_no_request_is_refused_before_it_is_complete(data: bytes) -> None:
    assert refusal(data) == 400
    assert refusal(data, 1) == 400


@pytest.mark.parametrize("data", [HEAD[:-2], CHUNKED + b"1\r\n", b"G"])
def test_the_end_within_a_request(data: bytes) -> None:
    reader = StrictReader(ServerConfig())
    read(reader, data)
    reader.eof()
    with pytest.raises(BadRequest) as caught:
        reader.next_event()
    assert caught.value.status == 400


def test_the_end_between_requests() -> None:
    reader = StrictReader(ServerConfig())
    read(reader, HEAD)
    reader.eof()
    assert reader.next_event() is NEED_DATA


def test_what_is_left_over() -> None:
    reader = StrictReader(ServerConfig())
    reader.feed(CHUNKED + b"1\r\na\r\n0\r\n\r\nGET")
    assert isinstance(reader.next_event(), RequestHead)
    assert reader.in_body
    assert reader.next_event() == Body(b"a")
    assert not reader.in_body
    assert reader.next_event() is END_OF_REQUEST
    assert reader.buffer == b"GET"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 500_000,
        CHUNKED + b"1;" + b"x" * 500_000,
        CHUNKED + b"0\r\nX: " + b"y" * 500_000,
        CHUNKED + b"1\r\na\r\n" * 100_000,
    ],
)
def test_single_bytes_cost_linear_time(data: bytes) -> None:
    reader = StrictReader(ServerConfig(max_header_size=1_000_000))
    started = time.process_time()
    read(reader, data, 1)
    # Looking at everything again for each byte would take minutes.
    assert time.process_time() - started < 5
