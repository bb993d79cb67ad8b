"""Live servers to talk to: the bare engine on an event loop, and the whole program."""

import asyncio
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, TextIO

from pounce.asgi.context import ServerContext
from pounce.asgi.types import ASGIApp
from pounce.config import ServerConfig
from pounce.http1.connection import HTTP1Connection
from tests.conformance.client import TIMEOUT, Client
from tests.conformance.echo import SEEN

REPOSITORY = Path(__file__).parents[2]


class LiveServer:
    """A server that runs; *complaints* are what it logged as errors."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.complaints: list[str] = []

    def connect(self) -> Client:
        return Client(self.address)

    def take_seen(self) -> list[dict[str, Any]]:
        """What the echo application saw since it was last asked; proves that it still serves."""
        with self.connect() as client:
            response = client.get(SEEN)
        assert response is not None, "the server does not answer any more"
        seen: list[dict[str, Any]] = response.json()
        return seen

    def reset(self) -> None:
        """Forget what an earlier test left."""
        self.take_seen()
        self.complaints.clear()


class _Complaints(logging.Handler):
    def __init__(self, server: LiveServer) -> None:
        super().__init__(logging.WARNING)
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        self._server.complaints.append(self.format(record))


@contextmanager
def serve_in_thread(
    app: ASGIApp, config: ServerConfig, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> Iterator[LiveServer]:
    """The engine alone: its connections on a loop in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = LiveServer(address)
    loop = new_loop()
    loop.set_exception_handler(lambda _, context: server.complaints.append(str(context)))
    context = ServerContext(config=config, app=app, state={}, loop=loop)
    handler = _Complaints(server)
    logging.getLogger("pounce").addHandler(handler)
    started = threading.Event()

    async def run() -> None:
        async def stop() -> None:
            accepting.close()
            for connection in list(context.connections):
                connection.abort()

        accepting = await loop.create_server(
            lambda: HTTP1Connection(context, server=address), sock=listener
        )
        stops.append(stop)
        started.set()

    stops: list[Callable[[], Any]] = []
    loop.create_task(run())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert started.wait(TIMEOUT)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(stops[0](), loop).result(TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT)
        loop.close()
        logging.getLogger("pounce").removeHandler(handler)


@contextmanager
def serve_in_process(app: str, *options: str) -> Iterator[LiveServer]:
    """The whole program: ``pounce serve`` with a worker of its own."""
    command = [sys.executable, "-m", "pounce", "serve", app, "--bind", "127.0.0.1:0", *options]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    lines: Queue[str] = Queue()
    thread = threading.Thread(target=_pump, args=(process.stderr, lines))
    thread.start()
    try:
        server = LiveServer(("127.0.0.1", _find_port(lines)))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.wait()
            thread.join(TIMEOUT)
            process.stderr.close()
    rest = [lines.get_nowait() for _ in range(lines.qsize())]
    assert not any("Traceback" in line or "ERROR" in line for line in rest), "".join(rest)


def _pump(source: TextIO, lines: Queue[str]) -> None:
    for line in source:
        lines.put(line)


def _find_port(lines: Queue[str]) -> int:
    while True:
        if found := re.search(r"127\.0\.0\.1:([1-9]\d*)", lines.get(timeout=TIMEOUT)):
            return int(found[1])
