"""The application that tests/attack attacks: the load application, and a few easy victims.

Every response carries only what its own request brought, its token (`x-token`, or the one in
`x-nonce`), so that whatever crosses from one request to another is seen.

    /large?size=10000000        one piece
    /flood?size=65536           an endless response, sent as fast as the client reads and no slower
    /token/TOKEN/KIND           the token, and nothing else; KIND is one of `KINDS`

A WebSocket takes whatever comes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.apps.load import Load, Receive, Request, Scope, Send

REPETITIONS = 200


async def large(request: Request) -> None:
    await request.answer(b"x" * request.number("size", 10_000_000))


async def flood(request: Request) -> None:
    await request.start()
    data = b"x" * request.number("size", 65_536)
    while True:
        await request.write(data)


class Tokens:
    """One request with a token, which must be the same in its path, its header and its body."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        _, _, token, kind = scope["path"].split("/")
        self._token = token.encode()
        self._kind = kind
        named = [value for name, value in scope["headers"] if name == b"x-token"]
        self._status = 200 if named == [self._token] and _leave_marks(scope) else 409

    async def answer(self) -> None:
        await KINDS[self._kind](self)

    async def at_once(self) -> None:
        """Checks the body, and answers in one piece."""
        if await self._read():
            await self._start()
            await self._end(self._token * REPETITIONS)

    async def slowly(self) -> None:
        """The same in many pieces, with others served in between."""
        if not await self._read():
            return
        await self._start()
        for _ in range(REPETITIONS // 10):
            await self._write(self._token * 10)
            await asyncio.sleep(0)
        await self._end()

    async def unread(self) -> None:
        """Leaves the body where it is."""
        await self._start()
        await self._end(self._token * REPETITIONS)

    async def stubborn(self) -> None:
        """Goes on sending though the client may have left, and after the response's end."""
        with suppress(Exception):
            await self.slowly()
        for _ in range(5):
            await asyncio.sleep(0.001)
            with suppress(Exception):
                await self._end(self._token)
            with suppress(Exception):
                await self._start()

    async def beside(self) -> None:
        """Sends from a task of its own, which outlives the request."""
        task = asyncio.create_task(self.stubborn())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        await asyncio.shield(task)

    async def _read(self) -> bool:
        """Read the body; false when the client has left."""
        body = b""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return False
            body += message["body"]
            if not message["more_body"]:
                break
        if body.replace(self._token, b""):
            self._status = 409
        return True

    async def _start(self) -> None:
        headers = [(b"x-token", self._token)]
        await self._send(
            {"type": "http.response.start", "status": self._status, "headers": headers}
        )

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _end(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data})


def _leave_marks(scope: Scope) -> bool:
    """Change all of a scope that can be; false if that of another request was changed."""
    marked = any("mark" in scope[each] for each in ("state", "extensions", "asgi"))
    for each in ("state", "extensions", "asgi"):
        scope[each]["mark"] = True
    scope["headers"].append((b"x-token", b"mark"))
    scope["path"] = scope["raw_path"] = None
    return not marked


_tasks: set[asyncio.Task[None]] = set()

KINDS: dict[str, Callable[[Tokens], Awaitable[None]]] = {
    "at-once": Tokens.at_once,
    "slowly": Tokens.slowly,
    "unread": Tokens.unread,
    "stubborn": Tokens.stubborn,
    "beside": Tokens.beside,
}

VICTIMS = {"/large": large, "/flood": flood}

_load = Load()


async def websocket(receive: Receive, send: Send) -> None:
    """Take whatever comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await websocket(receive, send)
        return
    path = scope.get("path", "")
    if path in VICTIMS:
        await VICTIMS[path](Request(scope, receive, send, _load.version))
    elif path.startswith("/token/"):
        await Tokens(scope, receive, send).answer()
    else:
        await _load(scope, receive, send)
