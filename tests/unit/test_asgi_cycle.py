"""The request cycle on a stream that is not HTTP/1.1: what the application may do, and when."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from pounce.application.types import ASGIApp, ClientDisconnected, MessageError, Receive, Scope, Send
from pounce.asgi import departure
from pounce.asgi.cycle import RequestCycle
from pounce.config.service import ServerConfig
from pounce.http.connections import ServerContext

START: dict[str, Any] = {"type": "http.response.start", "status": 200}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"x"}
PART: dict[str, Any] = {**BODY, "more_body": True}


class Wire:
    """A stream that notes what is done to it."""

    def __init__(self, *content: bytes) -> None:
        self.content = list(content) or [b""]
        self.log: list[Any] = []
        self.gone = False
        self.write_paused = False
        self.input_ended = False
        self.event_stream = False
        self.changed = asyncio.Event()

    def read_body(self) -> tuple[bytes, bool] | None:
        return (self.content.pop(0), bool(self.content)) if self.content else None

    async def wait_input(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    async def wait_writable(self) -> None:
        while self.write_paused and not self.gone:
            await self.wait_input()

    def start_response(self, status: int, headers: Any, reason: bytes = b"") -> None:
        if headers == "bad":
            raise MessageError("bad headers")
        self.log.append(status)

    def send_body(self, data: bytes, more: bool) -> bool:
        self.log.append((data, more))
        if not more:
            self.changed.set()
        return False

    def end_response(self) -> None:
        self.log.append("ended")

    def wake_input(self) -> None:
        self.changed.set()

    def reset(self) -> None:
        self.log.append("reset")
        self.gone = True

    def disconnect(self) -> None:
        self.input_ended = True

    def break_off(self) -> None:
        self.log.append("broken off")
        self.gone = True


def run(app: Callable[[Receive, Send, Wire], Awaitable[None]], *content: bytes) -> list[Any]:
    """What happens to the wire when *app* serves one request."""

    async def main() -> list[Any]:
        wire = Wire(*content)

        async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
            await app(receive, send, wire)

        await asyncio.wait_for(cycle_of(wire, asgi).start(), 5)
        return wire.log

    return asyncio.run(main())


def cycle_of(wire: Wire, app: ASGIApp) -> RequestCycle:
    loop = asyncio.get_running_loop()
    context = ServerContext(config=ServerConfig(), app=app, state={}, loop=loop)
    scope = {"method": "GET", "path": "/p", "raw_path": b"/p", "client": None}
    return RequestCycle(wire, scope, context)


def test_a_response() -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        assert await receive() == {"type": "http.request", "body": b"a", "more_body": True}
        assert await receive() == {"type": "http.request", "body": b"b", "more_body": False}
        await send(START)
        await send({**PART, "body": bytearray(b"y")})
        await send({"type": "http.response.body"})
        assert await receive() == {"type": "http.disconnect"}
        assert await receive() == {"type": "http.disconnect"}

    assert run(app, b"a", b"b") == [200, (b"y", True), (b"", False)]


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([BODY], "before http.response.start"),
        ([START, START], "second time"),
        ([START, BODY, BODY], "after the response was complete"),
        ([START, BODY, START], "second time"),
        ([{"type": "http.response.trailers"}], "unknown message type"),
        ([{"type": "http.response.start"}], "status"),
        ([{**START, "status": "200"}], "status"),
        ([{**START, "headers": "bad"}], "bad headers"),
        ([START, {**BODY, "body": "text"}], "str, not bytes"),
    ],
)
def test_a_message_that_is_wrong(messages: list[dict[str, Any]], complaint: str) -> None:
    complaints: list[str] = []

    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except RuntimeError as error:
            complaints.append(str(error))

    run(app)
    assert len(complaints) == 1
    assert complaint in complaints[0]


def test_receive_waits_for_the_end_of_the_response() -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        await receive()
        listening = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send(START)
        assert not listening.done()
        await send(BODY)
        assert await listening == {"type": "http.disconnect"}

    run(app)


@pytest.mark.parametrize("attribute", ["gone", "input_ended"])
def test_receive_waits_for_the_client_to_leave(attribute: str) -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        await receive()
        listening = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        assert not listening.done()
        setattr(wire, attribute, True)
        wire.changed.set()
        assert await listening == {"type": "http.disconnect"}

    run(app)


def test_send_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        await send(START)
        wire.gone = True
        for _ in range(100):
            await send(PART)
        await send(BODY)
        with pytest.raises(MessageError, match="after the response was complete"):
            await send(BODY)

    assert run(app) == [200]
    assert not caplog.records


def test_send_to_nobody_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departure, "_PATIENCE", 0.05)

    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        await send(START)
        wire.gone = True
        while True:
            await send(PART)

    with pytest.raises(asyncio.CancelledError):
        run(app)


class WebSocketDisconnect(Exception):
    """What Starlette raises."""


class Closed(WebSocketDisconnect):
    """And what an application has made of it."""


def wrapped(error: BaseException, cause: BaseException, how: str) -> BaseException:
    """*error* as it is when it was raised while *cause* was handled, "from" it or not."""
    error.__context__ = cause
    if how == "from":
        error.__cause__ = cause
    return error


GONE, CANCELLED = ClientDisconnected("gone"), asyncio.CancelledError()


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (GONE, None),
        (ExceptionGroup("tasks", [GONE, ExceptionGroup("more", [GONE])]), None),
        (wrapped(ValueError("words"), GONE, "from"), logging.INFO),
        (wrapped(WebSocketDisconnect(1006), GONE, ""), logging.INFO),
        (Closed(1001), logging.INFO),
        (ExceptionGroup("two", [GONE, Closed(1001)]), logging.INFO),
        (CANCELLED, logging.ERROR),
        (wrapped(RuntimeError("charged"), CANCELLED, ""), logging.ERROR),
        (wrapped(RuntimeError("charged"), CANCELLED, "from"), logging.ERROR),
        (wrapped(KeyError("in a finally clause"), GONE, ""), logging.ERROR),
        (ExceptionGroup("two", [GONE, ValueError()]), logging.ERROR),
        (BaseExceptionGroup("two", [GONE, CANCELLED]), logging.ERROR),
        (ValueError(), logging.ERROR),
        (TimeoutError(), logging.ERROR),
    ],
)
@pytest.mark.parametrize("gone", [True, False])
def test_what_the_log_says_when_a_client_has_left(
    error: BaseException, level: int | None, caplog: pytest.LogCaptureFixture, *, gone: bool
) -> None:
    caplog.set_level(logging.INFO, "pounce.error")

    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        wire.gone = gone
        raise error

    with suppress(asyncio.CancelledError, BaseExceptionGroup):
        run(app)
    expected = level if gone else logging.ERROR
    assert [each.levelno for each in caplog.records] == ([expected] if expected else [])
    for record in caplog.records:
        assert bool(record.exc_info) is (record.levelno == logging.ERROR)


@pytest.mark.parametrize("how", ["bare", "group", "on top"])
def test_only_its_own_cancellation_is_nothing_to_tell(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        wire.gone = True
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError as error:
            if how == "bare":
                raise
            if how == "group":
                raise BaseExceptionGroup("tasks", [error]) from None
            raise RuntimeError("charged the card, could not store the order") from error

    with suppress(asyncio.CancelledError, BaseExceptionGroup):
        run(app)
    assert ("could not store the order" in caplog.text) is (how == "on top")
    assert bool(caplog.records) is (how == "on top")


def test_send_waits_while_enough_is_unsent() -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        await send(START)
        wire.write_paused = True
        sending = asyncio.ensure_future(send(PART))
        await asyncio.sleep(0)
        assert not sending.done()
        wire.write_paused = False
        wire.changed.set()
        await sending
        await send(BODY)

    assert run(app)[-1] == (b"x", False)


@pytest.mark.parametrize("body", [b"", b"x" * 10_000])
def test_send_leaves_others_their_turn(body: bytes) -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        turn = asyncio.Event()
        asyncio.get_running_loop().call_soon(turn.set)
        await send(START)
        for _ in range(5000):
            await send({**PART, "body": body})
        assert turn.is_set()
        await send(BODY)

    assert run(app)[-1] == (b"x", False)


ERRORS = [ValueError("why"), SystemExit(1), ExceptionGroup("group", [ValueError()])]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("messages", "outcome"),
    [
        ([], [500, (b"500 Internal Server Error\n", False)]),
        ([START], [200, 500, (b"500 Internal Server Error\n", False)]),
        ([START, PART], [200, (b"x", True), "reset"]),
        ([START, BODY], [200, (b"x", False)]),
    ],
)
def test_an_application_that_fails(
    messages: list[Any],
    outcome: list[Any],
    error: BaseException,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        for message in messages:
            await send(message)
        raise error

    assert run(app) == outcome
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("pounce.error", logging.ERROR)
    assert record.getMessage() == "the application failed on GET '/p' from a local peer"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize(
    ("messages", "outcome", "complaint"),
    [
        ([], [500, (b"500 Internal Server Error\n", False)], "without sending a response"),
        ([START, PART], [200, (b"x", True), "reset"], "without sending the whole response"),
    ],
)
def test_an_application_that_returns_early(
    messages: list[Any], outcome: list[Any], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        for message in messages:
            await send(message)

    assert run(app) == outcome
    assert complaint in caplog.text


@pytest.mark.parametrize(("event_stream", "end"), [(False, "reset"), (True, "broken off")])
def test_an_application_that_stops_when_told(
    end: str, caplog: pytest.LogCaptureFixture, *, event_stream: bool
) -> None:
    async def app(receive: Receive, send: Send, wire: Wire) -> None:
        await receive()
        await send(START)
        wire.input_ended = True
        wire.event_stream = event_stream
        assert await receive() == {"type": "http.disconnect"}

    assert run(app) == [200, end]
    assert not caplog.records


@pytest.mark.parametrize("gone", [True, False])
def test_cancellation_ends_the_task(*, gone: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[Any]:
        wire = Wire()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.get_running_loop().create_future()

        task = asyncio.get_running_loop().create_task(cycle_of(wire, app).run())
        await asyncio.sleep(0)
        wire.gone = gone
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return wire.log

    # Cancelled by itself while its client waits, the application has failed.
    answer = [] if gone else [500, (b"500 Internal Server Error\n", False)]
    assert asyncio.run(main()) == answer
    assert bool(caplog.records) is not gone
