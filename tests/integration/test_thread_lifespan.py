"""What the lifespan of an application has made works in its requests, where workers are threads.

A pool works in one event loop alone, and each worker has a loop. So the loops have a pool each
where the application allows for it, or the application runs in one loop.
"""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

import pounce
from pounce.application.types import Receive, Scope, Send
from pounce.supervisor import Supervisor
from tests.service import Service, Wire, launched, wait_until
from tests.supervised import supervised

# A connection to something that takes a moment to answer, and that requests use in turn.
POOL = """\
import asyncio, contextlib, socket, sys, threading, time

class Pool:
    async def open(self):
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._echo, args=[theirs], daemon=True).start()
        self._lock = asyncio.Lock()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        print("the pool is open", file=sys.stderr, flush=True)
        return self

    def _echo(self, sock):
        with sock:
            while data := sock.recv(100):
                time.sleep(0.01)
                sock.sendall(data)

    async def ask(self):
        async with self._lock:
            self._writer.write(b"pong")
            return await asyncio.wait_for(self._reader.readexactly(4), 5)

    async def close(self):
        self._writer.close()
        await self._writer.wait_closed()
        print("the pool is closed", file=sys.stderr, flush=True)

async def answer(scope, send, pool):
    body = await pool.ask() + b" in loop %d" % id(asyncio.get_running_loop())
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return await send({"type": "websocket.send", "bytes": body})
    served_by = b"in %d" % scope["extensions"]["pounce"]["worker"]
    head = [(b"x-served-by", served_by)]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})

class Endpoint:
    def __init__(self, pool_of):
        self._pool_of = pool_of

    async def __call__(self, scope, receive, send):
        await answer(scope, send, self._pool_of(scope))
"""

PLAIN = """
async def app(scope, receive, send):
    {global_}
    if scope["type"] != "lifespan":
        return await answer(scope, send, {where})
    await receive()
    {where} = await Pool().open()
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
    await {where}.close()
    await send({{"type": "lifespan.shutdown.complete"}})
"""

# The search for what a startup has changed meets these, and leaves them alone.
HIDDEN = """
import typing

T = typing.TypeVar("T")

class Proxy:
    @property
    def __dict__(self):
        raise RuntimeError("working outside of a request")

class Slots(Proxy):
    __dict__ = ["a"]

proxy, slots = Proxy(), Slots()
"""

STARLETTE = """
from {framework} import {name}
from starlette.routing import Route

@contextlib.asynccontextmanager
async def lifespan(app):
    pool = await Pool().open()
    {keep}
    yield {yields}
    await pool.close()

app = {name}(lifespan=lifespan, routes=[Route("/", Endpoint(lambda scope: {pool}))])
"""


def starlette(keep: str, yields: str, pool: str, framework: str = "starlette.applications") -> str:
    name = "FastAPI" if framework == "fastapi" else "Starlette"
    return POOL + STARLETTE.format(
        framework=framework, name=name, keep=keep, yields=yields, pool=pool
    )


IN_STATE = 'scope["state"]["pool"]'
IN_APP = "app.state.pool = pool"
OF_APP = 'scope["app"].state.pool'

OF_EACH_LOOP = {
    "plain, state": POOL + PLAIN.format(where=IN_STATE, global_=""),
    "Starlette, yielded": starlette("", '{"pool": pool}', IN_STATE),
    "FastAPI, yielded": starlette("", '{"pool": pool}', IN_STATE, "fastapi"),
}
OF_ONE_LOOP = {
    "plain, global": POOL + PLAIN.format(where="pool", global_="global pool"),
    "plain, beside objects that show no attributes": POOL
    + HIDDEN
    + PLAIN.format(where="pool", global_="global pool"),
    "plain, in a global dict": POOL + "kept = {}" + PLAIN.format(where='kept["pool"]', global_=""),
    "plain, of the function": POOL + PLAIN.format(where="app.pool", global_=""),
    "Starlette, yielded and the application's": starlette(
        "globals()['app'].pool = pool", '{"x": 1}', 'scope["app"].pool'
    ),
    "plain, of a class": POOL + PLAIN.format(where="Pool.first", global_=""),
    "Starlette, app.state": starlette(IN_APP, "", OF_APP),
    "FastAPI, app.state": starlette(IN_APP, "", OF_APP, "fastapi"),
    "Starlette, both": starlette(IN_APP, '{"pool": pool}', OF_APP),
    "Starlette, yielded and a class's": starlette("Pool.first = pool", '{"x": 1}', "Pool.first"),
}
FACTORY = "\ndef make():\n    pool = None\n" + "".join(
    f"    {line}\n"
    for line in [
        *PLAIN.format(where="pool", global_="nonlocal pool").strip().splitlines(),
        "return app",
    ]
)
THREADS = ("--worker-mode", "thread", "--workers", "2", "--startup-timeout", "20")


@contextmanager
def shop(tmp_path: Path, source: str, *flags: str, app: str = "shop:app") -> Iterator[Service]:
    (tmp_path / "shop.py").write_text(source)
    with launched(tmp_path, *THREADS, *flags, app=app, apps=tmp_path) as service:
        service.wait_for_start()
        yield service


def loops(service: Service, *slots: str) -> set[bytes]:
    """The loops in which the application answers while all workers in *slots* are busy."""
    with ThreadPoolExecutor(2 * len(slots)) as threads:
        return set().union(*threads.map(lambda slot: _ask(service, slot), [*slots, *slots]))


def _ask(service: Service, slot: str) -> set[bytes]:
    with service.connect_to(slot) as wire:
        return {_loop(wire) for _ in range(10)}


def _loop(wire: Wire) -> bytes:
    answer, _, loop = wire.get("/").body.partition(b" in loop ")
    assert answer == b"pong", answer
    return loop


def assert_closed(service: Service) -> int:
    """Stop; every pool that was opened is closed. Returns how many those are."""
    service.send_signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "Traceback" not in service.log
    opened = service.log.count("the pool is open")
    assert service.log.count("the pool is closed") == opened
    return opened


@pytest.mark.parametrize("source", OF_EACH_LOOP.values(), ids=OF_EACH_LOOP)
def test_each_loop_has_what_its_state_keeps(tmp_path: Path, source: str) -> None:
    with shop(tmp_path, source) as service:
        assert len(loops(service, "0", "1")) == 2
        assert "one event loop" not in service.log
        # One shows that there is a state.
        assert assert_closed(service) == 3


@pytest.mark.parametrize("source", OF_ONE_LOOP.values(), ids=OF_ONE_LOOP)
def test_an_application_that_keeps_it_elsewhere_runs_in_one_loop(
    tmp_path: Path, source: str
) -> None:
    with shop(tmp_path, source) as service:
        service.expect("one event loop runs the application's code for all worker threads")
        assert len(loops(service, "0", "1")) == 1
        assert assert_closed(service) == 1


@pytest.mark.parametrize(
    ("source", "count"),
    [
        pytest.param(OF_EACH_LOOP["plain, state"], 2, id="each"),
        pytest.param(OF_ONE_LOOP["plain, global"], 1, id="one"),
    ],
)
def test_with_asyncios_own_loop(tmp_path: Path, source: str, count: int) -> None:
    with shop(tmp_path, source, "--loop", "asyncio") as service:
        assert len(loops(service, "0", "1")) == count


@pytest.mark.parametrize("execution", ["async", "sync"])
@pytest.mark.parametrize(
    ("source", "count"),
    [
        pytest.param(OF_EACH_LOOP["plain, state"], 2, id="each"),
        pytest.param(OF_ONE_LOOP["plain, global"], 1, id="one"),
    ],
)
def test_in_websockets(tmp_path: Path, source: str, count: int, execution: str) -> None:
    def ask(_: int) -> bytes:
        with connect(f"ws://{service.address.host}:{service.address.port}") as peer:
            return bytes(peer.recv(timeout=25))  # type: ignore[arg-type] # it sends bytes

    with shop(tmp_path, source, "--execution", execution) as service:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, range(80)))
        assert all(each.startswith(b"pong in loop ") for each in answers)
        assert len(set(answers)) == count
        assert assert_closed(service) == (3 if count == 2 else 1)


def test_a_factory_is_called_for_each_loop(tmp_path: Path) -> None:
    with shop(tmp_path, POOL + FACTORY, app="shop:make()") as service:
        assert len(loops(service, "0", "1")) == 2
        assert "one event loop" not in service.log
        assert assert_closed(service) == 2


ONCE = {
    "the same": "\n@functools.cache\ndef make():\n    return app\n",
    "no second": "\nmade = []\ndef make():\n    made.append(1 / (not made))\n    return app\n",
}


@pytest.mark.parametrize("factory", ONCE.values(), ids=ONCE)
def test_a_factory_that_makes_one_is_none(tmp_path: Path, factory: str) -> None:
    source = "import functools\n" + OF_ONE_LOOP["plain, global"] + factory
    with shop(tmp_path, source, app="shop:make()") as service:
        assert len(loops(service, "0", "1")) == 1
        assert assert_closed(service) == 1


IDLE = {
    "plain": """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    await answer(scope, send, Pong())
""",
    "none": """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await answer(scope, send, Pong())
""",
    "Starlette": """
from starlette.applications import Starlette
from starlette.routing import Route
app = Starlette(routes=[Route("/", Endpoint(lambda scope: Pong()))])
""",
    "FastAPI": """
from fastapi import FastAPI
from starlette.routing import Route
app = FastAPI(routes=[Route("/", Endpoint(lambda scope: Pong()))])
""",
    "FastAPI, logging": """
import logging
from fastapi import FastAPI
from starlette.routing import Route
logger = logging.getLogger("shop")

@contextlib.asynccontextmanager
async def lifespan(app):
    logger.warning("the shop opens")
    yield

app = FastAPI(lifespan=lifespan, routes=[Route("/", Endpoint(lambda scope: Pong()))])
""",
}
PONG = "\nclass Pong:\n    async def ask(self):\n        return b'pong'\n"


@pytest.mark.parametrize("source", IDLE.values(), ids=IDLE)
def test_a_lifespan_that_makes_nothing_slows_nobody_down(tmp_path: Path, source: str) -> None:
    with shop(tmp_path, POOL + PONG + source) as service:
        assert len(loops(service, "0", "1")) == 2
        assert "one event loop" not in service.log


@pytest.mark.parametrize(
    ("source", "first", "after_scaling", "after_reload"),
    [
        pytest.param(OF_EACH_LOOP["Starlette, yielded"], 3, 4, 7, id="a pool for each loop"),
        pytest.param(OF_ONE_LOOP["Starlette, app.state"], 1, 1, 2, id="one pool"),
    ],
)
def test_workers_that_come_later(
    tmp_path: Path, source: str, first: int, after_scaling: int, after_reload: int
) -> None:
    def opened() -> int:
        return service.log.count("the pool is open")

    with shop(tmp_path, source) as service:
        assert opened() == first
        service.send_signal(signal.SIGTTIN)
        service.expect("worker 2 .* is ready")
        assert len(loops(service, "0", "1", "2")) == min(first, 3)
        assert opened() == after_scaling
        service.reload(2)
        service.expect("generation 1 is retired")
        assert opened() == after_reload
        loops(service, "0", "1")
        assert_closed(service)


HANGING = """
import threading

async def app(scope, receive, send):
    global turn
    if scope["type"] != "lifespan":
        if scope["path"] == "/hang":
            threading.Event().wait()
        return await answer(scope, send, Pong())
    await receive()
    turn = asyncio.Lock()
    await send({"type": "lifespan.startup.complete"})
    await receive()
"""


def test_one_loop_that_hangs_ends_the_service(tmp_path: Path) -> None:
    """Nothing can end a thread; whoever started the service can do so anew."""
    source, flags = POOL + PONG + HANGING, ("--worker-timeout", "1", "--shutdown-timeout", "1")
    with shop(tmp_path, source, *flags) as service, service.connect() as wire:
        wire.get("/")
        wire.send("/hang")
        service.expect(r"the application's event loop has ended or hangs")
        assert service.wait() == 1


class Client:
    """An application that is an object, with a client of its own that has a pool."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self._client = httpx.AsyncClient(timeout=25)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._client.aclose()
            return await send({"type": "lifespan.shutdown.complete"})
        body = b"the backend's"
        if scope["path"] == "/":
            host, port = scope["server"]
            body = (await self._client.get(f"http://{host}:{port}/backend")).content
        await send({"type": "http.response.start", "status": 200, "headers": []})
        return await send({"type": "http.response.body", "body": body})


def test_a_program_that_hands_over_an_application() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    config = pounce.ServerConfig(workers=2, worker_mode="thread")
    host, port = listener.getsockname()
    with supervised(supervisor := Supervisor(config, Client()), listener):
        wait_until(lambda: supervisor.worker_count == 2, "the workers")
        with ThreadPoolExecutor(8) as threads:
            urls = [f"http://{host}:{port}/"] * 80
            assert {each.text for each in threads.map(httpx.get, urls)} == {"the backend's"}
    listener.close()
