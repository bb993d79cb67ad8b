"""Requests of the corpus, damaged at random: readers and connections must hold.

A reader may serve or refuse what comes, but it must not depend on how the bytes arrive; a
connection must answer as the reader judged, and never fail.
"""

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pounce.http1.events import RequestHead
from pounce.http1.reader import RequestReader
from pounce.http1.strict_reader import StrictReader
from tests.conformance import corpus, echo
from tests.conformance.servers import LiveServer, serve_in_thread
from tests.conformance.verdict import CONFIG, READERS, Verdict, judge

Change: TypeAlias = Callable[[bytes], bytes]

# Messages short enough to damage where it matters.
ORIGINALS = [case.raw for case in corpus.ALL if len(case.raw) < 1000]
FRAGMENTS = [
    *(bytes([octet]) for octet in (0, 9, 10, 11, 13, 32, 44, 58, 59, 127, 128, 255)),
    *(b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\n ", b"0\r\n\r\n", b"HTTP/1.1", b"Host: x\r\n"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"Expect: 100-continue\r\n", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"),
]
UNKNOWN_CODING = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow, chunked\r\n\r\n0\r\n\r\n"


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """One piece of damage: cut, overwrite, insert or repeat."""
    at = draw(st.floats(0, 1))
    length = draw(st.sampled_from([0, 0, 1, 2, 5, 30]))
    insert = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=4) | st.none())

    def change(data: bytes) -> bytes:
        start = int(at * len(data))
        removed = data[start : start + length]
        added = removed * 2 if insert is None else insert
        return data[:start] + added + data[start + length :]

    return change


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One or two messages of the corpus, damaged once or more."""
    data = b"".join(draw(st.lists(st.sampled_from(ORIGINALS), min_size=1, max_size=2)))
    for change in draw(st.lists(changes(), min_size=1, max_size=4)):
        data = change(data)
    return data


def _pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        if end > start:
            yield data[start:end]


def _summary(verdict: Verdict) -> tuple[list[tuple[RequestHead, bytes]], bool, int | None]:
    complete = [(seen.head, bytes(seen.body)) for seen in verdict.complete]
    return complete, len(verdict.requests) > len(complete), verdict.status


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=500, deadline=None)
@given(data=messages(), cuts=st.lists(st.integers(0, 2000), max_size=12))
@example(data=b"\r\n\r\n" + UNKNOWN_CODING, cuts=[4])
def test_a_verdict_does_not_depend_on_how_bytes_arrive(
    reader: type[RequestReader], data: bytes, cuts: list[int]
) -> None:
    whole = judge(reader(CONFIG), [data], eof=True)
    split = judge(reader(CONFIG), _pieces(data, cuts), eof=True)
    assert _summary(split) == _summary(whole)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serve_in_thread(echo.app, CONFIG, asyncio.new_event_loop) as server:
        yield server


@settings(max_examples=300, deadline=None)
@given(data=messages(), cuts=st.lists(st.integers(0, 2000), max_size=3))
def test_a_connection_does_as_the_reader_judged(
    server: LiveServer, data: bytes, cuts: list[int]
) -> None:
    verdict = judge(StrictReader(CONFIG), [data], eof=False)
    with server.connect() as client:
        client.send(_pieces(data, cuts))
        client.finish_sending()
        for seen in verdict.complete:
            response = client.read(seen.head.method)
            assert response is not None
            assert response.status == 200
        refusal = client.read("GET")
        if verdict.status is not None:
            assert refusal is not None
            assert refusal.status == verdict.status
        elif refusal is not None:
            # The client ended in the middle of a request; a server need not say so.
            assert refusal.status == 400
        assert client.read("GET") is None
    complete = [record for record in server.take_seen() if record["complete"]]
    assert len(complete) == len(verdict.complete)
    assert not server.complaints
