"""Event streams at the end of their worker: told, then cut, never reset; all else is finished."""

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pounce.application.types import Receive, Scope, Send
from pounce.asgi import cycle, departure
from pounce.http.connections import ServerContext
from pounce.http1 import stream
from pounce.threads import distributor
from tests.apps.event_streams import GOODBYE, TICK, app
from tests.carriers import carried, every_carrier, without_threads
from tests.live import live, serve, until
from tests.modes import both_modes
from tests.service import Service, Wire, serving
from tests.wsgi import Environ, Start
from tests.wsgi import serving as serving_wsgi

EVENTS = [(b"content-type", b"text/event-stream")]


def hurry(monkeypatch: pytest.MonkeyPatch, notice: float = 0.2) -> None:
    """Leave applications less time to notice that nobody gets their events."""
    for module in (cycle, distributor):
        monkeypatch.setattr(module, "NOTICE", notice)


def end_streams(context: ServerContext, after: float = 0.0) -> None:
    now = context.loop.time()
    context.farewell.begin(now, now + after + 1.0, after)


@every_carrier
@live
async def test_who_listens_says_goodbye(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask("/listens")
        await response.until(TICK)
        end_streams(carrier.context)
        await response.until(GOODBYE)
        assert await response.end() == "whole"
    assert not caplog.records


@every_carrier
@live
async def test_who_does_not_listen_is_cut(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask("/ticks")
        await response.until(TICK)
        end_streams(carrier.context)
        # HTTP/3 knows but two ends, and the other one is an error.
        assert await response.end() == ("whole" if name == "http3" else "cut")
        response.leave()
        await until(lambda: carrier.context.idle)
    assert not caplog.records


@every_carrier
@live
async def test_a_head_of_an_event_stream_alone_ends_as_well(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    async with carried(name, app, tmp_path) as carrier:
        response = await carrier.ask("/ticks", "HEAD")
        await response.head()
        if name == "http3":
            assert await response.end() == "whole"
        await until(lambda: not any(each.busy for each in carrier.context.connections))
        response.leave()
        await until(lambda: carrier.context.idle)
    assert not caplog.records


@every_carrier
@live
async def test_who_waits_for_an_event_is_ended_soon_after_the_cut(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": TICK, "more_body": True})
        try:
            await asyncio.Event().wait()
        finally:
            loop.call_soon_threadsafe(ended.set)

    async with carried(name, waits, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(TICK)
        end_streams(carrier.context)
        assert await response.end() == ("whole" if name == "http3" else "cut")
        response.leave()
        await asyncio.wait_for(ended.wait(), 10)
        await until(lambda: carrier.context.idle)
    assert not caplog.records


@without_threads
@pytest.mark.parametrize("kind", ["completes", "listens"])
@live
async def test_who_ends_its_stream_itself_after_the_cut_is_left_alone(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch, 0.8)
    cut, go_on, worked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def works(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": TICK, "more_body": True})
        await cut.wait()
        if kind == "listens":
            assert (await receive())["type"] == "http.disconnect"
        else:
            await send({"type": "http.response.body", "body": GOODBYE})
        await go_on.wait()
        worked.set()

    async with carried(name, works, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(TICK)
        now = carrier.context.loop.time()
        carrier.context.farewell.begin(now, now)  # cut as soon as told
        await response.end()
        cut.set()
        carrier.context.loop.call_later(1.5, go_on.set)  # long after who waits would be ended
        await asyncio.wait_for(worked.wait(), 10)


@every_carrier
@live
async def test_who_stops_without_a_word_is_cut(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def stops(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with carried(name, stops, tmp_path) as carrier:
        response = await carrier.ask()
        await response.head()
        end_streams(carrier.context)
        assert await response.end() == ("whole" if name == "http3" else "cut")
    assert not caplog.records


@every_carrier
@pytest.mark.parametrize(("method", "target"), [("POST", "/ticks"), ("GET", "/download")])
@live
async def test_what_has_an_end_comes_to_it(
    method: str, target: str, name: str, tmp_path: Path
) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        async def listened() -> dict[str, object]:
            message = await receive()
            if message["type"] == "http.disconnect":
                loop.call_soon_threadsafe(told.set)
            return message

        headers = EVENTS if scope["path"] == "/ticks" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": TICK, "more_body": True})
        while (await listened())["type"] != "http.request":
            pass
        listening = asyncio.ensure_future(listened())
        await asyncio.sleep(0.5)
        assert not told.is_set()
        await send({"type": "http.response.body", "body": GOODBYE})
        listening.cancel()

    async with carried(name, answers, tmp_path) as carrier:
        response = await carrier.ask(target, method)
        await response.until(TICK)
        end_streams(carrier.context)
        await response.until(GOODBYE)
        assert await response.end() == "whole"


@every_carrier
@live
async def test_who_has_heard_may_take_its_time(name: str, tmp_path: Path) -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": TICK, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        await asyncio.sleep(0.8)
        await send({"type": "http.response.body", "body": GOODBYE})

    async with carried(name, slow, tmp_path) as carrier:
        response = await carrier.ask()
        await response.until(TICK)
        end_streams(carrier.context)
        await response.until(GOODBYE)
        assert await response.end() == "whole"


@live
async def test_a_stream_that_ends_in_time_is_whole() -> None:
    async def brief(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
        await send({"type": "http.response.body", "body": TICK, "more_body": True})
        await asyncio.wait([asyncio.ensure_future(receive())])
        gone = asyncio.ensure_future(receive())
        await asyncio.wait([gone], timeout=0.2)
        assert not gone.done()
        gone.cancel()
        await send({"type": "http.response.body", "body": GOODBYE})

    async with serve(brief) as server, await server.connect() as client:
        await client.ask()
        await client.read_until(TICK)
        end_streams(server.context, after=5.0)
        assert GOODBYE in await client.read_until(b"\r\n0\r\n\r\n")


@live
async def test_a_stream_that_begins_late_is_told_as_well() -> None:
    async with serve(app) as server, await server.connect() as client:
        end_streams(server.context, after=-10.0)
        await client.ask("/listens")
        await client.read_until(TICK)
        assert GOODBYE in await client.read_until(b"\r\n0\r\n\r\n")


@live
async def test_a_generator_is_closed_at_its_next_piece(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    def events(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/event-stream")])
        try:
            while True:
                yield TICK
                time.sleep(0.01)
        finally:
            ended.append("closed")

    async with serving_wsgi(events) as server, await server.connect() as client:
        await client.ask()
        await client.read_until(TICK)
        end_streams(server.context)
        assert not (await client.rest()).endswith(b"\r\n0\r\n\r\n")
        await until(lambda: ended == ["closed"])
    assert not caplog.records


async def floods(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": EVENTS})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})


@live
async def test_nobody_waits_for_a_client_that_reads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "LINGER", 0.2)
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    async with serve(floods) as server, await server.connect(receive_buffer=4096) as client:
        await client.ask()
        connection = await server.connection()
        await until(lambda: connection.write_paused)
        end_streams(server.context)
        await server.departures()


@live
async def test_nobody_waits_for_a_client_of_http3_that_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    http3 = pytest.importorskip("tests.http3")
    monkeypatch.setattr("pounce.http3.stream._STALL", 0.2)
    monkeypatch.setattr(departure, "_PATIENCE", 0.1)
    window = {"max_stream_data": 65_536, "max_data": 65_536}
    async with (
        http3.serve(floods, tmp_path) as server,
        http3.connected(server.address, **window) as client,
    ):
        client.holds_back = True
        exchange = client.start()
        await exchange.head()
        [connection] = server.workers[0].connections
        await until(lambda: any(each.write_paused for each in connection._streams.values()))
        end_streams(server.workers[0].context)
        await until(lambda: not connection.busy)


@live
async def test_what_was_announced_may_still_change(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Environ, start: Start) -> list[bytes]:
        path = environ["PATH_INFO"]
        start("200 OK", [("Content-Type", "text/event-stream")])
        if path == "/fails":
            raise ValueError("before its first event")
        if path == "/other":
            try:
                int("why")
            except ValueError:
                start("404 Not Found", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"data: x\n\n"]

    async with serving_wsgi(app) as server, await server.connect() as client:
        for _ in range(3):
            for path, status in (("/", b"200 OK"), ("/other", b"404 Not Found")):
                client.received = b""
                await client.ask(path)
                received = await client.read_until(b"data: x\n\n")
                assert received.startswith(b"HTTP/1.1 " + status)
                assert b"content-length: 9\r\n" in received
                assert (b"text/event-stream" in received) is (path == "/")
        assert not caplog.records
        client.received = b""
        await client.ask("/fails")
        await client.read_until(b"500 Internal Server Error\n")


# The service


class Reader:
    """A client with a response under way."""

    def __init__(self, wire: Wire, target: str) -> None:
        self.received = b""
        self._wire = wire
        wire.send(target)
        while TICK not in self.received:
            self._read()

    def rest(self) -> bytes:
        """Read to the end; raises ConnectionResetError where that is an error."""
        while self._read():
            pass
        return self.received

    def _read(self) -> bool:
        data = self._wire.sock.recv(65536)
        self.received += data
        return data != b""


WAYS = [("event_streams:app", "async"), ("event_streams:app", "sync"), ("event_streams:wsgi", "")]
every_way = pytest.mark.parametrize(("application", "execution"), WAYS)


def flags(mode: str, execution: str, *more: str) -> list[str]:
    how = ("--execution", execution) if execution else ()
    return ["--worker-mode", mode, "--lifespan", "off", *how, *more]


def begin(service: Service, stack: ExitStack, *targets: str) -> list[Reader]:
    return [Reader(stack.enter_context(service.connect()), target) for target in targets]


@both_modes
@every_way
def test_a_stop_does_not_wait_for_an_event_stream(
    application: str, execution: str, mode: str, tmp_path: Path
) -> None:
    told = flags(mode, execution, "--event-stream-timeout", "0.5", "--shutdown-timeout", "60")
    with serving(tmp_path, *told, app=application) as service, ExitStack() as stack:
        targets = ["/ticks", "/download"] + ["/listens"] * (application == "event_streams:app")
        ticks, download, *listens = begin(service, stack, *targets)
        service.send_signal(signal.SIGTERM)
        assert download.rest().endswith(GOODBYE + b"\r\n0\r\n\r\n")
        assert not ticks.rest().endswith(b"\r\n0\r\n\r\n")
        for each in listens:
            assert each.rest().endswith(GOODBYE + b"\r\n0\r\n\r\n")
        assert service.wait() == 0
        assert "ERROR" not in service.log


@both_modes
def test_a_stop_does_not_wait_for_a_thread_that_waits(mode: str, tmp_path: Path) -> None:
    told = flags(mode, "", "--event-stream-timeout", "0.2", "--shutdown-timeout", "60")
    with (
        serving(tmp_path, *told, "--access-log", "on", app="event_streams:wsgi") as service,
        service.connect() as wire,
        ExitStack() as stack,
    ):
        [waits] = begin(service, stack, "/waits")
        wire.send("/silent")
        time_is_up = time.monotonic() + 20
        service.send_signal(signal.SIGTERM)
        assert waits.rest().endswith(TICK + b"\r\n")
        received = b""
        while data := wire.sock.recv(65536):
            received += data
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"text/event-stream" in received
        assert service.wait() == 0
        assert time.monotonic() < time_is_up
        for path in ("/waits", "/silent"):
            assert service.log.count(f'GET {path} HTTP/1.1" 200') == 1
        assert "ERROR" not in service.log


@pytest.mark.parametrize(
    ("application", "mode"), [("event_streams:app", "process"), ("event_streams:wsgi", "thread")]
)
def test_no_end_of_old_code_waits_for_events_that_nobody_gets(
    application: str, mode: str, tmp_path: Path
) -> None:
    limits = flags(mode, "", "--reload-timeout", "60", "--shutdown-timeout", "60")
    with serving(tmp_path, *limits, app=application) as service, ExitStack() as stack:
        time_is_up = time.monotonic() + 40
        with ExitStack() as soon:
            begin(service, soon, "/waits")
        service.reload(2)
        service.expect("generation 1 is retired")
        begin(service, stack, "/waits")
        stack.close()
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert time.monotonic() < time_is_up
        assert "ERROR" not in service.log


@both_modes
@every_way
def test_an_event_stream_of_the_old_code_ends_like_any(
    application: str, execution: str, mode: str, tmp_path: Path
) -> None:
    limits = flags(mode, execution, "--reload-timeout", "1")
    with serving(tmp_path, *limits, app=application) as service, ExitStack() as stack:
        [ticks] = begin(service, stack, "/ticks")
        service.reload(2)
        assert not ticks.rest().endswith(b"\r\n0\r\n\r\n")
        service.expect("generation 1 is retired")
        assert "ERROR" not in service.log


def test_start_and_reload_warn_of_a_timeout_that_a_stop_has_no_time_for(tmp_path: Path) -> None:
    times = ("--event-stream-timeout", "60", "--shutdown-timeout", "30")
    with serving(tmp_path, *times, app="event_streams:app") as service:
        assert service.log.count("event_stream_timeout is 60 s, but") == 1
        service.reload(2)
        assert service.log.count("event_stream_timeout is 60 s, but") == 2


@both_modes
def test_an_application_that_ignores_all_is_ended(mode: str, tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(DEAF)
    times = flags(mode, "async", "--event-stream-timeout", "0.2", "--shutdown-timeout", "2")
    with (
        serving(tmp_path, *times, app="deaf:app", apps=tmp_path) as service,
        ExitStack() as stack,
    ):
        [deaf] = begin(service, stack, "/")
        service.send_signal(signal.SIGTERM)
        assert deaf.rest().endswith(b"tick\n\n\r\n")
        assert service.wait() == 0


DEAF = """
import asyncio

async def app(scope, receive, send):
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data: tick\\n\\n", "more_body": True})
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise
"""
