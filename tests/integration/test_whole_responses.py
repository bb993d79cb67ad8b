"""A response that is whole on the wire is over for its client, whatever the application does."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pounce.application.types import Receive, Scope, Send
from pounce.asgi import departure
from tests.carriers import carried, every_carrier
from tests.live import Client, live, read_body, serve, until
from tests.wsgi import Environ, Start, serving

# How a response says that all of it is here: by its length, or because it has no content.
LENGTH = ("GET", 200, [(b"content-length", b"2")])
EMPTY = ("GET", 200, [(b"content-length", b"0")])
HEAD = ("HEAD", 200, [(b"content-length", b"5000")])
NONE = ("GET", 304, [(b"etag", b'"a"')])
kinds = pytest.mark.parametrize(
    "kind", [LENGTH, EMPTY, HEAD, NONE], ids=["length", "empty", "HEAD", "304"]
)


class Works:
    """An application that works on for long once its response is whole, and then ends it."""

    def __init__(self, kind: tuple[str, int, Any]) -> None:
        self.method, self.status, self.fields = kind
        self.body = b"ok" if kind is LENGTH else b""
        self.goes_on, self.ended = threading.Event(), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send({"type": "http.response.start", "status": self.status, "headers": self.fields})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        if scope["path"] == "/work":
            while not self.goes_on.is_set():
                await asyncio.sleep(0.005)
        await send({"type": "http.response.body"})
        self.ended.set()


async def ask(client: Client, method: str, *targets: str) -> None:
    requests = [f"{method} {each} HTTP/1.1\r\nhost: a\r\n\r\n" for each in targets]
    await client.send("".join(requests).encode())


@kinds
@every_carrier
@live
async def test_its_end_does_not_wait_for_the_application(
    name: str, kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = Works(kind)
    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask("/work", app.method)
        await response.head()
        if name == "http3":
            assert await response.end() == "whole"
        await until(lambda: not any(each.busy for each in carrier.context.connections))
        assert not app.ended.is_set()
        app.goes_on.set()
        await until(app.ended.is_set)
    assert not caplog.records


@kinds
@live
async def test_the_next_requests_of_the_connection_do_not_wait(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = Works(kind)
    async with serve(app) as server, await server.connect() as client:
        await ask(client, app.method, "/work", "/", "/")
        expected = b"HTTP/1.1 %d " % app.status
        while client.received.count(expected) < 3:
            assert await client.more()
        await ask(client, app.method, "/")
        while client.received.count(expected) < 4:
            assert await client.more()
        app.ended.clear()
        app.goes_on.set()
        await until(app.ended.is_set)
    assert not caplog.records


@live
async def test_content_of_the_next_request_is_not_taken_by_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who asks for more content when his response is whole gets none of another request."""
    heard: list[str] = []
    bodies: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            bodies.append(await read_body(receive))
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH[2]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        waits = asyncio.ensure_future(receive())
        await until(lambda: bool(bodies))
        assert not waits.done()
        await send({"type": "http.response.body"})
        heard.append((await waits)["type"])

    async with serve(app) as server, await server.connect() as client:
        await ask(client, "GET", "/")
        while b"ok" not in client.received:
            assert await client.more()
        await client.send(b"PUT /next HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc")
        await until(lambda: len(heard) == 2)
    assert bodies == [b"abc"]
    assert heard == ["http.disconnect"] * 2
    assert not caplog.records


@every_carrier
@live
async def test_an_endless_stream_that_head_asks_for_ends(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    ended = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"tick", "more_body": True})
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask("/", "HEAD")
        await response.head()
        await until(ended.is_set)
    assert not caplog.records


@live
async def test_an_endless_iterable_that_head_asks_for_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed = threading.Event()

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [])
        try:
            while True:
                yield b"tick"
        finally:
            closed.set()

    async with serving(app) as server, await server.connect() as client:
        for _ in range(3):
            closed.clear()
            await ask(client, "HEAD", "/")
            await client.read_until(b"\r\n\r\n")
            await until(closed.is_set)
    assert not caplog.records


@every_carrier
@live
async def test_more_than_was_promised_is_an_error_also_then(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH[2]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})
        await send({"type": "http.response.body", "body": b"and more"})

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(b"ok")
        await until(lambda: bool(caplog.records))
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    assert "longer than its content-length" in caplog.text


@every_carrier
@live
async def test_who_never_says_that_it_was_the_last_is_told_of(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": LENGTH[2]})
        await send({"type": "http.response.body", "body": b"ok", "more_body": True})

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(b"ok")
        await until(lambda: bool(caplog.records))
    assert "returned without sending the whole response" in caplog.text
