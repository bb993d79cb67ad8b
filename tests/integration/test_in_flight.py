"""What a worker that is stuck tells of the requests it is on."""

import asyncio
import re

import pytest

from pounce.application.types import Receive, Scope, Send
from tests.live import PATIENCE, live, respond, serve, until

HANDSHAKE = (
    "connection: upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
)


@live
async def test_each_request_is_told_with_its_age() -> None:
    gate = asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await respond(send, b"")

    async with serve(wait) as server, await server.connect() as idle, await server.connect() as one:
        context = server.context
        await idle.send(b"GET / HT")
        await one.ask("/a%0a?b")
        host, port = one.sock.getsockname()
        line = re.compile(rf"GET /a%0a from {host}:{port}, for (\d+\.\d) s\n")

        def age() -> float:
            told = line.fullmatch(context.in_flight())
            return float(told[1]) if told else 0.0

        await until(lambda: 0.0 < age() < PATIENCE)
        gate.set()
        await one.response()
        assert context.in_flight() == ""


@live
async def test_the_one_that_holds_the_loop_is_marked() -> None:
    told: list[list[str]] = []
    done = asyncio.Event()

    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/waits":
            await done.wait()
        else:
            told.append(server.context.in_flight().splitlines())
            await asyncio.sleep(0)
            told.append(server.context.in_flight().splitlines())
            done.set()
        await respond(send, b"")

    async with serve(tell) as server, await server.connect() as one, await server.connect() as two:
        await one.ask("/waits")
        await until(lambda: "/waits" in server.context.in_flight())
        await two.get("/tells")
        await one.response()
    for lines in told:
        waits, tells = sorted(lines, key=lambda line: "/tells" in line)
        assert waits.startswith("GET /waits ")
        assert waits.endswith(" s")
        assert tells.startswith("GET /tells ")
        assert tells.endswith(" <- running")


@pytest.mark.parametrize("kind", ["http", "websocket"])
@live
async def test_an_application_may_empty_its_scope(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()

    async def empty(scope: Scope, receive: Receive, send: Send) -> None:
        scope.clear()
        await gate.wait()
        if kind == "http":
            await respond(send, b"")
        else:
            await send({"type": "websocket.close"})

    async with serve(empty, access_log="on") as server, await server.connect() as client:
        await client.ask("/", *([] if kind == "http" else HANDSHAKE))
        await until(lambda: "? from a local peer, for " in server.context.in_flight())
        gate.set()
        assert (await client.response()).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 403 "))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
