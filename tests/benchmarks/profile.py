"""Where the time of a plain request goes, from received bytes to written ones.

    python -m tests.benchmarks.profile

A connection is fed requests in this process, on a transport that does nothing, and each part of
the work is timed alone, again and again. What a table like this does not see is what the kernel
and the event loop take, which is what the server `raw` takes in the benchmarks; and on a real
connection everything is slower, as the caches are cold after each system call.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import uvloop

from pounce.asgi.cycle import RequestCycle
from pounce.asgi.scope import renew_scope
from pounce.config.service import ServerConfig
from pounce.http.connections import ServerContext
from pounce.http1.connection import HTTP1Connection
from pounce.http1.events import RequestHead
from pounce.http1.fast_reader import FastReader
from pounce.http1.plain_head import plain_head
from tests.benchmarks.applications import HELLO, app

REQUEST = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: */*\r\nUser-Agent: wrk\r\n\r\n"
OTHER = REQUEST.replace(b"*/*", b"text/html").replace(b"hello", b"hello?again")
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HELLO))]

ROUNDS, TIMES = 15, 5000


class Nowhere:
    """A transport to nobody."""

    write = staticmethod(len)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def get_write_buffer_size(self) -> int:
        return 0


class Profile:
    """The parts of a request's work, by name, in nanoseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.parts: dict[str, float] = {}
        self._loop = loop
        self._empty = self._time(lambda: None)

    def take(self) -> None:
        """Time everything."""
        connection = self._connection()
        self._part("a whole request", lambda: connection.data_received(REQUEST))
        self._part("the application alone, in an eager task", self._application())
        self._part("reading a head that came before", lambda: self.reader.receive(REQUEST))
        self._part("reading a head of known lines", self._other_heads)
        self._part("the scope of a head that came before", lambda: renew_scope(self.scope, {}))
        self._part("the scope of another", lambda: connection._make_scope(self.head))
        self._part("a cycle", lambda: RequestCycle(connection, self.scope, self.context))
        self._part("the response's head and its bytes", self._response)
        self._part("the end of a request", lambda: connection._finish(True))

    def _connection(self) -> HTTP1Connection:
        self.context = ServerContext(
            config=ServerConfig(), app=app, state={}, loop=self._loop, extensions={"pounce": {}}
        )
        self.connection = HTTP1Connection(self.context, server=("127.0.0.1", 80))
        self.connection.connection_made(cast(asyncio.Transport, Nowhere()))
        self.reader = FastReader(self.context.config)
        self.head = cast(RequestHead, self.reader.receive(REQUEST))
        self.scope = self.connection._make_scope(self.head)
        return self.connection

    def _application(self) -> Callable[[], object]:
        async def nothing(_: object = None) -> None:
            pass

        return lambda: self.context.start_task(cast(Any, app(self.scope, nothing, nothing)))

    def _other_heads(self) -> None:
        # Of a pair, each is another than the one before.
        self.reader.receive(OTHER)
        self.reader.receive(REQUEST)

    def _response(self) -> None:
        head = plain_head(200, HEADERS, self.context.defaults.lines)
        assert head is not None
        _, lines, _, length_line = head
        b"".join((*lines, length_line, self.context.defaults.tail, HELLO))

    def _part(self, name: str, work: Callable[[], object]) -> None:
        took = self._time(work) - self._empty
        self.parts[name] = took / 2 if work == self._other_heads else took

    @staticmethod
    def _time(work: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(ROUNDS):
            started = time.process_time_ns()
            for _ in range(TIMES):
                work()
            best = min(best, (time.process_time_ns() - started) / TIMES)
        return best


async def main() -> None:
    if sys.version_info < (3, 12):
        # Tasks do not start at once: no call does the whole of a request.
        sys.stdout.write("there is no profile of requests before Python 3.12\n")
        return
    profile = Profile(asyncio.get_running_loop())
    profile.take()
    version = ".".join(map(str, sys.version_info[:3]))
    lines = [f"A GET of 13 bytes, Python {version}, nanoseconds of CPU time:"]
    lines += [f"{took:8,.0f}  {name}" for name, took in profile.parts.items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    uvloop.run(main())
