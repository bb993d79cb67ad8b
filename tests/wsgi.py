"""WSGI applications on real sockets."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pounce.wsgi.environ import EnvironMaker
from pounce.wsgi.handler import WSGIHandler
from tests.live import LiveServer, serve_in_threads

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
PLAIN = [("Content-Type", "text/plain")]


def handler(app: Any) -> WSGIHandler:
    """What answers requests by calling *app*."""
    return WSGIHandler(app, EnvironMaker(multithread=True, multiprocess=False))


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[LiveServer]:
    """Serve *app* as `serve_in_threads` does."""
    async with serve_in_threads(handler(app), **options) as server:
        yield server
