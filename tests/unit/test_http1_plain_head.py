"""Plain heads: what is recognised as one, and that the writer would have made the same of it."""

from typing import Any

import pytest

from pounce.application.types import MessageError
from pounce.config.service import ServerConfig
from pounce.http.defaults import DefaultHeaders, FieldLines
from pounce.http1.plain_head import plain_head
from pounce.http1.response import ResponseWriter

BARE = DefaultHeaders(ServerConfig(server_header=False, date_header=False))

PLAIN: list[tuple[int, Any]] = [
    (200, []),
    (200, ()),
    (404, [(b"X-A", b"b"), (b"x-a", b"")]),
    (200, ((b"content-type", b"text/plain"), (b"Content-Length", b"2"))),
]


@pytest.mark.parametrize("content", [[b"hi"], [b"h", b"i"]])
@pytest.mark.parametrize(("status", "headers"), PLAIN)
def test_a_writer_goes_on_with_a_plain_head(
    status: int, headers: Any, content: list[bytes]
) -> None:
    judged, given = (ResponseWriter(BARE, "GET", "1.1", True) for _ in range(2))
    judged.start(status, headers)
    head = plain_head(status, headers, BARE.lines)
    assert head is not None
    given.start_plain(head)
    assert sent(given, content) == sent(judged, content)


@pytest.mark.parametrize(("status", "headers"), PLAIN)
def test_the_lines_of_a_plain_head(status: int, headers: Any) -> None:
    writer = ResponseWriter(BARE, "GET", "1.1", True)
    writer.start(status, headers)
    head = plain_head(status, headers, BARE.lines)
    assert head is not None
    _, lines, _, length_line = head
    framing = length_line or b"content-length: 2\r\n"
    assert b"".join(lines) + framing + b"\r\nhi" == sent(writer, [b"hi"])


@pytest.mark.parametrize("status", [199, 204, 205, 299, 304, 600])
def test_a_status_with_consequences_is_not_plain(status: int) -> None:
    assert plain_head(status, [], FieldLines()) is None


@pytest.mark.parametrize(
    "headers",
    [
        iter([(b"x", b"y")]),
        [[b"x", b"y"]],
        [(b"connection", b"close")],
        [(b"transfer-encoding", b"chunked")],
        [(b"server", b"me")],
        [(b"date", b"today")],
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"x",)],
        [("x", "y")],
        [None],
    ],
)
def test_fields_with_consequences_are_not_plain(headers: Any) -> None:
    assert plain_head(200, headers, FieldLines()) is None


def test_a_field_that_ends_early_is_refused() -> None:
    with pytest.raises(MessageError, match="character that no header may have"):
        plain_head(200, [(b"x", b"y\r\nz: z")], FieldLines())


def test_lines_are_remembered_only_so_long() -> None:
    lines = FieldLines()
    for number in range(10_000):
        plain_head(200, [(b"x", b"%d" % number)], lines)
        assert len(lines) < 1000
    assert lines[b"x", b"9999"] == (None, b"x: 9999\r\n")


def sent(writer: ResponseWriter, content: list[bytes]) -> bytes:
    last = len(content) - 1
    return b"".join(
        piece for at, part in enumerate(content) for piece in writer.body(part, at < last)
    )
