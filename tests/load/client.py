"""Clients: each keeps one connection open and sends one request after the other on it."""

import asyncio
import itertools
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator

from tests.load.connection import Connection
from tests.load.plan import Plan, Request
from tests.load.response import Response
from tests.load.result import Drop, Result, Tally

# A client that cannot connect does not hammer the server with attempts.
_RETRY_PAUSE = 0.02
# How exactly timeouts are kept.
_SWEEP = 0.05
# Clients that connect in one turn of the loop: fewer than any listener's queue holds.
_CONNECT_AT_ONCE = 50


class Run:
    """All clients of one plan, on the running loop. `stop` ends it early."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally(plan.connections)
        self.loop = asyncio.get_running_loop()
        self.trust = ssl.create_default_context(cafile=plan.tls) if plan.tls else None
        self.random = random.Random(plan.connections)
        self.stopping = False
        self._nonces = _nonces()
        self._left = plan.requests or None
        self._clients: set[Client] = set()
        self._connections: set[Connection] = set()
        self._finished: asyncio.Future[None] = self.loop.create_future()

    async def complete(self) -> Result:
        """Run to the end; raises whatever goes wrong in the client itself."""
        self.loop.set_exception_handler(lambda _, context: self.fail(context.get("exception")))
        end = self.loop.call_later(self.plan.duration, self.stop)
        self._sweep()
        for number in range(self.plan.connections):
            client = Client(self)
            self._clients.add(client)
            client.connect()
            if number % _CONNECT_AT_ONCE == _CONNECT_AT_ONCE - 1:
                await asyncio.sleep(0)
        try:
            await self._finished
        finally:
            end.cancel()
            for client in list(self._clients):
                client.leave()
            while self._connections:
                await asyncio.sleep(0)
        return self.tally.result()

    def stop(self) -> None:
        """Send no new request; it is over when those in flight are."""
        self.stopping = True
        for client in list(self._clients):
            client.stop()

    def next_request(self) -> Request | None:
        """A new request; None when there have been enough."""
        if self._left is not None:
            if self._left == 0:
                self.stop()
                return None
            self._left -= 1
        return self.plan.work.request(next(self._nonces))

    def new_connection(self) -> Connection:
        """A connection that is waited for at the end, so that nothing is left open."""
        connection = Connection(self.loop, self._connections.discard)
        self._connections.add(connection)
        return connection

    def forget(self, client: "Client") -> None:
        """*client* has finished."""
        self._clients.discard(client)
        if not self._clients and not self._finished.done():
            self._finished.set_result(None)

    def fail(self, error: BaseException | None) -> None:
        """End with a mistake of the client's own, lest it be taken for the server's."""
        if error is not None and not self._finished.done():
            self._finished.set_exception(error)

    def _sweep(self) -> None:
        now = time.monotonic()
        for client in list(self._clients):
            client.sweep(now)
        if not self._finished.done():
            self.loop.call_later(_SWEEP, self._sweep)


class Client:
    """One user of the service."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plan = run.plan
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._request: Request | None = None
        self._said_farewell = not run.plan.sits

    def connect(self) -> None:
        """Open a connection, then send."""
        self._pause = None
        self._connecting = self._run.loop.create_task(self._connect())
        self._connecting.add_done_callback(self._connected)

    def stop(self) -> None:
        """Finish the request in flight, if there is one, and leave."""
        if self._request is not None or self._connecting is not None:
            return
        if self._pause is not None:
            self._pause.cancel()
        if self._connection is not None and not self._said_farewell:
            self._said_farewell = True
            self._send()
        else:
            self.leave()

    def sweep(self, now: float) -> None:
        """Give up what takes too long."""
        connection = self._connection
        if connection is not None and connection.overdue(now, self._plan.timeout):
            connection.time_out()

    # What the connection tells (connection.Owner)

    def answered(self, response: Response, sent_at: float) -> None:
        run, request = self._run, self._request
        assert request is not None
        self._request = None
        fault = request.fault(response)
        if fault:
            run.tally.wrong += 1
            run.tally.note(f"wrong: {fault}")
        else:
            run.tally.answer(time.monotonic() - sent_at, response.headers[b"x-served-by"])
        if response.closes:
            run.tally.polite_closes += 1
            self._lose()
        else:
            self._go_on()

    def dropped(self, how: Drop, why: str) -> None:
        self._request = None
        self._run.tally.drop(how, why)
        self._lose()

    def closed_idle(self, why: str) -> None:
        self._run.tally.closed_idle += 1
        self._run.tally.note(f"closed while idle: {why}")
        self._lose()

    # Connecting

    async def _connect(self) -> None:
        tally = self._run.tally
        try:
            async with asyncio.timeout(self._plan.connect_timeout):
                self._connection = await self._open()
            tally.connections += 1
        except TimeoutError:
            tally.drop(Drop.TIMED_OUT, "connecting")
        except OSError as error:
            tally.drop(Drop.REFUSED, f"{type(error).__name__}: {error}")

    def _connected(self, attempt: asyncio.Task[None]) -> None:
        self._connecting = None
        if attempt.cancelled():
            return
        self._run.fail(attempt.exception())
        connection = self._connection
        if connection is not None:
            connection.adopt(self)
        if self._connection is not connection:
            return  # the server has closed it already
        if self._run.stopping:
            self.stop()
        elif connection is None:
            self._pause = self._run.loop.call_later(_RETRY_PAUSE, self.connect)
        elif self._plan.sits:
            self._send()
        else:
            self._think(self._plan.think * self._run.random.random())

    async def _open(self) -> Connection:
        sock = await self._connected_socket()
        _, connection = await self._run.loop.create_connection(
            self._run.new_connection,
            sock=sock,
            ssl=self._run.trust,
            server_hostname=self._plan.address.host if self._run.trust else None,
        )
        return connection

    async def _connected_socket(self) -> socket.socket:
        address = self._plan.address
        family, peer = _peer(self._plan)
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            if self._plan.bind:
                sock.bind((self._plan.bind, 0))
            if address.kind != "unix":
                await self._run.loop.sock_connect(sock, peer)
                return sock
            while not _connects(sock, address.sun_path):
                await asyncio.sleep(_RETRY_PAUSE)
        except BaseException:
            sock.close()
            raise
        return sock

    # Sending

    def _go_on(self) -> None:
        if self._run.stopping:
            self.stop()
        elif not self._plan.sits:
            self._think(self._plan.think * (0.5 + self._run.random.random()))

    def _think(self, seconds: float) -> None:
        if seconds:
            self._pause = self._run.loop.call_later(seconds, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._pause = None
        assert self._connection is not None
        self._request = self._run.next_request()
        if self._request is not None:
            self._connection.send(self._request)

    def _lose(self) -> None:
        """The connection is of no use any more: open another, unless all is over."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._connection is not None:
            self._connection.leave()
            self._connection = None
        if self._run.stopping:
            self.leave()
        else:
            self.connect()

    def leave(self) -> None:
        """Close the connection and be gone."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.leave()
            self._connection = None
        self._run.forget(self)


def _nonces() -> Iterator[bytes]:
    # Unlike those of any other run, so that nobody's response is taken for ours.
    prefix = os.urandom(4).hex().encode()
    return (b"%b-%d" % (prefix, number) for number in itertools.count())


def _peer(plan: Plan) -> tuple[socket.AddressFamily, tuple[str, int]]:
    if plan.address.kind == "unix":
        return socket.AF_UNIX, ("", 0)
    family = socket.AF_INET6 if ":" in plan.address.host else socket.AF_INET
    return family, (plan.address.host, plan.address.port)


def _connects(sock: socket.socket, path: str | bytes) -> bool:
    """Connect to *path*; false while the listener's queue is full, where TCP would wait.

    connect(2) says EAGAIN then, which an event loop takes for a connection under way.
    """
    try:
        sock.connect(path)
    except BlockingIOError:
        return False
    return True
