"""The corpus itself: that its files say what they mean, and what h11 alone makes of them."""

import h11
import pytest

from tests.conformance import corpus
from tests.conformance.corpus import Case, ExpectedRequest

FILE = """\
title:   Two requests
because: RFC 9112 section 9.3.2,
         on two lines
request: POST /form?a=1
header:  x-a: b: c
header:  x-empty:
body:    \\x00\\r\\n
begins:  PUT /
outcome: 400 or 501

POST /form?a=1 HTTP/1.1\\r\\n

\\(ab\\(c)*2)*2
"""


def test_a_file_is_read() -> None:
    case = corpus.parse("valid/two", FILE)
    assert case == Case(
        name="valid/two",
        raw=b"POST /form?a=1 HTTP/1.1\r\nabccabcc",
        title="Two requests",
        because="RFC 9112 section 9.3.2, on two lines",
        outcome=frozenset({"400", "501"}),
        requests=(
            ExpectedRequest(
                "POST",
                b"/form?a=1",
                headers=((b"x-a", b"b: c"), (b"x-empty", b"")),
                body=b"\x00\r\n",
            ),
            ExpectedRequest("PUT", b"/", complete=False),
        ),
    )
    assert case.statuses == {400, 501}
    assert case.complete == case.requests[:1]


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", b""),
        ("a b", b"a b"),
        ("\\r\\n\\t\\\\", b"\r\n\t\\"),
        ("\\x00\\xff", b"\x00\xff"),
        ("\\(ab)*3", b"ababab"),
        ("\\(a)*0", b""),
        ("\\(\\(a)*2b)*2", b"aabaab"),
        ("(a)", b"(a)"),
        ("\\(a)*2\n0", b"aa0"),
    ],
)
def test_unescape(text: str, data: bytes) -> None:
    assert corpus.unescape(text) == data


@pytest.mark.parametrize("text", ["\\q", "\\xg0", "\\xFF", "\\(a", "a)*3", "\t", "ä", "\\"])
def test_unescape_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        corpus.unescape(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title:", "titel:"), "titel"),
        (("outcome: 400 or 501\n", ""), "required"),
        (("400 or 501", "maybe"), "unknown outcome"),
        (("request: POST /form?a=1\n", ""), "before any request"),
        (("request: POST /form?a=1", "request"), "no colon"),
    ],
)
def test_a_wrong_file_is_refused(change: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corpus.parse("valid/two", FILE.replace(*change))


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(corpus.VALID) >= 80
    assert len(corpus.INVALID) >= 110


@pytest.mark.parametrize("case", corpus.ALL, ids=lambda case: case.name)
def test_a_case_is_consistent(case: Case) -> None:
    valid = case.name.startswith("valid/")
    assert valid == bool(case.outcome & {"keep", "close"})
    assert case.because.startswith("RFC "), "a section decides"
    assert case.h11 in {"", "accepts", "rejects"}
    if valid:
        assert case.requests
        assert all(request.complete for request in case.requests)
        assert len(case.outcome) == 1
    assert all(request.complete for request in case.requests[:-1])


def test_no_two_cases_send_the_same() -> None:
    by_raw: dict[bytes, str] = {}
    for case in corpus.ALL:
        assert case.raw not in by_raw, f"{case.name} repeats {by_raw[case.raw]}"
        by_raw[case.raw] = case.name


@pytest.mark.parametrize("case", corpus.ALL, ids=lambda case: case.name)
def test_what_h11_alone_does_is_recorded(case: Case) -> None:
    assert _h11_accepts(case) == case.h11_accepts


def _h11_accepts(case: Case) -> bool:
    """Whether h11, answering each request with 404, reads it all without an error."""
    # Its limit depends on how the bytes arrive, so it is no part of the verdict.
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(case.raw))
    connection.receive_data(case.raw)
    if "incomplete" in case.outcome:
        connection.receive_data(b"")
    try:
        while _h11_step(connection):
            pass
    except (h11.RemoteProtocolError, ValueError):  # 0.14 leaves thousands of digits to int()
        return False
    return True


def _h11_step(connection: h11.Connection) -> bool:
    event = connection.next_event()
    if isinstance(event, h11.EndOfMessage):
        response = h11.Response(status_code=404, headers=[("content-length", "0")])
        connection.send(response)
        connection.send(h11.EndOfMessage())
        if connection.our_state is h11.MUST_CLOSE:
            return False
        connection.start_next_cycle()
    return event is not h11.NEED_DATA and event is not h11.PAUSED
