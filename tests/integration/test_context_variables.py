"""No request sees a context variable that another request has set (PEP 567)."""

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from pounce.application.loops import new_event_loop
from pounce.application.sync_app import RawRequest, RawResponse
from pounce.application.types import Receive, Scope, Send
from pounce.config.service import LoopName
from pounce.threads.asgi import ASGIHandler
from pounce.threads.async_pool import AsyncPool
from pounce.threads.handler import Handler
from pounce.threads.raw import SyncAppHandler
from tests.live import GET, Client, live, read_body, respond, serve, serve_in_threads
from tests.service import serving
from tests.websocket import TEXT, Peer
from tests.wsgi import handler

seen: ContextVar[bytes] = ContextVar("seen", default=b"nothing")


def look() -> bytes:
    """What another request has left here, and leave something."""
    found = seen.get()
    seen.set(b"another request")
    return found


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    found = look()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": found})
        return
    if scope["path"] == "/reads":
        await read_body(receive)
    await respond(send, found)
    await receive()
    look()


def wsgi(environ: dict[str, Any], start: Any) -> list[bytes]:
    start("200 OK", [])
    return [look()]


def wsgi_generator(environ: dict[str, Any], start: Any) -> Any:
    start("200 OK", [("Content-Length", "7")])
    yield look()


class Sync:
    """A SyncApp; it leaves some requests to the ASGI application."""

    def handle_sync(self, request: RawRequest) -> RawResponse | None:
        found = look()
        return None if request.path == b"/left" else RawResponse(200, (), found)


async def bodies(client: Client, count: int) -> set[bytes]:
    """What the next *count* responses say."""
    return {(await client.response()).rpartition(b"\r\n\r\n")[2] for _ in range(count)}


def post(size: int, path: str = "/reads") -> bytes:
    """A request with content that is more than is read ahead."""
    head = f"POST {path} HTTP/1.1\r\nhost: a.example\r\ncontent-length: {size}\r\n\r\n"
    return head.encode() + b"x" * size


@live
@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([GET, GET], id="one after the other"),
        pytest.param([GET * 5], id="pipelined"),
        # Reading is paused and resumed by what the application asks for, so the loop reads the
        # next request in the context of this one.
        pytest.param([post(300_000), GET, GET * 2], id="after an upload"),
        pytest.param([post(100_000, "/"), GET], id="after an upload that nobody reads"),
    ],
)
async def test_on_one_connection(requests: list[bytes]) -> None:
    async with serve(asgi) as server, await server.connect() as client:
        for each in requests:
            await client.send(each)
            count = each.count(b" HTTP/1.1\r\n")
            assert await bodies(client, count) == {b"nothing"}


@live
@pytest.mark.parametrize(
    "answers",
    [
        handler(wsgi),
        handler(wsgi_generator),
        SyncAppHandler(Sync(), falls_through=True),
        ASGIHandler(asgi),
    ],
    ids=["WSGI", "WSGI generator", "SyncApp", "ASGI"],
)
async def test_in_one_thread(answers: Handler) -> None:
    async with (
        serve_in_threads(answers, asgi, threads=1) as server,
        await server.connect() as client,
    ):
        await client.send(GET * 3 + GET.replace(b"/ ", b"/left ") * 2 + GET + post(100_000))
        assert await bodies(client, 7) == {b"nothing"}


@live
async def test_in_a_loop_of_its_own() -> None:
    pool = AsyncPool(asgi, "auto", "test-async")
    pool.start()
    try:
        async with serve(pool) as server, await server.connect() as client:
            await client.send(GET * 3)
            assert await bodies(client, 3) == {b"nothing"}
    finally:
        pool.stop()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_in_the_threads_of_a_loop(loop: LoopName) -> None:
    async def calls() -> list[bytes]:
        here = asyncio.get_running_loop()
        mine = seen.set(b"another request")
        found = [await here.run_in_executor(None, look) for _ in range(3)]
        seen.reset(mine)
        # Unless it is asked to: asyncio.to_thread() gives the context along.
        seen.set(b"mine")
        return [*found, await asyncio.to_thread(look)]

    with asyncio.Runner(loop_factory=lambda: new_event_loop(loop)) as runner:
        assert runner.run(calls()) == [b"nothing"] * 3 + [b"mine"]


@live
async def test_of_a_websocket() -> None:
    async with serve(asgi) as server, await server.connect() as client:
        await client.get()
        peer = Peer(client)
        await peer.open()
        assert await peer.receive() == (0x80 | TEXT + 1, b"nothing")


@live
async def test_what_the_server_is_made_in_is_there() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, mark.get())

    mark: ContextVar[bytes] = ContextVar("mark", default=b"")
    mark.set(b"from the program")
    async with serve(app) as server, await server.connect() as client:
        mark.set(b"later")
        assert (await client.get()).endswith(b"from the program")


MODULE = """
import tests.integration.test_context_variables as it

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        it.look()
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await it.asgi(scope, receive, send)

it.look()
"""


@pytest.mark.parametrize(("execution", "loop"), [("async", "asyncio"), ("sync", "uvloop")])
def test_after_import_lifespan_and_hand_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execution: str, loop: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "it.py").write_text(MODULE)
    flags = ("--workers", "1", "--loop", loop, "--execution", execution, "--threads", "1")
    with (
        serving(tmp_path, *flags, app="it:app", apps=tmp_path) as service,
        service.connect() as wire,
    ):
        for generation in (2, 3):
            assert wire.get("/").body == b"nothing"
            service.reload(generation)
        assert wire.get("/").body == b"nothing"
