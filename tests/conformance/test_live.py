"""Every case of the corpus against live servers: the engine on both loops, and the program."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
import uvloop

from tests.conformance import corpus, echo
from tests.conformance.client import Client
from tests.conformance.corpus import Case, ExpectedRequest
from tests.conformance.servers import LiveServer, serve_in_process, serve_in_thread
from tests.conformance.verdict import CONFIG

SERVERS: dict[str, Callable[[], AbstractContextManager[LiveServer]]] = {
    "asyncio": partial(serve_in_thread, echo.app, CONFIG, asyncio.new_event_loop),
    "uvloop": partial(serve_in_thread, echo.app, CONFIG, uvloop.new_event_loop),
    "program": partial(
        serve_in_process,
        "tests.conformance.echo:app",
        "--max-body-size",
        str(corpus.MAX_BODY_SIZE),
    ),
}

Record = dict[str, Any]


@pytest.fixture(scope="module", params=SERVERS)
def long_lived(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """One server for the whole corpus: what a case breaks, the next one finds broken."""
    with SERVERS[request.param]() as server:
        yield server


@pytest.fixture
def server(long_lived: LiveServer) -> LiveServer:
    long_lived.reset()
    return long_lived


@pytest.fixture(params=[None, 7], ids=["whole", "sevens"])
def piece(request: pytest.FixtureRequest) -> int | None:
    """How many bytes are sent at a time."""
    size: int | None = request.param
    return size


@pytest.mark.parametrize("case", corpus.VALID, ids=lambda case: case.name)
def test_valid(case: Case, server: LiveServer, piece: int | None) -> None:
    with server.connect() as client:
        client.send(_pieces(case.raw, piece))
        _read_answers(client, case)
        if "keep" in case.outcome:
            kept = client.get(echo.SEEN)
            assert kept is not None, "the connection was closed"
            seen = kept.json()
        else:
            assert client.read("GET") is None, "the connection was kept, or answered too often"
            seen = server.take_seen()
    _compare(seen, case)
    assert not server.complaints


@pytest.mark.parametrize("case", corpus.INVALID, ids=lambda case: case.name)
def test_invalid(case: Case, server: LiveServer, piece: int | None) -> None:
    with server.connect() as client:
        client.send(_pieces(case.raw, piece))
        if "incomplete" in case.outcome:
            client.finish_sending()
        _read_answers(client, case)
        refusal = client.read("GET")
        if refusal is None:
            assert "incomplete" in case.outcome, "the connection was closed without a word"
        else:
            allowed = case.statuses | ({400} if "incomplete" in case.outcome else set())
            assert refusal.status in allowed
            assert refusal.headers["connection"] == "close"
            assert client.read("GET") is None, "the connection was kept, or answered too often"
    _compare(server.take_seen(), case)
    assert not server.complaints


def _pieces(data: bytes, size: int | None) -> Iterator[bytes]:
    # A long message in small pieces proves nothing more and takes its time.
    if size is None or len(data) > 2000:
        size = len(data)
    return (data[at : at + size] for at in range(0, len(data), size))


def _read_answers(client: Client, case: Case) -> None:
    for request in case.complete:
        response = client.read(request.method)
        assert response is not None, f"no answer to {request}"
        assert response.status == 200


def _compare(seen: list[Record], case: Case) -> None:
    """Whether the application saw what it should, and not a request more."""
    complete = [record for record in seen if record["complete"]]
    for record, expected in zip(complete, case.complete, strict=True):
        _compare_request(record, expected)
    begun = [record["method"] for record in seen if not record["complete"]]
    may_begin = [request.method for request in case.requests if not request.complete]
    assert begun in ([], may_begin)


def _compare_request(record: Record, expected: ExpectedRequest) -> None:
    assert record["method"] == expected.method
    assert record["version"] == expected.version
    assert record["body"].encode("latin-1") == expected.body
    for name in {name for name, _ in expected.headers}:
        assert _values(record, name) == [v for n, v in expected.headers if n == name]
    if expected.host is not None:
        assert _values(record, b"host") == [expected.host]
    _compare_target(record, expected)


def _compare_target(record: Record, expected: ExpectedRequest) -> None:
    raw_path, _, query = expected.target.partition(b"?")
    assert record["query"].encode("latin-1") == (
        query if expected.query is None else expected.query
    )
    if raw_path.startswith(b"/"):
        assert record["raw_path"].encode("latin-1") == raw_path
    path = raw_path if expected.path is None else expected.path
    assert record["path"] == path.decode("utf-8")


def _values(record: Record, name: bytes) -> list[bytes]:
    return [
        value.encode("latin-1")
        for found, value in record["headers"]
        if found.encode("latin-1") == name
    ]
