"""Live servers to talk to: the bare engine on an event loop, and the whole program."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, TextIO, TypeAlias, TypeVar

from pounce.application.types import ASGIApp
from pounce.config.service import ServerConfig
from pounce.http.connections import ServerContext
from pounce.http1.connection import HTTP1Connection
from tests.conformance.client import TIMEOUT, Client
from tests.conformance.echo import SEEN

T = TypeVar("T")
Address: TypeAlias = tuple[str, int]
Stop: TypeAlias = Callable[[], object]

REPOSITORY = Path(__file__).parents[2]
_TROUBLE = re.compile(r"WARNING|ERROR|CRITICAL|Traceback", re.IGNORECASE)


class LiveServer:
    """A server that runs; *log* are the lines it has logged so far."""

    def __init__(self, address: Address, log: list[str]) -> None:
        self.address = address
        self.log = log

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    @property
    def complaints(self) -> list[str]:
        """The lines of the log that tell of trouble."""
        return [line for line in self.log if _TROUBLE.search(line)]

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
        self.log.clear()


class _ListHandler(logging.Handler):
    def __init__(self, log: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.append(f"{record.levelname} {self.format(record)}")


async def _serve(
    app: ASGIApp, config: ServerConfig, log: list[str], started: Queue[tuple[Address, Stop]]
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, problem: log.append(f"ERROR {problem}"))
    context = ServerContext(config=config, app=app, state={}, loop=loop)
    accepting = await loop.create_server(lambda: HTTP1Connection(context), "127.0.0.1", 0)
    stop = asyncio.Event()
    address = accepting.sockets[0].getsockname()
    started.put((address, lambda: loop.call_soon_threadsafe(stop.set)))
    await stop.wait()
    accepting.close()
    context.abort()


@contextmanager
def serve_in_thread(
    app: ASGIApp, config: ServerConfig, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> Iterator[LiveServer]:
    """The engine alone: its connections on a loop in a thread."""
    log: list[str] = []
    started: Queue[tuple[Address, Stop]] = Queue()

    def run() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(app, config, log, started))

    handler = _ListHandler(log)
    logging.getLogger("pounce").addHandler(handler)
    thread = threading.Thread(target=run)
    thread.start()
    address, stop = started.get(timeout=TIMEOUT)
    try:
        yield LiveServer(address, log)
    finally:
        stop()
        thread.join(TIMEOUT)
        logging.getLogger("pounce").removeHandler(handler)
    assert not thread.is_alive()


@contextmanager
def serve_in_process(
    app: str, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[LiveServer]:
    """The whole program: ``pounce serve`` with a worker of its own.

    It has no more connections than any machine's limit of descriptors allows without a warning.
    """
    flags = ("--bind", "127.0.0.1:0", "--max-connections", "100", *options)
    process = subprocess.Popen(
        [sys.executable, "-m", "pounce", "serve", app, *flags],
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=_collect, args=(process.stderr, log))
    reader.start()
    try:
        yield LiveServer(("127.0.0.1", wait_for(lambda: _find_port(log))), log)
    finally:
        process.terminate()
        _reap(process)
        reader.join(TIMEOUT)
        process.stderr.close()


def _collect(source: TextIO, log: list[str]) -> None:
    for line in source:
        log.append(line)  # noqa: PERF402 - each line is wanted as soon as it is there


def _reap(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def _find_port(log: list[str]) -> int | None:
    found = re.search(r"listening on \S*:([1-9]\d*)", "".join(log))
    return int(found[1]) if found else None


def wait_for(condition: Callable[[], T | None]) -> T:
    """What *condition* returns once it is true; fails after TIMEOUT seconds."""
    deadline = time.monotonic() + TIMEOUT
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return result
