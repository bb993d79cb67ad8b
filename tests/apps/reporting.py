"""An application that tells what its worker was made with."""

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pounce.config.service import ServerConfig

LIFESPAN: list[str] = []
MEETING: dict[str, int] = {"here": 0, "most": 0}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a report; under some paths, do what an option bounds."""
    await _serve("app", scope, receive, send)


async def other(scope: Any, receive: Any, send: Any) -> None:
    """The same, by another name."""
    await _serve("other", scope, receive, send)


def both(*arguments: Any) -> Any:
    """An application of either interface, which tells by which it was called."""
    if len(arguments) == 3:
        return _serve("asgi", *arguments)
    environ, start = arguments
    start("200 OK", [("content-length", "0"), ("x-interface", "wsgi")])
    return [b"" for _ in environ["PATH_INFO"]][:1]


def told_of(*_: Any) -> None:
    """Hear that a worker has ended."""
    Path(os.environ["TOLD"]).write_text("one")


def also_told_of(*_: Any) -> None:
    """The same, by another name."""
    Path(os.environ["TOLD"]).write_text("another")


async def _serve(name: str, scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await _echo(receive, send)
    else:
        await _act(scope["path"].removeprefix(scope.get("root_path", "")), receive)
        told = json.dumps(_report(name, scope)).encode()
        length = (b"content-length", b"%d" % len(told))
        interface = (b"x-interface", b"asgi")
        await send({"type": "http.response.start", "status": 200, "headers": [length, interface]})
        await send({"type": "http.response.body", "body": told})


async def _live(receive: Any, send: Any) -> None:
    while (message := await receive())["type"] == "lifespan.startup":
        LIFESPAN.append("began")
        await send({"type": "lifespan.startup.complete"})
    await send({"type": f"{message['type']}.complete"})


async def _echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": str(len(message.get("text") or ""))})


async def _act(path: str, receive: Any) -> None:
    if path == "/upload":
        while (await receive()).get("more_body"):
            pass
    elif path == "/hang":
        time.sleep(6.0)
    elif path == "/meet":
        await _meet()
    elif path == "/end":
        _end_worker()


async def _meet() -> None:
    MEETING["here"] += 1
    MEETING["most"] = max(MEETING["most"], MEETING["here"])
    await asyncio.sleep(0.5)
    MEETING["here"] -= 1


def _end_worker() -> None:
    if "POUNCE_WORKER" in os.environ:  # a process of its own
        os.kill(os.getpid(), signal.SIGKILL)
    # A loop that stops is the end of a thread's worker. Another may run the application.
    loop = _worker_in_thread().loop
    loop.call_soon_threadsafe(loop.stop)


def _worker_in_thread() -> Any:
    """The newest generation's worker in slot 0, found on the stack of its thread."""
    frames = sys._current_frames()
    named = {each.name: each.ident for each in threading.enumerate()}
    newest = max(name for name in named if re.fullmatch(r"pounce-\d+-0", name))
    frame = frames[named[newest] or 0]
    while not hasattr(frame.f_locals.get("self"), "start_draining"):
        frame = frame.f_back  # type: ignore[assignment]
    return frame.f_locals["self"]


def _report(name: str, scope: Any) -> dict[str, Any]:
    return {
        "app": name,
        "release": Path("release.txt").read_text(),
        "environment": os.environ.get("SHOP"),
        "loop": type(asyncio.get_running_loop()).__module__,
        "thread": re.sub(r"[-_0-9]", "", threading.current_thread().name),
        "lifespan": bool(LIFESPAN),
        "most": MEETING["most"],
        "root_path": scope["root_path"],
        "client": scope["client"] and scope["client"][0],
        "config": _config(),
    }


def _config() -> dict[str, str]:
    """What the worker that calls this was made with: its own objects are further down the stack."""
    frame = sys._getframe()
    while frame is not None:
        for value in frame.f_locals.values():
            context = getattr(value, "_context", value)
            config = getattr(context, "config", None)
            if isinstance(config, ServerConfig):
                return {each: repr(getattr(config, each)) for each in config.__slots__}
        frame = frame.f_back  # type: ignore[assignment]
    return {}
