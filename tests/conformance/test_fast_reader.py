"""The fast reader against h11: what it reads by itself, the strict reader reads alike."""

from collections.abc import Collection

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pounce.config.service import ServerConfig
from pounce.http1.events import BadRequest, Body, Event, NeedData, RequestHead
from pounce.http1.fast_reader import FastReader
from pounce.http1.reader import RequestReader
from pounce.http1.strict_reader import StrictReader
from tests.conformance import corpus

PLAIN = b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n"
SIZED = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"

OCTETS = st.binary(max_size=6)
ODD = st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b"\t", b" ", b":", b",", b"\x7f", b"\xff"])

METHODS = st.sampled_from(
    [b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"PURGE", b"G\xc3T", b"GET ", b""]
)
TARGETS = st.sampled_from(
    [
        b"/",
        b"/a%20b?c=d",
        b"//x",
        b"/#f",
        b"*",
        b"http://b.example/x",
        b"a:1",
        b"/\x80",
        b"/a b",
        b"",
    ]
)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b""])
NAMES = st.sampled_from(
    [
        *(b"Host", b"hOST", b"Accept", b"Cookie", b"X-Forwarded-For", b"Content-Length"),
        *(b"content-length", b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b"TE"),
        *(b"Content-Length ", b" Host", b"", b"X\x80", b"X(", b"Trailer", b"Keep-Alive"),
    ]
)
VALUES = st.sampled_from(
    [
        *(b"a.example", b"a.example:80", b"[::1]", b"a b", b"a,b", b"", b"0", b"5", b"05", b"+5"),
        *(b"5, 5", b"-1", b"0x5", b"5" * 19, b"\xb2", b"chunked", b"gzip", b"close", b"CLOSE"),
        *(b"keep-alive", b"Keep-Alive, x", b"upgrade", b"websocket", b"100-continue", b"a\tb"),
        *(b"\xe4\xf6", b" a", b"a ", b"a\t", b"a\x01b", b"a\x0bb", b"x" * 300),
    ]
)
FIELDS = st.builds(
    b"".join,
    st.tuples(
        NAMES,
        st.sampled_from([b": ", b": ", b": ", b":", b":\t", b":  ", b" : ", b""]),
        VALUES | OCTETS,
        st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r\n ", b"\r"]),
    ),
)
USUAL = st.lists(
    st.sampled_from(
        [
            *(b"Accept: */*\r\n", b"Cookie: a=b; c=d\r\n", b"Connection: keep-alive\r\n"),
            *(
                b"Content-Length: 3\r\n",
                b"X-Forwarded-For: 192.0.2.1\r\n",
                b"Connection: close\r\n",
            ),
        ]
    ),
    max_size=5,
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A head that is plain, or has something odd in any of its places."""
    line = b" ".join((draw(METHODS), draw(TARGETS), draw(VERSIONS)))
    if draw(st.booleans()):
        line = b"GET /path?query HTTP/1.1"
    fields = [b"Host: a.example\r\n", *draw(USUAL), *draw(st.lists(FIELDS, max_size=3))]
    return line + b"\r\n" + b"".join(draw(st.permutations(fields))) + b"\r\n"


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Messages one after the other, some damaged by an octet."""
    parts = st.one_of(heads(), st.sampled_from([PLAIN, SIZED, b"\r\n", b"abc"]))
    data = b"".join(draw(st.lists(parts, min_size=1, max_size=3)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(ODD | OCTETS) + data[at + draw(st.integers(0, 1)) :]
    return data


def events_of(reader: RequestReader, data: bytes) -> list[Event | NeedData | int]:
    """All events of *data*, or up to the status that it is refused with."""
    events: list[Event | NeedData | int] = []
    try:
        events.append(reader.receive(data))
        while not isinstance(events[-1], NeedData):
            events.append(reader.next_event())
    except BadRequest as error:
        events.append(error.status)
    return events


CONFIGS = st.sampled_from(
    [
        ServerConfig(),
        ServerConfig(max_body_size=4),
        ServerConfig(max_header_count=3),
        ServerConfig(max_request_line=64, max_header_size=1024),
    ]
)


# Thousands of examples take seconds alone, and minutes where a core is shared.
@pytest.mark.timeout(600)
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=streams(), config=CONFIGS)
@example(data=PLAIN * 3 + SIZED * 2 + PLAIN, config=ServerConfig())
@example(data=PLAIN.replace(b"?", b"?" * 64), config=ServerConfig(max_request_line=64))
@example(data=PLAIN.replace(b"*", b"*" * 256), config=ServerConfig(max_header_size=256))
def test_both_readers_make_the_same_events(data: bytes, config: ServerConfig) -> None:
    assert events_of(FastReader(config), data) == events_of(StrictReader(config), data)


@settings(max_examples=300, deadline=None)
@given(data=streams(), cut=st.integers(0, 300))
def test_both_readers_leave_the_same_unread(data: bytes, cut: int) -> None:
    fast, strict = FastReader(ServerConfig()), StrictReader(ServerConfig())
    for piece in (data[:cut], data[cut:]):
        outcome = events_of(fast, piece)
        assert outcome == events_of(strict, piece)
        if isinstance(outcome[-1], int):
            break
        assert fast.unread() == strict.unread()
        assert (fast.in_body, fast.idle) == (strict.in_body, strict.idle)


@settings(max_examples=500, deadline=None)
@given(sent=st.lists(st.sampled_from([PLAIN, SIZED]) | heads(), min_size=1, max_size=3))
def test_what_was_read_before_changes_nothing(sent: list[bytes]) -> None:
    fast, strict = FastReader(ServerConfig()), StrictReader(ServerConfig())
    # Each a second time, with others between, and with another target.
    again = [data.replace(b"/a?b", b"/other") for data in sent]
    for data in (*sent, *sent, *again, *sent):
        outcome = events_of(fast, data)
        assert outcome == events_of(strict, data)
        if isinstance(outcome[-1], int):
            break


@given(content=st.binary(min_size=1, max_size=9), rest=st.sampled_from([b"", PLAIN, b"G"]))
def test_content_that_comes_with_its_head(content: bytes, rest: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content)
    reader = FastReader(ServerConfig())
    for _ in range(2):
        assert isinstance(reader.receive(head + content), RequestHead)
        assert reader.in_body
        assert reader.whole_body() == content
        assert reader.idle
    reader.receive(head + content)
    reader.feed(rest)
    assert (reader.next_event(), reader.unread()) == (Body(content), rest)
    assert reader.whole_body() is None


class Watched(FastReader):
    """Notes what it leaves to h11."""

    __slots__ = ("left",)

    def _parse_head(self, block: bytes) -> RequestHead:
        self.left = True
        return super()._parse_head(block)


def leaves_to_h11(data: bytes, **limits: int) -> bool:
    reader = Watched(ServerConfig(**limits))  # type: ignore[arg-type]
    reader.left = False
    events_of(reader, data)
    return reader.left


def remembered() -> Collection[bytes]:
    """The field lines that this thread has read before, whichever reader that was."""
    return FastReader(ServerConfig())._known


def test_no_secret_is_remembered() -> None:
    data = with_field(b"Accept: x\r\nCookie: a=b\r\nAuthorization: c\r\nX: " + b"d" * 300)
    assert not leaves_to_h11(data)
    _, *lines = data.removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert [line for line in lines if line in remembered()] == [b"Host: a.example", b"Accept: x"]


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3000):
        assert not leaves_to_h11(with_field(b"X: %d" % number))
    assert 0 < len(remembered()) < 1000


def with_field(field: bytes) -> bytes:
    return PLAIN.replace(b"Accept: */*", field)


def test_plain_requests_are_read_without_h11() -> None:
    browser = (
        b"GET /path?query HTTP/1.1\r\nHost: a.example:8000\r\nConnection: keep-alive\r\n"
        b'sec-ch-ua: "Chromium";v="130"\r\nUpgrade-Insecure-Requests: 1\r\n'
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept-Encoding: gzip, deflate, br\r\n"
        b"Cookie: session=0123456789abcdef; theme=dark\r\n\r\n"
    )
    for data in (PLAIN, SIZED, PLAIN * 10, browser, with_field(b"Connection: close")):
        assert not leaves_to_h11(data)


UNUSUAL = [
    *(b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: websocket", b"TE: gzip"),
    *(b"Connection: upgrade", b"Content-Length: 1, 1", b"Accept: a\r\nAccept: b", b"Accept:a"),
    *(b"Accept: a ", b"Accept: a\r\n b", b"Host: b.example"),
]


def test_what_is_unusual_is_left_to_h11() -> None:
    for field in UNUSUAL:
        assert leaves_to_h11(with_field(field)) or is_refused(with_field(field)), field


def is_refused(data: bytes) -> bool:
    return isinstance(events_of(StrictReader(ServerConfig()), data)[-1], int)


def test_the_corpus_has_both() -> None:
    left = [case for case in corpus.ALL if leaves_to_h11(case.raw)]
    assert 0 < len(left) < len(corpus.ALL)
