"""What every server serves in the benchmarks. It imports nothing of pounce's."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

HELLO = b"Hello, world!"
LARGE = b"x" * 100_000
CHUNK = b"y" * 1000
CHUNKS = 100
HUGE = 100_000_000

_TEXT = (b"content-type", b"text/plain")


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer ``/hello``, ``/large``, ``/huge``, ``/chunks``, ``/echo``, ``/json`` (Starlette) and
    ``/items`` (FastAPI), whatever follows that in the path.

    A WebSocket gets its messages back.
    """
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await _talk(receive, send)
    else:
        await _ROUTES[scope["path"].split("/", 2)[1]](scope, receive, send)


async def _live(receive: Any, send: Any) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def _talk(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def _respond(send: Any, body: bytes) -> None:
    headers = [_TEXT, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await _respond(send, HELLO)


async def _large(scope: Any, receive: Any, send: Any) -> None:
    await _respond(send, LARGE)


async def _chunks(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [_TEXT]})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body"})


async def _huge(scope: Any, receive: Any, send: Any) -> None:
    headers = [_TEXT, (b"content-length", b"%d" % HUGE)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(HUGE // len(LARGE)):
        await send({"type": "http.response.body", "body": LARGE, "more_body": True})
    await send({"type": "http.response.body"})


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await _respond(send, body)


async def _json(request: Any) -> JSONResponse:
    return JSONResponse({"id": 1, "name": "a name", "tags": ["a", "b"], "price": 12.5})


class Item(BaseModel):
    """What clients send to ``/items``."""

    id: int
    name: str
    price: float
    tags: list[str]


fastapi = FastAPI()


@fastapi.post("/items/{number}")
async def items(number: str, item: Item) -> Item:
    """The item, as it was understood."""
    return item


_ROUTES: dict[str, Any] = {
    "hello": _hello,
    "large": _large,
    "chunks": _chunks,
    "echo": _echo,
    "huge": _huge,
    "json": Starlette(routes=[Route("/json", _json), Route("/json/{number}", _json)]),
    "items": fastapi,
}
