"""An application that leaves threads behind which never end, in the way that the path says."""

import asyncio
import atexit
import concurrent.futures
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

NAME = "left-behind"
never: queue.SimpleQueue[None] = queue.SimpleQueue()


def _note_the_end() -> None:
    os.write(2, f"callback of {os.getpid()}\n".encode())


atexit.register(_note_the_end)


def _start_thread() -> None:
    threading.Thread(target=never.get, name=NAME, daemon=False).start()


def _fill_pool() -> concurrent.futures.ThreadPoolExecutor:
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=NAME)
    pool.submit(never.get)
    return pool


def _set_default_executor() -> None:
    asyncio.get_running_loop().set_default_executor(_fill_pool())


WAYS: dict[str, Callable[[], object]] = {
    "/": lambda: None,
    "/thread": _start_thread,
    "/pool": _fill_pool,
    "/default": _set_default_executor,
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
    elif scope["path"] == "/hang":
        await asyncio.to_thread(never.get)
    else:
        WAYS[scope["path"]]()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/hang":
        never.get()
    WAYS[environ["PATH_INFO"]]()
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
