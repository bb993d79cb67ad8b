"""Event streams without end, and what else may be under way at a stop; `app` is ASGI, `wsgi` WSGI.

/listens    waits for http.disconnect, and then says goodbye
/ticks      an event every 20 ms, whoever listens
/download   no event stream, which ends after a while
/waits      an event, and then none for long
/silent     no event for long; WSGI
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from pounce.application.types import Receive, Scope, Send

EVENTS = "text/event-stream; charset=utf-8"
TICK = b"data: tick\n\n"
GOODBYE = b"data: goodbye\n\n"
PIECES = 100
"""So many pieces a download has, one every 20 ms."""


def kind(path: str) -> str:
    return "application/octet-stream" if path == "/download" else EVENTS


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    path = scope["path"]
    headers = [(b"Content-Type", kind(path).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    left = PIECES
    while left:
        left -= path == "/download"
        await send({"type": "http.response.body", "body": TICK, "more_body": True})
        if path == "/listens":
            while (await receive())["type"] != "http.disconnect":
                pass
            break
        await asyncio.sleep(3600 if path == "/waits" else 0.02)
    await send({"type": "http.response.body", "body": GOODBYE})


def wsgi(environ: dict[str, Any], start: Callable[..., Any]) -> Iterator[bytes]:
    path = environ["PATH_INFO"]
    start("200 OK", [("Content-Type", kind(path))])
    left = PIECES
    while left:
        left -= path == "/download"
        if path == "/silent":
            time.sleep(3600)
        yield TICK
        time.sleep(3600 if path == "/waits" else 0.02)
    yield GOODBYE
