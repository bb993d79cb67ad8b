"""An application that calls blocking code as asgiref offers it, in the way that the path says."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

begun = threading.Event()
never: queue.SimpleQueue[None] = queue.SimpleQueue()


def name() -> str:
    return threading.current_thread().name


def hang() -> str:
    begun.set()
    never.get()
    return ""


def deeper() -> str:
    """The threads of a call that calls asynchronous code, which calls blocking code."""
    from asgiref.sync import async_to_sync

    return f"{name()}, {async_to_sync(thread)()}"


async def sensitive(call: Callable[[], str]) -> str:
    from asgiref.sync import sync_to_async

    return await sync_to_async(call)()


async def plain() -> str:
    return ""


async def thread() -> str:
    return await sensitive(name)


async def in_context() -> str:
    from asgiref.sync import ThreadSensitiveContext

    async with ThreadSensitiveContext():
        return await sensitive(name)


async def in_thread(call: Callable[[], str] = name) -> str:
    """Call it from a loop that another thread runs, as what has to block may do."""
    return await asyncio.to_thread(lambda: asyncio.run(sensitive(call)))


async def in_anyios() -> str:
    from anyio.to_thread import run_sync

    return await run_sync(lambda: asyncio.run(thread()))


async def in_loops_executor() -> str:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, lambda: asyncio.run(thread()))


async def in_strangers() -> str:
    with ThreadPoolExecutor(1) as executor:
        call = executor.submit(Context().run, lambda: asyncio.run(thread()))
        return await asyncio.wrap_future(call)


async def threads() -> str:
    return ", ".join(each.name for each in threading.enumerate())


async def has_begun() -> str:
    return str(begun.is_set())


WAYS: dict[str, Callable[[], Awaitable[str]]] = {
    "/": plain,
    "/thread": thread,
    "/deeper": lambda: sensitive(deeper),
    "/context": in_context,
    "/in/thread": in_thread,
    "/in/anyio": in_anyios,
    "/in/executor": in_loops_executor,
    "/in/strangers": in_strangers,
    "/in/thread/hang": lambda: in_thread(hang),
    "/hang": lambda: sensitive(hang),
    "/begun": has_begun,
    "/threads": threads,
}


async def late(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application; it imports asgiref when a request needs it."""
    body = (await WAYS[scope["path"]]()).encode()
    served_by = b"- %d - -" % scope["extensions"]["pounce"]["worker"]
    headers = [(b"x-served-by", served_by)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def one_loops(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The same, for one loop: its lifespan keeps in a global what it has made."""
    global begun
    if scope["type"] == "lifespan":
        await receive()
        begun = threading.Event()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await late(scope, receive, send)


def early() -> Any:
    """Make the application; with asgiref imported."""
    import asgiref.sync  # noqa: F401 - imported for the process

    return late
