"""The application that the load client (tests/load) talks to, and that breaks on request.

Every response names who made it in `x-served-by` ("generation worker pid version"), echoes the
request's `x-nonce`, and ends with a line of both: `signature`. So a client sees a response that
belongs to another connection, lost its end, or was begun by one worker and ended by another.

    /                                   the signature alone
    /slow?ms=200                        waits, without blocking the loop
    /upload                             length and SHA-256 of the request's body
    /stream?chunks=10&size=100&ms=20    chunks made of the nonce, a pause after each
    /events?linger=0                    an event every 100 ms until the client leaves, then a pause
    /raise                              an exception before the response
    /stubborn                           never answers and ignores its cancellation
    /hang?how=busy|sleep|deadlock|native
                                        blocks the event loop (for `ms`, where it can be told to)
    /crash                              abort(3)
"""

import asyncio
import ctypes
import hashlib
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FOREVER_MS = 10**9


def signature(nonce: bytes, served_by: bytes) -> bytes:
    """The last line of every response."""
    return b"%b %b\n" % (nonce, served_by)


def chunk(nonce: bytes, number: int, size: int) -> bytes:
    """Chunk *number* of a stream: *size* bytes that no other request has."""
    unit = b"%b:%d " % (nonce, number)
    return (unit * (size // len(unit) + 1))[:size]


class Request:
    """One request, and how to answer it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, version: str) -> None:
        service = scope["extensions"].get("pounce", {})
        generation, worker = service.get("generation", "-"), service.get("worker", "-")
        self.receive = receive
        self.send = send
        self.query = dict(parse_qsl(scope["query_string"].decode()))
        self.nonce = next((value for name, value in scope["headers"] if name == b"x-nonce"), b"-")
        self.served_by = f"{generation} {worker} {os.getpid()} {version}".encode()

    def number(self, name: str, default: int) -> int:
        return int(self.query.get(name, default))

    async def start(self, *headers: tuple[bytes, bytes]) -> None:
        mine = [(b"x-nonce", self.nonce), (b"x-served-by", self.served_by), *headers]
        await self.send({"type": "http.response.start", "status": 200, "headers": mine})

    async def write(self, data: bytes) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        last = signature(self.nonce, self.served_by)
        await self.send({"type": "http.response.body", "body": last})

    async def answer(self, content: bytes = b"") -> None:
        body = content + signature(self.nonce, self.served_by)
        await self.start((b"content-length", b"%d" % len(body)))
        await self.send({"type": "http.response.body", "body": body})

    async def slow(self) -> None:
        await asyncio.sleep(self.number("ms", 200) / 1000)
        await self.answer()

    async def upload(self) -> None:
        digest, length, more = hashlib.sha256(), 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                return
            digest.update(message.get("body", b""))
            length += len(message.get("body", b""))
            more = message.get("more_body", False)
        await self.answer(b"%d %b\n" % (length, digest.hexdigest().encode()))

    async def stream(self) -> None:
        await self.start()
        for number in range(self.number("chunks", 10)):
            await self.write(chunk(self.nonce, number, self.number("size", 100)))
            await asyncio.sleep(self.number("ms", 20) / 1000)
        await self.end()

    async def events(self) -> None:
        await self.start((b"content-type", b"text/event-stream"))
        left = asyncio.ensure_future(self._left())
        number = 0
        while not (await asyncio.wait([left], timeout=0.1))[0]:
            number += 1
            await self.write(b"data: %d\n\n" % number)
        await asyncio.sleep(self.number("linger", 0) / 1000)
        await self.end()

    async def _left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def fail(self) -> None:
        raise RuntimeError("this request was asked to raise")

    async def stubborn(self) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    async def hang(self) -> None:
        block(self.query.get("how", "busy"), self.number("ms", FOREVER_MS) / 1000)
        await self.answer()

    async def crash(self) -> None:
        os.abort()


def block(how: str, seconds: float) -> None:
    """Keep the thread for *seconds*, or for ever if it cannot be told."""
    match how:
        case "busy":
            spin(seconds)
        case "sleep":
            time.sleep(seconds)
        case "deadlock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        case "native":
            deadlock_in_c()


def deadlock_in_c() -> None:
    """Never return, never let go of the interpreter, and let no signal interrupt."""
    mutex = ctypes.create_string_buffer(64)  # all zeros is PTHREAD_MUTEX_INITIALIZER on Linux
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)


def spin(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


ROUTES: dict[str, Callable[[Request], Awaitable[None]]] = {
    "/slow": Request.slow,
    "/upload": Request.upload,
    "/stream": Request.stream,
    "/events": Request.events,
    "/raise": Request.fail,
    "/stubborn": Request.stubborn,
    "/hang": Request.hang,
    "/crash": Request.crash,
}


class Load:
    """The application; *version* tells apart the code of two generations."""

    def __init__(self, version: str = "1") -> None:
        self.version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        request = Request(scope, receive, send, self.version)
        await ROUTES.get(scope["path"], Request.answer)(request)


app = Load()
