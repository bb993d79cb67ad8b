"""Applications that fork, in every way that an application is called.

The path says what the child does; the answer is the worker's process, and how the child ended:
its exit status, a negative signal number, or "lives".
"""

import asyncio
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from anyio import to_thread

from pounce.application.sync_app import RawRequest, RawResponse

Scope = dict[str, Any]

_PATIENCE = 5.0


def ends(child: int) -> str:
    """How *child* has ended."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return str(os.waitstatus_to_exitcode(status))
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "lives"


def raises() -> None:
    raise RuntimeError("in the child")


def execs_nothing() -> None:
    os.execvp("there-is-no-such-program", ["x"])


HONEST: dict[str, Callable[[], object]] = {
    "/_exit": lambda: os._exit(7),
    "/exec": lambda: os.execvp("true", ["true"]),
}
COMES_BACK: dict[str, Callable[[], object]] = {
    "/raises": raises,
    "/exits": lambda: sys.exit(3),
    "/says-why": lambda: sys.exit("why"),
    "/execs-nothing": execs_nothing,
    "/returns": lambda: None,
    "/waits": lambda: None,
}


def forks(path: str) -> str:
    """Fork as *path* says; nothing in a child that comes back."""
    if path == "/multiprocessing":
        return _multiprocessing()
    if path == "/subprocess":
        return str(subprocess.run(["true"], preexec_fn=lambda: None, check=False).returncode)
    if path == "/lives-on":
        return str(_lives_on())
    action = HONEST.get(path) or COMES_BACK.get(path)
    if action is None:
        return "none"
    child = os.fork()
    if child:
        return ends(child)
    action()
    return ""


def _lives_on() -> int:
    """A child that holds what it has inherited until it is killed."""
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    return child


def _multiprocessing() -> str:
    """A child that has descriptors and a loop of its own, and that can be terminated."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_works, args=(theirs,))
    process.start()
    worked = ours.poll(_PATIENCE) and ours.recv()
    process.terminate()
    process.join(_PATIENCE)
    ours.close()
    theirs.close()
    return f"{worked} {process.exitcode}"


def _works(connection: Any) -> None:
    async def work() -> str:
        one, other = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=one)
        other.sendall(b"own loop\n")
        line = await reader.readline()
        writer.close()
        return line.decode().strip()

    connection.send(asyncio.run(work()))
    time.sleep(60)


async def app(scope: Scope, receive: Any, send: Any) -> None:
    """ASGI, over HTTP and WebSocket."""
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    path, query = scope["path"], scope["query_string"]
    never = asyncio.get_running_loop().create_future()
    if query == b"asyncio":
        told = await asyncio.to_thread(forks, path)
    elif query == b"anyio":
        told = await to_thread.run_sync(forks, path)
    else:
        told = forks(path)
    if path == "/waits" and not told:
        await never
    body = f"{os.getpid()} {told}"
    if scope["type"] == "websocket":
        await send({"type": "websocket.send", "text": body})
        await send({"type": "websocket.close"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})
    return None


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """WSGI."""
    told = forks(environ["PATH_INFO"])
    start_response("200 OK", [])
    return [f"{os.getpid()} {told}".encode()]


class Sync:
    """A SyncApp."""

    def handle_sync(self, request: RawRequest) -> RawResponse:
        """The answer."""
        told = forks(request.path.decode())
        return RawResponse(200, (), f"{os.getpid()} {told}".encode())


sync = Sync()


async def lifespan(scope: Scope, receive: Any, send: Any) -> None:
    """ASGI, and it forks in its lifespan, too."""
    if scope["type"] == "lifespan":
        assert forks("/raises") == "1"
    await app(scope, receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
