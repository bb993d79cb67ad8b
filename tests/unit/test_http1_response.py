"""The response writer: heads, framing, and what can never get on the wire."""

import re
from typing import Any

import pytest

from pounce.application.types import MessageError
from pounce.config.service import ServerConfig
from pounce.http.defaults import DefaultHeaders
from pounce.http1.response import ResponseWriter, error_response

BARE = DefaultHeaders(ServerConfig(server_header=False, date_header=False))
Headers = list[tuple[bytes, bytes]]


def writer(method: str = "GET", version: str = "1.1", *, keep_alive: bool = True) -> ResponseWriter:
    return ResponseWriter(BARE, method, version, keep_alive=keep_alive)


@pytest.mark.parametrize(
    ("method", "version", "status", "headers", "parts", "expected"),
    [
        ("GET", "1.1", 200, [], [b"hi"], b"200 OK\r\ncontent-length: 2\r\n\r\nhi"),
        ("GET", "1.1", 200, [], [b""], b"200 OK\r\ncontent-length: 0\r\n\r\n"),
        (
            "GET", "1.1", 200, [], [b"a", b"", b"bc"],
            b"200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        ),
        (
            "GET", "1.1", 200, [], [b"a", b""],
            b"200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ),
        ("GET", "1.0", 200, [], [b"a", b"b"], b"200 OK\r\nconnection: close\r\n\r\nab"),
        (
            "GET", "1.0", 200, [], [b"a"],
            b"200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\na",
        ),
        (
            "GET", "1.1", 200, [(b"Content-Length", b"3")], [b"a", b"bc"],
            b"200 OK\r\ncontent-length: 3\r\n\r\nabc",
        ),
        ("HEAD", "1.1", 200, [], [b"hi"], b"200 OK\r\ncontent-length: 2\r\n\r\n"),
        ("HEAD", "1.1", 200, [], [b""], b"200 OK\r\n\r\n"),
        ("HEAD", "1.1", 200, [], [b"a", b"b"], b"200 OK\r\n\r\n"),
        (
            "HEAD", "1.1", 200, [(b"content-length", b"7")], [b""],
            b"200 OK\r\ncontent-length: 7\r\n\r\n",
        ),
        ("GET", "1.1", 204, [(b"content-length", b"0")], [b""], b"204 No Content\r\n\r\n"),
        ("GET", "1.1", 204, [], [b"null"], b"204 No Content\r\n\r\n"),
        ("GET", "1.1", 205, [], [b"x"], b"205 Reset Content\r\ncontent-length: 0\r\n\r\n"),
        ("GET", "1.1", 304, [], [b""], b"304 Not Modified\r\n\r\n"),
        (
            "GET", "1.1", 304, [(b"content-length", b"9")], [b""],
            b"304 Not Modified\r\ncontent-length: 9\r\n\r\n",
        ),
        (
            "GET", "1.1", 200, [(b"transfer-encoding", b"gzip"), (b"x", b"y")], [b""],
            b"200 OK\r\nx: y\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            "GET", "1.1", 200, [(b"connection", b"close")], [b""],
            b"200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
        (
            "GET", "1.1", 426, [(b"connection", b"Upgrade, keep-alive")], [b""],
            b"426 Upgrade Required\r\ncontent-length: 0\r\nconnection: upgrade\r\n\r\n",
        ),
        ("GET", "1.1", 299, [], [b""], b"299 \r\ncontent-length: 0\r\n\r\n"),
    ],
)  # fmt: skip
def test_wire_form(
    method: str, version: str, status: int, headers: Headers, parts: list[bytes], expected: bytes
) -> None:
    response = writer(method, version)
    response.start(status, headers)
    last = len(parts) - 1
    sent = b"".join(b"".join(response.body(part, at < last)) for at, part in enumerate(parts))
    assert sent == b"HTTP/1.1 " + expected
    assert response.complete
    assert response.keep_alive is (b"close" not in expected)


HOSTILE: list[Any] = [
    [(b"x", b"a\r\nset-cookie: b")],
    [(b"x", b"a\nb")],
    [(b"x", b"a\rb")],
    [(b"x", b"a\0b")],
    [(b"x", b"a\x7f")],
    [(b"x\r\ny", b"a")],
    [(b"x: y", b"a")],
    [(b"x y", b"a")],
    [(b"", b"a")],
    [(b"\xc3\xa9", b"a")],
    [("x", "a")],
    [(b"x", "a")],
    [(b"x", None)],
    [(b"x",)],
    [(b"content-length", b"-1")],
    [(b"content-length", b"1, 1")],
    [(b"content-length", b"1"), (b"content-length", b"1")],
    None,
    7,
]


@pytest.mark.parametrize("headers", HOSTILE)
def test_a_head_that_cannot_be_sent(headers: Any) -> None:
    with pytest.raises(MessageError):
        writer().start(200, headers)


@pytest.mark.parametrize("status", [-200, 0, 99, 100, 101, 199, 1000])
def test_a_status_that_is_no_final_one(status: int) -> None:
    with pytest.raises(MessageError):
        writer().start(status, [])


@pytest.mark.parametrize("parts", [[b"abcd"], [b"ab", b"cd"], [b"ab"], [b"a", b"b"]])
def test_the_content_length_is_kept(parts: list[bytes]) -> None:
    response = writer()
    response.start(200, [(b"content-length", b"3")])
    sent = b"".join(b"".join(response.body(part, True)) for part in parts[:-1])
    with pytest.raises(MessageError, match=r"(longer|shorter) than its content-length"):
        response.body(parts[-1], False)
    assert not response.complete
    assert response.head_sent is (len(parts) > 1)
    assert len(sent.partition(b"\r\n\r\n")[2]) < 3


def test_a_head_may_be_replaced_until_it_is_sent() -> None:
    response = writer()
    response.start(200, [(b"content-length", b"3"), (b"x", b"y"), (b"date", b"never")])
    response.start(500, [])
    (sent,) = response.body(b"", False)
    assert sent == b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("own", [[], [b"server"], [b"date"], [b"Date", b"Server"]])
def test_default_fields(own: list[bytes]) -> None:
    response = ResponseWriter(DefaultHeaders(ServerConfig()), "GET", "1.1", keep_alive=True)
    response.start(200, [(name, b"mine") for name in own])
    (sent,) = response.body(b"", False)
    names = {name.lower() for name in own}
    assert (b"\r\nserver: pounce\r\n" in sent) is (b"server" not in names)
    dated = re.search(rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", sent)
    assert bool(dated) is (b"date" not in names)
    assert sent.count(b"mine") == len(own)


def test_the_date_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = DefaultHeaders(ServerConfig())
    seen = []
    for now in (1e9, 1e9 + 0.9, 1e9 + 1, 1e9 - 3600):
        monkeypatch.setattr("time.time", lambda now=now: now)
        defaults.refresh()
        seen.append(defaults.date[-14:-6])
    assert seen == [b"01:46:40", b"01:46:40", b"01:46:41", b"00:46:40"]


def test_an_error_response() -> None:
    assert error_response(BARE, 503, "too many", [(b"retry-after", b"1")]) == (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"retry-after: 1\r\ncontent-length: 34\r\nconnection: close\r\n\r\n"
        b"503 Service Unavailable: too many\n"
    )
