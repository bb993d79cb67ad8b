"""Applications of two frameworks, each using a different part of what ASGI offers."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, UploadFile
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

events: list[str] = []
"""What happened apart from any response; ``GET /events`` returns it."""


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"greeting": "hello", "shared": []}
    if "POUNCE_TEST_FAREWELL" in os.environ:
        Path(os.environ["POUNCE_TEST_FAREWELL"]).write_text("lifespan ended")


async def describe(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "method": request.method,
            "url": str(request.url),
            "query": request.query_params.multi_items(),
            "headers": request.headers.items(),
            "client": request.client,
            "item": request.path_params.get("item"),
        }
    )


async def state(request: Request) -> JSONResponse:
    mine = getattr(request.state, "mine", 0) + 1
    request.state.mine = mine
    request.state.shared.append(mine)
    shared = len(request.state.shared)
    return JSONResponse({"greeting": request.state.greeting, "mine": mine, "shared": shared})


async def stream(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(int(request.query_params.get("lines", "5"))):
            yield f"line {number}\n".encode()
            await asyncio.sleep(0)

    return StreamingResponse(lines(), media_type="text/plain")


async def endless(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        while True:
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
    except asyncio.CancelledError:
        events.append("client left")
        raise


async def digest(request: Request) -> JSONResponse:
    hasher, size = hashlib.sha256(), 0
    async for block in request.stream():
        hasher.update(block)
        size += len(block)
    return JSONResponse({"size": size, "sha256": hasher.hexdigest()})


async def form(request: Request) -> JSONResponse:
    async with request.form() as fields:
        answer = {
            name: value if isinstance(value, str) else [value.filename, value.size]
            for name, value in fields.items()
        }
    return JSONResponse(answer)


async def large(request: Request) -> Response:
    return Response(b"0123456789" * 1_000_000, media_type="application/octet-stream")


async def background(request: Request) -> JSONResponse:
    async def work() -> None:
        events.append("background task ran")

    return JSONResponse("accepted", status_code=202, background=BackgroundTask(work))


async def happened(request: Request) -> JSONResponse:
    return JSONResponse(events)


async def fail(request: Request) -> Response:
    raise LookupError("before the response")


async def cookie(request: Request) -> PlainTextResponse:
    response = PlainTextResponse(request.cookies.get("visited", "never"))
    response.set_cookie("visited", "once")
    response.set_cookie("other", "too")
    return response


async def redirect(request: Request) -> RedirectResponse:
    return RedirectResponse("/describe/there?from=redirect")


async def nothing(request: Request) -> Response:
    return Response(status_code=204)


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-stamp"] = request.method
        return response


READ_ONLY = [
    state, stream, large, background, fail, cookie, redirect, nothing
]  # fmt: skip


def make_starlette() -> Starlette:
    return Starlette(
        routes=[
            *(Route(f"/{endpoint.__name__}", endpoint) for endpoint in READ_ONLY),
            Route("/form", form, methods=["POST"]),
            Route("/digest", digest, methods=["POST", "PUT"]),
            Route("/describe/{item}", describe, methods=["GET", "POST", "DELETE"]),
            Route("/events", happened),
            Mount("/static", StaticFiles(directory=Path(__file__).parent)),
        ],
        middleware=[
            Middleware(CORSMiddleware, allow_origins=["http://friend.example"]),
            Middleware(GZipMiddleware, minimum_size=1000),
            Middleware(Stamp),
        ],
        lifespan=lifespan,
    )


class Item(BaseModel):
    name: str
    price: float


def session() -> Iterator[str]:
    events.append("session opened")
    try:
        yield "session"
    finally:
        events.append("session closed")


def make_fastapi() -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.post("/items", status_code=201)
    async def create(item: Item, tasks: BackgroundTasks) -> Item:
        tasks.add_task(events.append, f"created {item.name}")
        return item

    @app.get("/items/{number}")
    def read(number: int, session: Annotated[str, Depends(session)]) -> dict[str, object]:
        if number == 404:
            raise HTTPException(404, "no such item")
        return {"number": number, "session": session}

    @app.post("/upload")
    async def upload(file: UploadFile) -> dict[str, object]:
        content = await file.read()
        return {"name": file.filename, "sha256": hashlib.sha256(content).hexdigest()}

    @app.get("/numbers")
    def numbers() -> StreamingResponse:
        return StreamingResponse(f"{number}\n" for number in range(100))

    @app.get("/fail_late")
    async def fail_late() -> StreamingResponse:
        async def blocks() -> AsyncIterator[bytes]:
            yield b"so far so good\n"
            raise LookupError("in the middle of the response")

        return StreamingResponse(blocks())

    app.mount("/endless", endless)

    @app.get("/events")
    async def happened() -> list[str]:
        return events

    @app.get("/greeting")
    async def greeting(request: Request) -> str:
        return str(request.state.greeting)

    return app
