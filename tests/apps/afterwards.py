"""Goes on after its response: it notes in the file that the query names when it begins and ends.

`app` does so by itself, `in_background` by a task of Starlette's.
"""

import asyncio
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from pounce.application.types import Receive, Scope, Send

SECONDS = 1.5


async def work(file: str) -> None:
    Path(file).write_text("begun")
    await asyncio.sleep(SECONDS)
    Path(file).write_text("finished")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})
    await work(scope["query_string"].decode())


async def _answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello", background=BackgroundTask(work, request.url.query))


in_background = Starlette(routes=[Route("/", _answer)])
