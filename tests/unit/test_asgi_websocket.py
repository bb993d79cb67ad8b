"""The cycle alone: what an application may send when, and what becomes of what it leaves behind."""

import asyncio
from typing import Any

import pytest

from pounce.application.types import (
    ASGIApp,
    ClientDisconnected,
    Message,
    MessageError,
    Receive,
    Scope,
    Send,
)
from pounce.asgi.websocket import WebSocketCycle, websocket_scope
from pounce.config.service import ServerConfig
from pounce.http.connections import ServerContext

SCOPE: Scope = {
    "type": "websocket",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"",
    "client": None,
    "extensions": {},
}
ACCEPT = {"type": "websocket.accept"}
SEND = {"type": "websocket.send", "text": "a"}
CLOSE = {"type": "websocket.close"}
START = {"type": "websocket.http.response.start", "status": 401}
PART = {"type": "websocket.http.response.body", "body": b"no", "more_body": True}
LAST = {"type": "websocket.http.response.body"}


class Recorder:
    """A connection without one: it writes down what it is asked for."""

    write_paused = False

    def __init__(self, *messages: str | bytes) -> None:
        self.messages = list(messages)
        self.done: list[Any] = []
        self.closed: tuple[int, str] | None = None

    def accept(self, subprotocol: str | None, headers: Any) -> None:
        self.done.append(("accept", subprotocol, list(headers)))

    def start_denial(self, status: int, headers: Any) -> None:
        self.done.append(("deny", status))

    def send_denial(self, data: bytes, more: bool) -> None:
        self.done.append((data, more))

    def take(self) -> str | bytes | None:
        return self.messages.pop(0) if self.messages else None

    async def wait_input(self) -> None:
        self.closed = (1001, "away")

    def send(self, message: str | bytes) -> None:
        self.done.append(message)

    async def wait_writable(self) -> None:
        raise AssertionError("it is writable")

    def close(self, code: int, reason: str) -> None:
        self.done.append(("close", code, reason))
        self.closed = (code, reason)

    def reset(self) -> None:
        self.done.append("reset")

    def released(self) -> None:
        self.done.append("released")


def run(app: ASGIApp, socket: Recorder) -> list[Any]:
    """What the connection was asked for, until it was released."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = ServerContext(config=ServerConfig(), app=app, state={}, loop=loop)
        await WebSocketCycle(socket, SCOPE, context).run()

    asyncio.run(main())
    assert socket.done.pop() == "released"
    return socket.done


def sending(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


ACCEPTED: Any = ("accept", None, [])
DENIED: list[Any] = [("deny", 401), (b"no", True), (b"", False)]


@pytest.mark.parametrize(
    ("messages", "done"),
    [
        ([ACCEPT, CLOSE], [ACCEPTED, ("close", 1000, "")]),
        ([ACCEPT], [ACCEPTED, ("close", 1000, "")]),
        ([ACCEPT, SEND], [ACCEPTED, "a", ("close", 1000, "")]),
        (
            [ACCEPT, {"type": "websocket.close", "code": 4000, "reason": None}],
            [ACCEPTED, ("close", 4000, "")],
        ),
        (
            [ACCEPT, {"type": "websocket.send", "bytes": b"", "text": None}],
            [ACCEPTED, b"", ("close", 1000, "")],
        ),
        ([CLOSE], [("deny", 403), (b"", False)]),
        ([START, PART, LAST], DENIED),
    ],
)
def test_the_application_is_served(messages: list[Message], done: list[Any]) -> None:
    assert run(sending(*messages), Recorder()) == done


@pytest.mark.parametrize(
    ("messages", "done"),
    [
        ([], [("deny", 500), (b"", False)]),
        ([SEND], [("deny", 500), (b"", False)]),
        ([LAST], [("deny", 500), (b"", False)]),
        ([START], [("deny", 401), ("deny", 500), (b"", False)]),
        ([START, ACCEPT], [("deny", 401), ("deny", 500), (b"", False)]),
        ([START, PART], [("deny", 401), (b"no", True), "reset"]),
        ([{**START, "status": "401"}], [("deny", 500), (b"", False)]),
        ([ACCEPT, ACCEPT], [ACCEPTED, ("close", 1011, "internal error")]),
        ([ACCEPT, START], [ACCEPTED, ("close", 1011, "internal error")]),
        ([ACCEPT, {"type": "websocket.send"}], [ACCEPTED, ("close", 1011, "internal error")]),
        ([ACCEPT, CLOSE, SEND], [ACCEPTED, ("close", 1000, "")]),
        ([ACCEPT, CLOSE, CLOSE], [ACCEPTED, ("close", 1000, "")]),
        ([CLOSE, ACCEPT], [("deny", 403), (b"", False)]),
        ([{"type": "other"}], [("deny", 500), (b"", False)]),
    ],
)
def test_a_mistake_is_logged_and_ends_as_well_as_it_can(
    messages: list[Message], done: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert run(sending(*messages), Recorder()) == done
    (record,) = caplog.records
    assert record.name == "pounce.error"
    fields = {"POUNCE_REQUEST": "WebSocket /", "POUNCE_CLIENT": "a local peer"}
    assert record.pounce == fields  # type: ignore[attr-defined]


def test_messages_come_before_the_end_that_is_behind_them() -> None:
    told: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(await receive())
        await send(ACCEPT)
        while told[-1]["type"] != "websocket.disconnect":
            told.append(await receive())
        assert await receive() == told[-1]

    run(app, Recorder("text", b"bytes"))
    assert told == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "text"},
        {"type": "websocket.receive", "bytes": b"bytes"},
        {"type": "websocket.disconnect", "code": 1001, "reason": "away"},
    ]


@pytest.mark.parametrize("message", [ACCEPT, SEND, START])
def test_nothing_can_be_sent_to_a_client_that_is_gone(
    message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[type[BaseException]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if message is SEND:
            await send(ACCEPT)
        socket.closed = (1006, "")
        try:
            await send(message)
        except (ClientDisconnected, MessageError) as error:
            raised.append(type(error))
            raise

    socket = Recorder()
    run(app, socket)
    assert raised == [ClientDisconnected]
    assert not caplog.records


def test_a_sender_without_end_lets_others_run() -> None:
    ran: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        asyncio.get_running_loop().call_soon(ran.append, 1)
        for _ in range(100):
            await send({"type": "websocket.send", "bytes": bytes(1000)})
        assert ran

    run(app, Recorder())


def test_system_exit_ends_the_websocket_alone() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        raise SystemExit

    assert run(app, Recorder()) == [ACCEPTED, ("close", 1011, "internal error")]


def test_the_scope_is_the_requests_but_for_what_a_websocket_is() -> None:
    request = {"type": "http", "scheme": "https", "method": "GET", "path": "/a", "extensions": {}}
    assert websocket_scope(request, ["v1"]) == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "scheme": "wss",
        "path": "/a",
        "subprotocols": ["v1"],
        "extensions": {"websocket.http.response": {}},
    }
