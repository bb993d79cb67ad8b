"""Clients that leave before their response is complete: applications end, nobody complains."""

import asyncio
import gc
import logging
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from pounce.application.types import ASGIApp, Receive, Scope, Send
from pounce.asgi import cycle, departure
from pounce.http.connections import ServerContext
from pounce.threads import distributor
from pounce.threads.asgi import ASGIHandler
from tests.carriers import OnTCP, carried, every_carrier, without_threads
from tests.live import Client, live, read_body, respond, serve, serve_in_threads, threads_of, until
from tests.websocket import BINARY, Peer, frame
from tests.wsgi import PLAIN, Environ, Start, serving

EVENTS = [(b"content-type", b"text/event-stream")]
START = {"type": "http.response.start", "status": 200, "headers": []}


def part(body: bytes = b"tick", *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class Streams:
    """Content without end, in each of the forms that frameworks take; `ended` notes its end."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.failures: list[BaseException] = []

    async def waits(self) -> AsyncIterator[bytes]:
        try:
            yield b"tick"
            await asyncio.sleep(3600)
        finally:
            self.ended.append("waits")

    async def ticks(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(0.005)
        finally:
            self.ended.append("ticks")

    def blocks(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"tick"
                time.sleep(0.005)
        finally:
            self.ended.append("blocks")

    def starlette(self, how: str) -> ASGIApp:
        applications = pytest.importorskip("starlette.applications")
        background = pytest.importorskip("starlette.background")
        responses = pytest.importorskip("starlette.responses")
        routing = pytest.importorskip("starlette.routing")

        async def endpoint(_request: Any) -> Any:
            task = background.BackgroundTask(self.ended.append, "background")
            return responses.StreamingResponse(getattr(self, how)(), background=task)

        async def hears(_request: Any, error: Exception) -> None:
            self.failures.append(error)

        routes = [routing.Route("/", endpoint)]
        app: ASGIApp = applications.Starlette(routes=routes, exception_handlers={Exception: hears})
        return app

    def django(self, how: str) -> ASGIApp:
        conf = pytest.importorskip("django.conf")
        handlers = pytest.importorskip("django.core.handlers.asgi")
        http = pytest.importorskip("django.http")
        urls = pytest.importorskip("django.urls")
        if not conf.settings.configured:
            conf.settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])
            pytest.importorskip("django").setup()

        async def view(_request: Any) -> Any:
            return http.StreamingHttpResponse(getattr(self, how)())

        urlpatterns[:] = [urls.path("", view)]
        urls.clear_url_caches()
        app: ASGIApp = handlers.ASGIHandler()
        return app


urlpatterns: list[Any] = []


@every_carrier
@pytest.mark.parametrize(
    ("framework", "how"),
    [
        ("starlette", "waits"),
        ("starlette", "ticks"),
        ("starlette", "blocks"),
        ("django", "waits"),
        ("django", "ticks"),
    ],
)
@live
async def test_a_framework_ends_its_stream(
    framework: str, how: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    streams = Streams()
    app = getattr(streams, framework)(how)
    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(b"tick")
        response.leave()
        await until(lambda: carrier.context.idle)
        if how in ("blocks", "ticks"):
            gc.collect()  # anyio leaves what is cancelled in send() in a circle of references
        await until(lambda: how in streams.ended)
        if framework == "starlette":
            await until(lambda: "background" in streams.ended)
    assert not streams.failures
    assert not caplog.records


@every_carrier
@pytest.mark.parametrize("pause", [0.0, 0.01])
@live
async def test_who_never_listens_is_cancelled(
    *,
    pause: float,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    ended: list[type[BaseException]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            while True:
                await send(part())
                if pause:
                    await asyncio.sleep(pause)
        except BaseException as error:
            ended.append(type(error))
            raise

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(b"tick")
        response.leave()
        await until(lambda: carrier.context.idle)
        await until(lambda: bool(ended))
    assert ended == [asyncio.CancelledError]
    assert not caplog.records


@every_carrier
@live
async def test_who_comes_to_an_end_is_not_disturbed(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worked = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send(START)
        await send(part())
        while (await receive())["type"] != "http.disconnect":
            pass
        for _ in range(100):
            await send(part(b"x" * 1000))
        await send(part(b"", more=False))
        await asyncio.sleep(0.05)
        loop.call_soon_threadsafe(worked.set)

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(b"tick")
        response.leave()
        await worked.wait()
    assert not caplog.records


# Streams of events that nobody gets any more


class Waiting:
    """An application that sends its head, and then *events* events; what it waits for never comes.

    `started` and `ended` tell how far it is; *late*, its head waits for `left`.
    """

    def __init__(self, events: int, *, late: bool = False) -> None:
        self.started, self.left, self.ended = (threading.Event() for _ in range(3))
        self._events = events
        self._late = late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._late:
            self.started.set()
        while self._late and not self.left.is_set():
            await asyncio.sleep(0.005)
        await send({**START, "headers": EVENTS})
        for _ in range(self._events):
            await send(part())
        self.started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.15)  # as long as it likes: it is told once
            self.ended.set()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave applications less time to notice that nobody gets their events."""
    for module in (cycle, distributor):
        monkeypatch.setattr(module, "NOTICE", 0.05)


def nobody_is_left(context: ServerContext) -> bool:
    return all(getattr(each, "_eof", not each.busy) for each in context.connections)


@every_carrier
@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.parametrize("when", ["before its head", "before its first event", "later"])
@live
async def test_who_waits_for_events_that_nobody_gets_is_ended(
    *,
    when: str,
    abruptly: bool,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    app = Waiting(int(when == "later"), late=when == "before its head")
    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        if when == "later":
            await response.until(b"tick")
        await until(app.started.is_set)
        response.leave(abruptly=abruptly)
        await until(lambda: nobody_is_left(carrier.context))
        app.left.set()
        if threads_of(carrier.context) is not None:
            await until(lambda: threads_of(carrier.context).idle)
            assert app.ended.is_set()  # a stop would have waited for it
        await until(app.ended.is_set)
        await until(lambda: carrier.context.idle or abruptly)
    assert not caplog.records


@live
async def test_who_works_in_a_thread_after_its_last_event_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distributor, "NOTICE", 0.3)
    monkeypatch.setattr(distributor, "_INTERRUPTION", 0.1)
    left, go_on = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": EVENTS})
        await send(part())
        try:
            while not left.is_set():
                await asyncio.sleep(0.005)
            await send(part(more=False))
        finally:
            while not go_on.is_set():
                await asyncio.sleep(0.005)

    async with serve_in_threads(ASGIHandler(app)) as server:
        async with await server.connect() as client:
            await client.ask()
            await client.read_until(b"tick")
            leave(client, "RST")
        await server.departures()
        left.set()
        try:
            await asyncio.sleep(1.0)  # longer than somebody who does not hear is waited for
            assert not threads_of(server.context).idle
        finally:
            go_on.set()
        await until(lambda: threads_of(server.context).idle)


@pytest.mark.parametrize("how", ["generator", "write", "coroutine"])
@live
async def test_who_has_heard_in_a_thread_is_waited_for(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    monkeypatch.setattr(distributor, "_INTERRUPTION", 0.1)
    monkeypatch.setattr(departure, "_PATIENCE", 0.0)
    hears, go_on = threading.Event(), threading.Event()

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        write = start("200 OK", [("Content-Type", "text/event-stream")])
        try:
            while True:
                if how == "write":
                    write(b"tick")
                yield b"tick"
                time.sleep(0.005)
        finally:
            hears.set()
            go_on.wait()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": EVENTS})
        await send(part())
        try:
            await asyncio.sleep(3600)
        finally:
            hears.set()
            while not go_on.is_set():
                await asyncio.sleep(0.005)

    served = serve_in_threads(ASGIHandler(waits)) if how == "coroutine" else serving(app)
    async with served as server:
        async with await server.connect() as client:
            await client.ask()
            await client.read_until(b"tick")
        await until(hears.is_set)
        try:
            await asyncio.sleep(0.5)  # longer than somebody who does not hear is waited for
            assert not threads_of(server.context).idle
        finally:
            go_on.set()
        await until(lambda: threads_of(server.context).idle)


@every_carrier
@pytest.mark.parametrize("kind", ["complete", "no events", "POST", "listens"])
@partial(live, loops=("uvloop",))
async def test_what_is_no_waiting_for_events_goes_on(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    left, worked = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send({**START, "headers": [] if kind == "no events" else EVENTS})
        await send(part())
        if kind == "complete":
            await send(part(more=False))
        if kind == "listens":
            assert (await receive())["type"] == "http.disconnect"
        while not left.is_set():
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.3)
        worked.set()

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask(method="POST" if kind == "POST" else "GET")
        await response.until(b"tick")
        response.leave()
        await until(lambda: nobody_is_left(carrier.context))
        left.set()
        await until(worked.is_set)


async def has_left(receive: Receive) -> bool:
    """Whether the client has left; asked without waiting, like Starlette's is_disconnected()."""
    try:
        async with asyncio.timeout(0):
            return bool((await receive())["type"] == "http.disconnect")
    except TimeoutError:
        return False


@every_carrier
@live
async def test_who_asks_hears_that_the_client_has_left(name: str, tmp_path: Path) -> None:
    asked, heard = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        while not await has_left(receive):
            asked.set()
            await asyncio.sleep(0.005)
        heard.set()

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await until(asked.is_set)
        response.leave()
        await until(heard.is_set)


# More than a worker keeps of a client whose requests wait, so that it reads no more; and little
# enough for the kernel to take it all, with the client's end behind it.
MANY = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n" * 4_000
over_tcp = pytest.mark.parametrize("name", ["plain", "tls", "plain threads", "tls threads"])


@over_tcp
@pytest.mark.parametrize("abruptly", [False, True])
@live
async def test_who_leaves_behind_unread_requests_is_noticed(
    name: str, abruptly: bool, tmp_path: Path
) -> None:
    asked, heard = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        asked.set()
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await until(asked.is_set)
        await cast("OnTCP", response).send(MANY)
        assert not heard.is_set()
        response.leave(abruptly=abruptly)
        await until(heard.is_set)


@live
async def test_who_closes_its_side_behind_unread_requests_gets_all_answers() -> None:
    goes_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await goes_on.wait()
        await respond(send, b"ok")

    async with serve(app) as server, await server.connect() as client:
        await client.ask()
        connection = await server.connection()
        await client.send(MANY)
        client.half_close()
        await until(lambda: connection._hung_up)
        goes_on.set()
        assert (await client.rest()).count(b"HTTP/1.1 200 OK") == MANY.count(b"GET") + 1


@pytest.mark.parametrize("end", ["FIN", "RST"])
@live
async def test_who_leaves_behind_unread_messages_is_noticed(end: str) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    goes_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await goes_on.wait()
        while (kind := (await receive())["type"]) == "websocket.receive":
            pass
        heard.put_nowait(kind)

    async with serve(app, websocket_ping_interval=0.05) as server, await server.connect() as client:
        peer = Peer(client)
        await peer.open()
        await client.send(frame(BINARY, b"a" * 100_000))
        leave(client, end)
        client.sock.close()
        await until(lambda: not server.context.connections)
        goes_on.set()
        assert await heard.get() == "websocket.disconnect"


@every_carrier
@live
async def test_who_has_only_asked_does_not_listen(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    asked, ended = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send({**START, "headers": EVENTS})
        await send(part())
        try:
            assert not await has_left(receive)
            asked.set()
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await until(asked.is_set)
        response.leave()
        await until(ended.is_set)
        if threads_of(carrier.context) is not None:
            await until(lambda: threads_of(carrier.context).idle)


@without_threads
@pytest.mark.parametrize("how", ["cancelled", "returned"])
@live
async def test_what_an_application_leaves_behind_sends_in_vain(
    how: str,
    name: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    ended = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def goes_on(send: Send) -> None:
        await ended.wait()
        for _ in range(3):
            await send(part())
        await send(part(more=False))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        await send({**START, "headers": EVENTS})
        await send(part())
        tasks.append(asyncio.create_task(goes_on(send)))
        try:
            if how == "returned":
                await receive()
            else:
                await asyncio.shield(tasks[0])
        finally:
            asyncio.get_running_loop().call_soon(ended.set)

    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(b"tick")
        response.leave()
        await ended.wait()
        await tasks[0]
    assert not caplog.records


@live
async def test_who_answers_late_is_not_disturbed(caplog: pytest.LogCaptureFixture) -> None:
    gone, done = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gone.wait()
        await send(START)
        await send(part())
        await send(part(more=False))
        with pytest.raises(RuntimeError, match="after the response was complete"):
            await send(part())
        done.set()

    async with serve(app) as server:
        async with await server.connect() as client:
            await client.ask()
            connection = await server.connection()
            await until(lambda: connection.busy)
        connection.reset()
        gone.set()
        await done.wait()
    assert not caplog.records


@live
async def test_write_says_nothing_until_it_has_to(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    outcome: list[Any] = []

    def app(environ: Environ, start: Start) -> list[bytes]:
        write = start("200 OK", PLAIN)
        began = time.monotonic()
        try:
            while True:
                write(b"tick")
                time.sleep(0.001)
        except OSError:
            outcome.append(time.monotonic() - began)
            raise

    async with serving(app) as server:
        async with await server.connect() as client:
            await client.ask()
            await client.read_until(b"tick")
        await until(lambda: bool(outcome))
        await server.departures()
    assert outcome[0] >= 0.1
    assert not caplog.records


# Errors of the application's own, which no departure excuses.

by_each_end = pytest.mark.parametrize("end", ["FIN", "RST"])


def leave(client: Client, end: str) -> None:
    """Close the connection; by RST it is gone at once, by FIN its other half still stands."""
    if end == "RST":
        linger = struct.pack("ii", 1, 0)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.sock.close()
    else:
        client.half_close()


async def charges(receive: Receive) -> None:
    """Fail, after the client has left, at something that a cancelled task of its own was for."""
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass
    storing = asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    storing.cancel()
    try:
        await storing
    except asyncio.CancelledError:
        raise RuntimeError("charged the card, could not store the order")  # noqa: B904


@by_each_end
@pytest.mark.parametrize("execution", ["async", "sync"])
@live
async def test_an_error_of_its_own_is_logged(
    end: str, execution: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(part())
        await charges(receive)

    server = serve(app) if execution == "async" else serve_in_threads(ASGIHandler(app))
    async with server as served, await served.connect() as client:
        await client.ask()
        await client.read_until(b"tick")
        leave(client, end)
        await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "could not store the order" in caplog.text


@by_each_end
@live
async def test_an_error_at_the_end_of_a_generator_is_logged(
    end: str, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/event-stream")])
        try:
            while True:
                yield b"tick"
                time.sleep(0.005)
        finally:
            raise KeyError("the order")

    async with serving(app) as server, await server.connect() as client:
        await client.ask()
        await client.read_until(b"tick")
        leave(client, end)
        await until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "KeyError: 'the order'" in caplog.text


@by_each_end
@pytest.mark.parametrize("kind", ["own", "cancelled", "from send", "framework"])
@live
async def test_what_the_log_says_of_a_websocket_whose_client_has_left(
    kind: str, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pounce.error")
    websockets = pytest.importorskip("starlette.websockets")
    idle = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if kind == "framework":
            socket = websockets.WebSocket(scope, receive, send)
            await socket.accept()
            while True:
                await socket.receive_text()
        await receive()
        await send({"type": "websocket.accept"})
        if kind == "own":
            await charges(receive)
        await receive()
        if kind == "from send":
            await send({"type": "websocket.send", "text": "late"})
        raise asyncio.CancelledError  # as if a task of its own were cancelled

    async def noticed(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            idle.set()

    async with serve(noticed) as server, await server.connect() as client:
        assert (await Peer(client).open()).startswith(b"HTTP/1.1 101 ")
        leave(client, end)
        await idle.wait()
        await server.departures()
    told = [(each.levelno, bool(each.exc_info)) for each in caplog.records]
    error = [(logging.ERROR, True)]
    expected = {"from send": [], "framework": [(logging.INFO, False)]}
    assert told == expected.get(kind, error)
    assert ("ended by starlette.websockets.WebSocketDisconnect" in caplog.text) is (
        kind == "framework"
    )
