"""An application that calls blocking code as asgiref offers it, in the way that the path says."""

import queue
import threading
from collections.abc import Awaitable, Callable
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


async def threads() -> str:
    return ", ".join(each.name for each in threading.enumerate())


async def has_begun() -> str:
    return str(begun.is_set())


WAYS: dict[str, Callable[[], Awaitable[str]]] = {
    "/": plain,
    "/thread": thread,
    "/deeper": lambda: sensitive(deeper),
    "/context": in_context,
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


def early() -> Any:
    """Make the application; with asgiref imported."""
    import asgiref.sync  # noqa: F401 - imported for the process

    return late
