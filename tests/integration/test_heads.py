"""Heads of responses: with their content where that comes soon, by themselves where it does not."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from pounce.application.types import Receive, Scope, Send
from tests.carriers import carried, every_carrier
from tests.live import hello, live, read_body, serve


def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 203, "headers": headers}


CONTENT = {"type": "http.response.body", "body": b"payload"}
EVENTS = (b"content-type", b"text/event-stream")
LENGTH = (b"content-length", b"7")


@every_carrier
@pytest.mark.parametrize("headers", [(EVENTS,), (LENGTH,), ()])
@live
async def test_a_head_does_not_wait_long(
    headers: tuple[tuple[bytes, bytes], ...], name: str, tmp_path: Path
) -> None:
    seen = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await asyncio.sleep(0)  # also one that has waited before it begins
        await send(start(*headers))
        while not seen.is_set():
            await asyncio.sleep(0.01)
        await send(CONTENT)

    async with carried(name, app, tmp_path) as carrier:
        for _ in range(2):
            response = await carrier.ask()
            await response.head()
            seen.set()
            await response.until(b"payload")
            seen.clear()
            response.leave()


@live
async def test_a_head_leaves_with_content_that_comes_soon() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await asyncio.sleep(0.01)
        await send(CONTENT)

    async with serve(app) as server, await server.connect() as client:
        for _ in range(3):
            await client.ask()
            assert await client.more()
            # One read has all of it, and since it was whole, its length could be told.
            assert client.received.startswith(b"HTTP/1.1 203 ")
            assert b"\r\ncontent-length: 7\r\n" in client.received
            assert client.received.endswith(b"\r\n\r\npayload")
            client.received = b""


@every_carrier
@live
async def test_a_failure_after_the_head_is_no_whole_response(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send(start())
        while not seen.is_set():
            await asyncio.sleep(0.01)
        raise ValueError("too late for a 500")

    seen = threading.Event()
    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await response.head()
        seen.set()
        assert await response.end() == "reset"
    assert "too late for a 500" in caplog.text


@live
async def test_a_connection_goes_on_after_a_head_that_went_ahead() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/":
            await hello(scope, receive, send)
            return
        await send(start(LENGTH))
        await asyncio.sleep(0.15)
        await send(CONTENT)

    async with serve(app) as server, await server.connect() as client:
        for target in ("/slow", "/", "/slow", "/"):
            answer = await client.get(target)
            assert answer.endswith(b"hello" if target == "/" else b"payload")


@live
async def test_responses_without_content_stay_so() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status = 204 if scope["path"] == "/none" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await asyncio.sleep(0.15)
        await send({"type": "http.response.body"})

    async with serve(app) as server, await server.connect() as client:
        for request in (b"HEAD / ", b"GET /none ", b"HEAD /none "):
            await client.send(request + b"HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b"\r\n\r\n" in await client.response(no_body=True)
            assert client.received == b""
