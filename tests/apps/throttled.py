"""What slow readers ask for: the same content as one body, in chunks, or sent back to them.

/whole      all of CONTENT at once, after which the application has returned
/chunks     pieces of it, each as soon as there is room
/echo       the request's content, as it comes
WebSocket   pieces of it as messages, then the end
"""

import random
from itertools import cycle
from typing import Any

from pounce.application.types import Receive, Scope, Send

CONTENT = random.Random(0).randbytes(1_000_000)
PIECES = [CONTENT[start : start + 16_000] for start in range(0, len(CONTENT), 16_000)]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await _messages(scope["path"], receive, send)
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/whole":
            await send({"type": "http.response.body", "body": CONTENT})
        elif scope["path"] == "/chunks":
            await _chunks(send)
        else:
            await _echo(receive, send)


async def _messages(path: str, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    for piece in cycle(PIECES) if path == "/endless" else PIECES:
        await send({"type": "websocket.send", "bytes": piece})
    await send({"type": "websocket.close"})


async def _chunks(send: Send) -> None:
    for piece in PIECES:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def _echo(receive: Receive, send: Send) -> None:
    more: Any = True
    while more:
        message = await receive()
        more = message.get("more_body")
        body = message.get("body", b"")
        await send({"type": "http.response.body", "body": body, "more_body": bool(more)})
