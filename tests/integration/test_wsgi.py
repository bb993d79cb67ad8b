"""WSGI applications on real sockets: what PEP 3333 promises them, and their clients."""

import hashlib
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from pounce.application.types import MessageError
from pounce.threads import exchange, storage
from tests.live import live, until
from tests.wsgi import PLAIN, Environ, Start, serving


def answers(*pieces: bytes, status: str = "200 OK", fields: Any = PLAIN) -> Any:
    """An application that answers with a list."""

    def app(environ: Environ, start: Start) -> list[bytes]:
        start(status, fields)
        return list(pieces)

    return app


def generates(*pieces: bytes, status: str = "200 OK", fields: Any = PLAIN) -> Any:
    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start(status, fields)
        yield from pieces

    return app


def writes(*pieces: bytes, status: str = "200 OK", fields: Any = PLAIN) -> Any:
    def app(environ: Environ, start: Start) -> list[bytes]:
        write = start(status, fields)
        for piece in pieces:
            write(piece)
        return [b"!"]

    return app


# Responses


@pytest.mark.parametrize(
    ("app", "content", "framing"),
    [
        pytest.param(answers(b"hello"), b"hello", b"content-length: 5", id="a list of one"),
        pytest.param(answers(b"he", b"llo"), b"hello", b"content-length: 5", id="a list"),
        pytest.param(answers(), b"", b"content-length: 0", id="an empty list"),
        pytest.param(
            generates(b"he", b"", b"llo"), b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"", id="pieces"
        ),
        pytest.param(
            generates(b"he", b"llo", fields=[("Content-Length", "5")]),
            b"hello",
            b"content-length: 5",
            id="pieces of a known length",
        ),
        pytest.param(
            generates(b"hello", fields=[("Content-Length", "5")]),
            b"hello",
            b"content-length: 5",
            id="one piece of a known length",
        ),
        pytest.param(generates(b"", b""), b"", b"content-length: 0", id="empty pieces"),
        pytest.param(writes(b"hi"), b"2\r\nhi\r\n1\r\n!\r\n0\r\n\r\n", b"", id="write()"),
        pytest.param(
            answers(b"", status="204 No Content", fields=[]), b"", b"HTTP/1.1 204", id="204"
        ),
    ],
)
@live
async def test_content_arrives_framed(app: Any, content: bytes, framing: bytes) -> None:
    async with serving(app) as server, await server.connect() as client:
        for _ in range(2):
            no_body = b"204" in framing
            await client.ask()
            response = await client.response(no_body=no_body)
            head, _, body = response.partition(b"\r\n\r\n")
            assert (body, framing in head) == (content, True)


@live
async def test_headers_may_come_as_other_pairs_and_differ_from_time_to_time() -> None:
    lengths = iter(range(1, 600))

    def app(environ: Environ, start: Start) -> list[bytes]:
        content = b"x" * next(lengths)
        pairs: Any = [["x-a", "1"], ("content-length", str(len(content)))]
        start("200 fine", pairs if len(content) % 2 else iter(pairs))
        return [content]

    async with serving(app, threads=1) as server, await server.connect() as client:
        for size in range(1, 600):
            head, _, content = (await client.get()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 fine\r\n")
            assert b"\r\nx-a: 1\r\n" in head
            assert content == b"x" * size


@pytest.mark.parametrize(
    ("status", "fields", "content", "told"),
    [
        ("200 OK", [("Content-Length", "5"), ("a", "b")], b"hello", b"content-length: 5"),
        ("200 OK", [("CONTENT-LENGTH", "5")], b"hello", b"content-length: 5"),
        ("200 OK", [("content-length", "05")], b"hello", b"content-length: 05"),
        ("200 OK", [("Content-Length", "0")], b"", b"content-length: 0"),
        ("200 OK", [("Content-Length", " 5\t")], b"hello", b"content-length: 5\r\n"),
        ("200 OK", [("Content-Length", "\u00b2")], b"he", None),
        ("200 OK", [("Content-Length", "+5")], b"hello", None),
        ("200 OK", [("Content-Length", "")], b"", None),
        ("304 Not Modified", [("Content-Length", "5")], b"", b"content-length: 5"),
        ("200 OK", [("Content-Length", "5")] * 2, b"hello", None),
        ("200 OK", [("Content-Length", "5"), ("CONTENT-LENGTH", "5")], b"hello", None),
        ("200 OK", [("Content-Length", "five")], b"hello", None),
        ("200 OK", [("Content-Length", 5)], b"hello", None),
        ("200 OK", [("Content-Length", "5")], b"", None),
        ("200 OK", [("Content-Length", "5", "6")], b"hello", None),
        ("200 OK", [()], b"hello", None),
        ("200 OK", 5, b"hello", None),
    ],
)
@live
async def test_a_length_is_told_once_and_as_it_is(
    status: str, fields: Any, content: bytes, told: bytes | None
) -> None:
    app = answers(content, status=status, fields=fields)
    async with serving(app, threads=1) as server, await server.connect() as client:
        for _ in range(4):  # not known, known without its length, and with it
            await client.ask()
            response = await client.response(no_body=b"304" in status.encode())
            head = response.partition(b"\r\n\r\n")[0].lower()
            assert head.count(b"content-length: ") == 1
            if told is None:
                assert head.startswith(b"http/1.1 500 ")
            else:
                assert told in head
                assert response.endswith(b"\r\n\r\n" + content)


@live
async def test_a_known_head_outlives_changes_of_its_list() -> None:
    headers = [("X-A", "1"), ("Content-Length", "5")]
    contents = iter([b"first", b"again", b"less", b"third", b"short", b"again"])

    def app(environ: Environ, start: Start) -> list[bytes]:
        start("200 OK", headers)
        if environ["PATH_INFO"] == "/changes":
            headers[0] = ("X-A", "2")
        return [next(contents)]

    async with serving(app, threads=1) as server, await server.connect() as client:
        first, again, less = [await client.get() for _ in range(3)]
        assert (first[-5:], again[-5:]) == (b"first", b"again")
        assert less.startswith(b"HTTP/1.1 500 ")
        assert b"X-A" not in less
        assert b"x-a: 1\r\n" in (await client.get("/changes")).lower()
        assert b"x-a: 2\r\n" in (await client.get()).lower()
        await client.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"content-length: 5\r\n" in (await client.response(no_body=True)).lower()


@pytest.mark.parametrize("app", [answers(b"hello"), generates(b"he", b"llo"), writes(b"hello")])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
@live
async def test_the_validator_has_nothing_to_say(app: Any, method: bytes) -> None:
    target = b"*" if method == b"OPTIONS" else b"/a%20b?c"
    async with serving(validator(app)) as server, await server.connect() as client:
        await client.send(b"%b %b HTTP/1.1\r\nhost: a.example\r\n\r\n" % (method, target))
        response = await client.response(no_body=method == b"HEAD")
        assert response.startswith(b"HTTP/1.1 200 OK\r\n")


@live
async def test_a_head_request_gets_no_content() -> None:
    async with (
        serving(generates(b"hello", fields=[("Content-Length", "5")])) as server,
        await server.connect() as client,
    ):
        for _ in range(2):
            await client.send(b"HEAD / HTTP/1.1\r\nhost: a.example\r\n\r\n")
            assert b"content-length: 5\r\n" in await client.response(no_body=True)


@live
async def test_each_piece_leaves_before_the_next_is_asked_for() -> None:
    seen = threading.Event()

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        yield b"first"
        assert seen.wait(25)
        yield b"second"

    async with serving(app) as server, await server.connect() as client:
        await client.ask()
        await client.read_until(b"first")
        seen.set()
        assert await client.read_until(b"0\r\n\r\n") == b"\r\n6\r\nsecond\r\n0\r\n\r\n"


class Closing:
    """A response that notes its `close`."""

    def __init__(self, pieces: Iterable[bytes], error: Exception | None = None) -> None:
        self.closed = threading.Event()
        self._pieces = pieces
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._error:
            raise self._error

    def close(self) -> None:
        self.closed.set()


def returns(content: Iterable[bytes]) -> Any:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        return content

    return app


@pytest.mark.parametrize("error", [None, ValueError("in the middle")])
@live
async def test_close_is_called_however_it_ends(
    error: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    content = Closing([b"hello"], error)
    async with serving(returns(content)) as server, await server.connect() as client:
        await client.ask()
        if error:
            assert await client.is_reset()
            assert "in the middle" in caplog.text
        else:
            await client.response()
        await until(content.closed.is_set)


@live
async def test_close_is_called_when_the_client_has_gone() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x"
            time.sleep(0.001)

    content = Closing(endless())
    async with serving(returns(content)) as server:
        async with await server.connect() as client:
            await client.ask()
            await client.read_until(b"x")
        await until(content.closed.is_set)
        await server.departures()


# start_response


def raise_(reason: str) -> None:
    raise KeyError(reason)


def second_start(*, exc_info: bool) -> Any:
    def app(environ: Environ, start: Start) -> list[bytes]:
        start("200 OK", PLAIN)
        try:
            raise_("a reason")
        except KeyError:
            start("500 Oops", PLAIN, sys.exc_info() if exc_info else None)
        return [b"sorry"]

    return app


@live
async def test_exc_info_replaces_a_head_that_was_not_sent() -> None:
    async with serving(second_start(exc_info=True)) as server, await server.connect() as client:
        response = await client.get()
    assert response.startswith(b"HTTP/1.1 500 Oops\r\n")
    assert response.endswith(b"sorry")


def late_start(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    yield b"begun"
    try:
        raise_("too late")
    except KeyError:
        start("500 Oops", PLAIN, sys.exc_info())


@live
async def test_a_start_that_failed_is_none() -> None:
    def app(environ: Environ, start: Start) -> list[bytes]:
        with pytest.raises(MessageError, match="not pairs of Latin-1 strings"):
            start("200 OK", [("x-a", None)])
        start("404 NOT FOUND", PLAIN)
        return [b"nothing"]

    async with serving(app) as server, await server.connect() as client:
        response = await client.get()
        assert response.startswith(b"HTTP/1.1 404 NOT FOUND\r\n")
        assert b"text/plain\r\n" in response.lower()


@live
async def test_exc_info_is_raised_when_the_head_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(late_start) as server, await server.connect() as client:
        await client.ask()
        assert await client.is_reset()
    assert "KeyError: 'too late'" in caplog.text


def does_not_start(environ: Environ, start: Start) -> list[bytes]:
    return [b"hello"]


def starts_and_fails(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", PLAIN)
    raise SystemExit("whatever it raises")


@pytest.mark.parametrize(
    ("app", "told"),
    [
        (does_not_start, "without calling start_response"),
        (starts_and_fails, "whatever it raises"),
        (second_start(exc_info=False), "a second time, without exc_info"),
        (answers(b"x", status="OK"), "the status is 'OK', not such as '200 OK'"),
        (answers(b"x", status="20 OK"), "the status is '20 OK'"),
        (answers(b"x", status="101 Switching Protocols"), "101 is not the status of a final"),
        (answers(b"x", fields=[("a", "b\r\nc: d")]), "a character that no header may have"),
        (generates(b"x", b"y", fields=[("a", "b\r\nc: d")]), "a character that no header may have"),
        (answers(b"x", fields=[("a", 1)]), "not pairs of Latin-1 strings"),
        (answers(b"x", fields=[("a", "\u20ac")]), "not pairs of Latin-1 strings"),
        (answers("text"), "content is str, not bytes"),  # type: ignore[arg-type]
        (generates("text"), "content is str, not bytes"),  # type: ignore[arg-type]
        (answers(b"x", status="1000 Much"), "the status is '1000 Much'"),
        (answers(b"x", status="200 OK\r\na: b"), "a character that none may have"),
        (writes(b"xyz", fields=[("content-length", "2")]), "1 bytes more than content-length"),
        (writes(b"xyz", fields=[("content-length", "0")]), "3 bytes more than content-length"),
        (answers(b"x", fields=[("content-length", "2")]), "1 bytes shorter"),
    ],
)
@live
async def test_what_breaks_the_rules_is_answered_500(
    app: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app) as server, await server.connect() as client:
        assert (await client.get()).startswith(b"HTTP/1.1 500 ")
        assert told in caplog.text
        # The connection, the thread and the loop go on.
        assert (await client.get()).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("app", "logged"),
    [
        (answers(b"he", b"llo"), "200 5"),
        (answers(b"", status="404 Nothing"), "404 0"),
        (generates(b"he", b"llo"), "200 5"),
        (writes(b"hello"), "200 6"),
        (does_not_start, "500 0"),
        (answers(b"xyz", fields=[("content-length", "2")]), "200 2"),
        (generates(b"xyz", b"z", fields=[("content-length", "2")]), "200 2"),
        (answers(b"xyz", fields=[("content-length", "4")]), "500 0"),
    ],
)
@live
async def test_the_access_log_has_what_was_answered(
    app: Any, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pounce.access")
    async with serving(app, access_log="on") as server, await server.connect() as client:
        for _ in range(2):  # the second time the head is known
            await client.ask()
            await client.response()
        lines = [each.getMessage() for each in caplog.records if each.name == "pounce.access"]
    assert len(lines) == 2
    assert all(line.startswith(f'127.0.0.1 "GET / HTTP/1.1" {logged} 0.') for line in lines)


@live
async def test_too_little_or_too_much_of_write_in_pieces_is_no_whole_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    length = [("content-length", "3")]
    for app in (generates(b"a", fields=length), writes(b"a", b"bcd", fields=length)):
        async with serving(app) as server, await server.connect() as client:
            await client.ask()
            assert await client.is_reset()
    assert "the body is 2 bytes shorter" in caplog.text
    assert "write() was given 1 bytes more than content-length" in caplog.text


def writes_all(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [("Content-Length", "5")])(b"hello")
    return [b" and more"]


def writes_some(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", [("Content-Length", "5")])(b"hel")
    return [b"lo", b" and more"]


@pytest.mark.parametrize(
    "app",
    [
        answers(b"hello and more", fields=[("Content-Length", "5")]),
        answers(b"he", b"llo", b" and more", fields=[("Content-Length", " 5 ")]),
        generates(b"hello and more", fields=[("Content-Length", "5")]),
        generates(b"he", b"llo", b"", b" and", b" more", fields=[("CONTENT-LENGTH", "5")]),
        generates(b"hello", b" and more", fields=[("Content-Length", "5")]),
        writes_all,
        writes_some,
    ],
)
@live
async def test_content_beyond_the_length_is_left_and_the_connection_stays(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(app, threads=1) as server, await server.connect() as client:
        for _ in range(4):
            response = await client.get()
            assert response.startswith(b"HTTP/1.1 200 OK\r\n")
            assert response.endswith(b"\r\n\r\nhello")
            await client.send(b"HEAD / HTTP/1.1\r\nhost: a.example\r\n\r\n")
            assert b"content-length: 5\r\n" in await client.response(no_body=True)
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\nhello")
    assert not caplog.records


@pytest.mark.parametrize(
    ("length", "asked_for"),
    [
        ("4", 3),  # the last promised piece may not be the last
        ("3", 2),
        ("0", 1),
    ],
)
@live
async def test_no_more_is_asked_for_than_was_promised(length: str, asked_for: int) -> None:
    pieces = Pieces()

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [("Content-Length", length)])
        return pieces

    async with serving(app) as server, await server.connect() as client:
        assert (await client.get()).endswith(b"\r\n\r\n" + b"x" * int(length))
        await until(lambda: pieces.closed == 1)
    assert pieces.given == asked_for


@live
async def test_of_an_endless_response_a_head_request_takes_one_piece() -> None:
    pieces = Pieces()
    async with serving(returns(pieces)) as server, await server.connect() as client:
        await client.send(b"HEAD / HTTP/1.1\r\nhost: a.example\r\n\r\n")
        assert b"content-length" not in await client.response(no_body=True)
        await until(lambda: pieces.closed == 1)
    assert pieces.given == 2


class Pieces:
    """An endless response that counts."""

    def __init__(self) -> None:
        self.given = self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.given += 1
        return b"xx"

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
@live
async def test_what_is_written_where_no_content_goes_is_no_error(
    method: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    status = "200 OK" if method == b"HEAD" else "304 Not Modified"
    app = writes(b"hello", b"hello", status=status, fields=[("Content-Length", "5")])
    async with serving(app) as server, await server.connect() as client:
        for _ in range(2):
            await client.send(b"%b / HTTP/1.1\r\nhost: a.example\r\n\r\n" % method)
            head = await client.response(no_body=True)
            assert head.startswith(b"HTTP/1.1 " + status.encode())
            assert b"content-length: 5\r\n" in head
    assert not caplog.records


@live
async def test_a_failed_write_can_be_made_good() -> None:
    def app(environ: Environ, start: Start) -> list[bytes]:
        write = start("200 OK", [("Content-Length", "5")])
        write(b"hel")
        with pytest.raises(MessageError):
            write(b"lo and more")
        return [b"lo"]

    async with serving(app) as server, await server.connect() as client:
        for _ in range(2):
            assert (await client.get()).endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("200 OK", b"200 OK"),
        ("200 Fine", b"200 Fine"),
        ("404 NOT FOUND", b"404 NOT FOUND"),
        ("200 Gr\u00fcn\t:)", b"200 Gr\xfcn\t:)"),
        ("200", b"200 OK"),
        ("299 Odd", b"299 Odd"),
        ("299", b"299 "),
        ("418 Short and stout", b"418 Short and stout"),
        ("599 Last", b"599 Last"),
        ("600 Of its own", b"600 Of its own"),
        ("999 The end", b"999 The end"),
    ],
)
@pytest.mark.parametrize("make", [answers, generates])
@live
async def test_the_status_line_is_the_application_s(make: Any, status: str, line: bytes) -> None:
    async with (
        serving(make(b"he", b"llo", status=status)) as server,
        await server.connect() as client,
    ):
        for _ in range(4):
            assert (await client.get()).startswith(b"HTTP/1.1 " + line + b"\r\n")


# Requests


def digests(environ: Environ, start: Start) -> list[bytes]:
    """Reads by all the ways there are, and answers how much and what it was."""
    data = environ["wsgi.input"]
    read = data.read(1) + data.readline() + b"".join(data.readlines(10)) + data.read(10**9)
    start("200 OK", PLAIN)
    length = environ.get("CONTENT_LENGTH", "-")
    return [b"%b %d %b" % (length.encode(), len(read), hashlib.sha256(read).hexdigest().encode())]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1, 1000, storage.MEMORY, storage.MEMORY * 3])
@live
async def test_content_is_there_whole(size: int, chunked: bool) -> None:
    content = b"line\n" * (size // 5) + b"x" * (size % 5)
    request = b"POST / HTTP/1.1\r\nhost: a.example\r\n"
    if chunked:
        half = size // 2
        request += b"transfer-encoding: chunked\r\n\r\n"
        for part in filter(None, (content[:half], content[half:])):
            request += b"%x\r\n%b\r\n" % (len(part), part)
        request += b"0\r\n\r\n"
    else:
        request += b"content-length: %d\r\n\r\n%b" % (size, content)
    async with serving(validator(digests)) as server, await server.connect() as client:
        await client.send(request)
        response = await client.response()
        expected = b"%d %d %b" % (size, size, hashlib.sha256(content).hexdigest().encode())
        assert expected in response


@live
async def test_content_that_turns_out_to_be_empty_is_none() -> None:
    head = b"POST / HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n"
    async with serving(digests) as server, await server.connect() as client:
        for waits in (True, False):
            await client.send(head)
            if waits:
                await until(lambda: any(each.busy for each in server.context.connections))
            await client.send(b"0\r\n\r\n")
            assert b"\r\n\r\n- 0 " in await client.response()


@live
async def test_an_empty_input_stays_so_whatever_is_done_to_it() -> None:
    def app(environ: Environ, start: Start) -> list[bytes]:
        data = environ["wsgi.input"]
        with pytest.raises(OSError, match="write"):
            data.write(b"for the next request")
        read = [data.read(), data.read(1), data.readline(), *data, *data.readlines()]
        assert (data.seek(5), data.tell(), data.readinto(bytearray(5))) == (0, 0, 0)
        with data:
            read.append(data.read1(5))
        start("200 OK", PLAIN)
        return [b"%r" % b"".join(read)]

    async with serving(app, threads=1) as server, await server.connect() as client:
        for _ in range(3):
            assert (await client.get()).endswith(b"\r\n\r\nb''")


@live
async def test_requests_that_are_alike_share_nothing() -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start: Start) -> list[bytes]:
        seen.append(dict(environ))
        content = environ["wsgi.input"].read()
        start("200 OK", PLAIN)
        environ.clear()
        return [content]

    async with serving(app) as server, await server.connect() as client:
        for number in range(5):
            request = b"POST /a?b HTTP/1.1\r\nhost: a.example\r\ncontent-length: 1\r\n\r\n%d"
            await client.send(request % number)
            assert (await client.response()).endswith(b"\r\n\r\n%d" % number)
        for _ in range(5):
            await client.get("/c")
    inputs = [environ.pop("wsgi.input") for environ in seen]
    assert len({id(each) for each in inputs[:5]}) == 5
    assert seen == [seen[0]] * 5 + [seen[-1]] * 5
    assert (seen[0]["PATH_INFO"], seen[-1]["PATH_INFO"]) == ("/a", "/c")
    assert seen[0]["CONTENT_LENGTH"] == "1"
    assert "CONTENT_LENGTH" not in seen[-1]


@live
async def test_a_slow_client_occupies_no_thread() -> None:
    calls = []

    def app(environ: Environ, start: Start) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        start("200 OK", PLAIN)
        return [environ["wsgi.input"].read()]

    async with serving(app, threads=1) as server:
        slow = [await server.connect() for _ in range(5)]
        for client in slow:
            await client.send(
                b"POST /slow HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\n\r\na"
            )
        async with await server.connect() as quick:
            await quick.get("/quick")
        assert calls == ["/quick"]
        for client in slow:
            await client.send(b"b")
            assert (await client.response()).endswith(b"\r\n\r\nab")
            client.sock.close()


@live
async def test_who_asks_is_told_to_continue() -> None:
    async with serving(digests) as server, await server.connect() as client:
        await client.send(
            b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n"
            b"expect: 100-continue\r\n\r\n"
        )
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        assert b"5 5 2cf24dba" in await client.response()


@live
async def test_content_that_comes_too_slowly_is_answered_408() -> None:
    async with serving(digests, body_timeout=0.1) as server, await server.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhel")
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


@live
async def test_nobody_hears_of_a_client_that_leaves_before_its_content_is_there() -> None:
    calls = []

    def app(environ: Environ, start: Start) -> list[bytes]:
        calls.append(environ)
        return []

    async with serving(app) as server:
        async with await server.connect() as client:
            await client.send(b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhel")
            await server.connection()
        await server.departures()
    assert calls == []


@live
async def test_pipelined_requests_are_answered_in_turn() -> None:
    def app(environ: Environ, start: Start) -> list[bytes]:
        start("200 OK", PLAIN)
        return [environ["PATH_INFO"].encode() + environ["wsgi.input"].read()]

    async with serving(app) as server, await server.connect() as client:
        await client.send(
            b"GET /1 HTTP/1.1\r\nhost: a.example\r\n\r\n"
            b"POST /2 HTTP/1.1\r\nhost: a.example\r\ncontent-length: 1\r\n\r\n!"
            b"GET /3 HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n"
        )
        for body in (b"/1", b"/2!", b"/3"):
            assert (await client.response()).endswith(b"\r\n\r\n" + body)
        assert await client.rest() == b""


# Threads


@live
async def test_as_many_requests_run_as_there_are_threads() -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3)

    def app(environ: Environ, start: Start) -> list[bytes]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(25)
        with lock:
            running -= 1
        start("200 OK", PLAIN)
        return [b""]

    async with serving(app, threads=3) as server:
        clients = [await server.connect() for _ in range(12)]
        for client in clients:
            await client.ask()
        for client in clients:
            await client.response()
            client.sock.close()
    assert most == 3


@live
async def test_a_reader_slower_than_its_response_gives_the_thread_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "AHEAD", 100_000)

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        if environ["PATH_INFO"] == "/much":
            return (b"x" * 65_536 for _ in range(50))
        return [b"hello"]

    async with (
        serving(app, threads=1) as server,
        await server.connect(receive_buffer=4096) as slow,
        await server.connect() as quick,
    ):
        await slow.ask("/much", "connection: close")
        await slow.read_until(b"\r\n\r\n")
        for _ in range(3):
            assert (await quick.get()).endswith(b"hello")
        rest = await slow.rest()
    assert rest.count(b"x") == 50 * 65_536
    assert rest.endswith(b"0\r\n\r\n")


@live
async def test_a_reader_that_stops_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    closed = threading.Event()

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        try:
            while True:
                yield b"x" * 65_536
        finally:
            closed.set()

    async with (
        serving(app, write_timeout=0.2) as server,
        await server.connect(receive_buffer=4096) as client,
    ):
        await client.ask()
        await until(closed.is_set)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@live
async def test_a_thread_that_is_stuck_is_told_and_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go = threading.Event()

    def app(environ: Environ, start: Start) -> list[bytes]:
        if environ["PATH_INFO"] == "/stuck":
            assert go.wait(25)
        start("200 OK", PLAIN)
        return [b"hello"]

    async with (
        serving(app, threads=1, patience=0.1) as server,
        await server.connect() as stuck,
        await server.connect() as client,
    ):
        await stuck.ask("/stuck")
        assert (await client.get()).endswith(b"hello")
        assert "a thread is stuck, and another takes its place: GET /stuck" in caplog.text
        assert "assert go.wait(25)" in caplog.text
        go.set()
        # What it answers at last is sent as ever.
        assert (await stuck.response()).endswith(b"hello")


@live
async def test_a_response_that_goes_on_for_long_is_not_stuck(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go = threading.Event()

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        yield b"begun"
        if environ["PATH_INFO"] == "/events":
            assert go.wait(25)
            yield b"ended"

    async with serving(app, threads=1, patience=0.1) as server:
        streams = [await server.connect() for _ in range(3)]
        for stream in streams:
            await stream.ask("/events")
        async with await server.connect() as client:
            assert b"begun" in await client.get()
        go.set()
        for stream in streams:
            assert b"ended" in await stream.response()
            stream.sock.close()
    assert "stuck" not in caplog.text


@live
async def test_a_request_in_flight_is_told_with_its_thread() -> None:
    go = threading.Event()

    def app(environ: Environ, start: Start) -> list[bytes]:
        assert go.wait(25)
        start("200 OK", PLAIN)
        return []

    async with (
        serving(app, threads=1) as server,
        await server.connect() as first,
        await server.connect() as second,
    ):
        await first.ask("/a")
        await until(lambda: " s <- in thread test-1\n" in server.context.in_flight())
        await second.ask("/b")
        await until(lambda: "waits for a thread" in server.context.in_flight())
        go.set()
        await first.response()
        await second.response()
