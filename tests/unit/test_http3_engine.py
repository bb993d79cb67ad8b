"""HTTP/3 without QUIC: what the streams' bytes mean, and what is wrong with them."""

from collections.abc import Sequence

import pylsqpack
import pytest

from pounce.config.service import ServerConfig
from pounce.http3.engine import Content, EndOfRequest, Event, HTTP3Engine
from pounce.http3.errors import Code, ConnectionFailed, RequestFailed
from pounce.http3.fields import HTTP3Head
from pounce.http3.frames import MAX_VARINT, Type, decode_varint, encode_frame, encode_varint
from pounce.http3.qpack import Fields, encode

GET: Fields = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"a.example"),
    (b":path", b"/a?b"),
]


def head(fields: Fields) -> bytes:
    return encode_frame(Type.HEADERS, encode(fields))


def content(data: bytes) -> bytes:
    return encode_frame(Type.DATA, data)


def read(
    *pieces: bytes, ended: bool = True, config: ServerConfig | None = None, step: int = 0
) -> list[Event]:
    reader = HTTP3Engine(config or ServerConfig()).request_reader()
    data = b"".join(pieces)
    step = step or len(data) or 1
    events: list[Event] = []
    starts = range(0, max(1, len(data)), step)
    for start in starts:
        last = start + step >= len(data)
        events += reader.receive(data[start : start + step], ended and last)
    return events


def changed(name: bytes, *values: bytes) -> Fields:
    """The request with other values for one pseudo-header, or none."""
    kept = [field for field in GET if field[0] != name]
    return [*((name, value) for value in values), *kept]


def test_a_request() -> None:
    assert read(head(GET)) == [
        HTTP3Head("GET", b"/a?b", [(b"host", b"a.example")], -1, False, False),
        EndOfRequest(),
    ]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_request_with_content_and_trailers_in_pieces(step: int) -> None:
    fields = [*GET, (b"content-length", b"7"), (b"x-forwarded-for", b"192.0.2.1")]
    pieces = (head(fields), content(b"con"), content(b"tent"), head([(b"x-sum", b"1")]))
    first, *others, last = read(*pieces, step=step)
    assert isinstance(first, HTTP3Head)
    assert (first.length, first.forwarded) == (7, True)
    assert b"".join(each.data for each in others if isinstance(each, Content)) == b"content"
    assert last == EndOfRequest()


def test_cookies_are_joined_and_the_host_comes_first() -> None:
    fields = [*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"host", b"a.example"), (b"cookie", b"b=2")]
    first, _ = read(head(fields))
    assert isinstance(first, HTTP3Head)
    assert first.headers == [(b"host", b"a.example"), (b"x", b"y"), (b"cookie", b"a=1; b=2")]


def test_a_host_field_can_stand_for_the_authority() -> None:
    first, _ = read(head([*changed(b":authority"), (b"host", b"b.example:8443")]))
    assert isinstance(first, HTTP3Head)
    assert first.headers == [(b"host", b"b.example:8443")]


REFUSED = {
    "no method": (changed(b":method"), 400),
    "no scheme": (changed(b":scheme"), 400),
    "another scheme": (changed(b":scheme", b"http"), 400),
    "no path": (changed(b":path"), 400),
    "an empty path": (changed(b":path", b""), 400),
    "a path without a slash": (changed(b":path", b"a"), 400),
    "a path with a space": (changed(b":path", b"/a b"), 400),
    "a fragment": (changed(b":path", b"/a#b"), 400),
    "a whole URL": (changed(b":path", b"https://a.example/"), 400),
    "an asterisk": (changed(b":path", b"*"), 400),
    "no authority": (changed(b":authority"), 400),
    "an empty authority": (changed(b":authority", b""), 400),
    "a user": (changed(b":authority", b"me@a.example"), 400),
    "two methods": (changed(b":method", b"GET", b"GET"), 400),
    "an unknown pseudo-header": ([(b":status", b"200"), *GET], 400),
    "a late pseudo-header": ([(b"a", b"b"), *GET], 400),
    "another host": ([*GET, (b"host", b"b.example")], 400),
    "two hosts": ([*GET, (b"host", b"a.example"), (b"host", b"a.example")], 400),
    "capital letters": ([*GET, (b"Accept", b"x")], 400),
    "a name with a colon": ([*GET, (b"a:b", b"x")], 400),
    "a line feed": ([*GET, (b"a", b"b\nc")], 400),
    "a carriage return": ([*GET, (b"a", b"b\rc")], 400),
    "a NUL": ([*GET, (b"a", b"b\0c")], 400),
    "space before a value": ([*GET, (b"a", b" b")], 400),
    "space after a value": ([*GET, (b"a", b"b\t")], 400),
    "connection": ([*GET, (b"connection", b"close")], 400),
    "keep-alive": ([*GET, (b"keep-alive", b"5")], 400),
    "proxy-connection": ([*GET, (b"proxy-connection", b"close")], 400),
    "transfer-encoding": ([*GET, (b"transfer-encoding", b"chunked")], 400),
    "upgrade": ([*GET, (b"upgrade", b"websocket")], 400),
    "te": ([*GET, (b"te", b"gzip")], 400),
    "no number": ([*GET, (b"content-length", b"+1")], 400),
    "two lengths": ([*GET, (b"content-length", b"0"), (b"content-length", b"0")], 400),
    "an enormous length": ([*GET, (b"content-length", b"9" * 40)], 413),
    "small letters": (changed(b":method", b"get"), 501),
    "no token": (changed(b":method", b"G T"), 400),
    "connect": (changed(b":method", b"CONNECT"), 501),
    "websocket": ([(b":protocol", b"websocket"), *changed(b":method", b"CONNECT")], 501),
    "a long path": (changed(b":path", b"/" * 9000), 414),
    "many fields": ([*GET, *[(b"a", b"b")] * 120], 431),
    "large fields": ([*GET, (b"a", b"b" * 40_000), (b"c", b"d" * 40_000)], 431),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    fields, status = REFUSED[name]
    with pytest.raises(RequestFailed) as caught:
        read(head(fields))
    assert caught.value.status == status


def test_trailers_only_may_say_te() -> None:
    first, _ = read(head([*GET, (b"te", b"trailers")]))
    assert isinstance(first, HTTP3Head)


def test_options_for_the_whole_server() -> None:
    fields = [(b":method", b"OPTIONS"), (b":path", b"*"), *GET[1:3]]
    first, _ = read(head(fields))
    assert isinstance(first, HTTP3Head)
    assert first.target == b"*"


LENGTH_5 = head([*GET, (b"content-length", b"5")])
SMALL = ServerConfig(max_body_size=4)

BROKEN: dict[str, tuple[Sequence[bytes], int]] = {
    "less than its length": ([LENGTH_5, content(b"four")], 400),
    "more than its length": ([LENGTH_5, content(b"sixsix")], 400),
    "a length and nothing": ([LENGTH_5], 400),
    "pseudo-headers in the trailers": ([head(GET), head([(b":path", b"/")])], 400),
    "malformed trailers": ([head(GET), head([(b"A", b"b")])], 400),
    "nothing": ([], 400),
    "a frame of fields that is too long": ([encode_varint(1) + encode_varint(2**30)], 431),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str) -> None:
    pieces, status = BROKEN[name]
    with pytest.raises(RequestFailed) as caught:
        read(*pieces)
    assert caught.value.status == status


@pytest.mark.parametrize("pieces", [[LENGTH_5], [head(GET), content(b"fi"), content(b"ve!")]])
def test_content_that_is_too_large(pieces: list[bytes]) -> None:
    with pytest.raises(RequestFailed) as caught:
        read(*pieces, config=SMALL)
    assert caught.value.status == 413


FATAL = {
    "content first": ([content(b"x")], Code.FRAME_UNEXPECTED),
    "content after trailers": ([head(GET), head([]), content(b"x")], Code.FRAME_UNEXPECTED),
    "trailers twice": ([head(GET), head([]), head([])], Code.FRAME_UNEXPECTED),
    "settings": ([encode_frame(Type.SETTINGS, b"")], Code.FRAME_UNEXPECTED),
    "a push promise": ([head(GET), encode_frame(Type.PUSH_PROMISE, b"")], Code.FRAME_UNEXPECTED),
    "a frame of HTTP/2": ([encode_frame(Type.PING, b"")], Code.FRAME_UNEXPECTED),
    "half a frame": ([head(GET), content(b"x")[:-1]], Code.FRAME_ERROR),
    "no field section": ([encode_frame(Type.HEADERS, b"\xff")], Code.QPACK_DECOMPRESSION_FAILED),
    "the dynamic table": (
        [encode_frame(Type.HEADERS, b"\x02\x00\x80")],
        Code.QPACK_DECOMPRESSION_FAILED,
    ),
}


@pytest.mark.parametrize("name", FATAL)
def test_fatal(name: str) -> None:
    pieces, code = FATAL[name]
    with pytest.raises(ConnectionFailed) as caught:
        read(*pieces)
    assert caught.value.code is code


def test_unknown_frames_are_passed_over() -> None:
    events = read(encode_frame(0x21, b"x" * 70), head(GET), encode_frame(0x40, b""), content(b"c"))
    assert [type(event) for event in events] == [HTTP3Head, Content, EndOfRequest]


# Unidirectional streams


def settings(*pairs: int) -> bytes:
    payload = b"".join(map(encode_varint, pairs))
    return b"\x00" + encode_frame(Type.SETTINGS, payload)


def test_control_and_qpack_streams() -> None:
    engine = HTTP3Engine(ServerConfig())
    data = settings(1, 4096, 7, 16, 0x21, 5) + encode_frame(Type.GOAWAY, b"\0")
    data += encode_frame(Type.MAX_PUSH_ID, b"\x08") + encode_frame(0x21, b"x")
    for at in range(len(data)):
        assert engine.receive_unidirectional(2, data[at : at + 1], False)
    assert engine.receive_unidirectional(6, b"\x02\x20", False)
    assert engine.receive_unidirectional(10, b"\x03\x40", False)


def test_a_stream_of_an_unknown_type_shall_stop() -> None:
    engine = HTTP3Engine(ServerConfig())
    assert engine.receive_unidirectional(2, b"\x40", False)  # half of its type
    assert not engine.receive_unidirectional(2, b"\x21abc", False)
    assert not engine.receive_unidirectional(2, b"def", True)
    engine.close_unidirectional(2)


CONTROL = {
    "no settings": (b"\x00" + encode_frame(Type.GOAWAY, b"\0"), Code.MISSING_SETTINGS),
    "settings twice": (settings() + encode_frame(Type.SETTINGS, b""), Code.FRAME_UNEXPECTED),
    "a setting twice": (settings(6, 1, 6, 1), Code.SETTINGS_ERROR),
    "a setting of HTTP/2": (settings(3, 1), Code.SETTINGS_ERROR),
    "half a setting": (b"\x00" + encode_frame(Type.SETTINGS, b"\x06\x40"), Code.FRAME_ERROR),
    "content": (settings() + content(b"x"), Code.FRAME_UNEXPECTED),
    "fields": (settings() + head(GET), Code.FRAME_UNEXPECTED),
    "a pushed id": (settings() + encode_frame(Type.CANCEL_PUSH, b"\0"), Code.ID_ERROR),
    "enormous settings": (b"\x00\x04" + encode_varint(2**30), Code.EXCESSIVE_LOAD),
    "a push stream": (b"\x01", Code.STREAM_CREATION_ERROR),
    "room for a table": (b"\x02\x3f\xe1\x1f", Code.QPACK_ENCODER_STREAM_ERROR),
}


@pytest.mark.parametrize("name", CONTROL)
def test_a_broken_control_stream(name: str) -> None:
    data, code = CONTROL[name]
    with pytest.raises(ConnectionFailed) as caught:
        HTTP3Engine(ServerConfig()).receive_unidirectional(2, data, False)
    assert caught.value.code is code


@pytest.mark.parametrize("kind", [b"\x00", b"\x02", b"\x03"])
def test_a_critical_stream_is_there_once_and_stays(kind: bytes) -> None:
    engine = HTTP3Engine(ServerConfig())
    engine.receive_unidirectional(2, kind, False)
    with pytest.raises(ConnectionFailed) as caught:
        engine.receive_unidirectional(6, kind, False)
    assert caught.value.code is Code.STREAM_CREATION_ERROR
    with pytest.raises(ConnectionFailed) as caught:
        engine.receive_unidirectional(2, b"", True)
    assert caught.value.code is Code.CLOSED_CRITICAL_STREAM


# What the server sends


def test_the_servers_control_stream() -> None:
    engine = HTTP3Engine(ServerConfig())
    opening = engine.opening()
    assert opening[:2] == b"\x00\x04"
    assert decode_varint(opening, 3) == (6, 4)
    assert decode_varint(engine.goaway(), 2) == (MAX_VARINT - 3, 10)
    assert (MAX_VARINT - 3) % 4 == 0


FIELDS = {
    "in the table": [(b":status", b"200"), (b"content-type", b"text/html; charset=utf-8")],
    "a name in the table": [(b":status", b"299"), (b"date", b"today"), (b"etag", b"")],
    "nothing of it in the table": [(b"x-a", b"b"), (b"x" * 300, b"y")],
    "long": [(b"set-cookie", b"a" * 20_000), (b"x-a", b"b" * 126), (b"x-a", b"b" * 127)],
    "a thousand": [(b"x-%d" % number, b"%d" % number) for number in range(1000)],
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_as_another_decoder_reads_them(name: str) -> None:
    decoder = pylsqpack.Decoder(0, 0)
    assert decoder.feed_header(0, encode(FIELDS[name])) == (b"", FIELDS[name])
