"""Many open WebSockets at a reload and at a stop: none is cut off, none waits for another."""

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.modes import both_modes
from tests.service import Service, serving

MANY = 60
RELOAD_TIMEOUT = 4.0


@dataclass
class End:
    """How a client's WebSocket ended: the close frame's code, when, and the echoes until then."""

    code: int
    at: float
    echoes: int


@contextmanager
def echoing(directory: Path, mode: str, reload_timeout: float) -> Iterator[Service]:
    flags = ["--worker-mode", mode, "--workers", "2", "--reload-timeout", str(reload_timeout)]
    with serving(directory, *flags, app="websocket:app") as service:
        yield service
        assert "ERROR" not in service.log


def open_at(service: Service) -> connect:
    return connect(f"ws://{service.address}/", proxy=None)


async def chat(ws: ClientConnection) -> End:
    """Go on as long as the server does."""
    echoes = 0
    try:
        while True:
            await ws.send(str(echoes))
            assert await ws.recv() == str(echoes)
            echoes += 1
            await asyncio.sleep(0.05)
    except ConnectionClosed as closed:
        return End(closed.rcvd.code if closed.rcvd else 1006, time.monotonic(), echoes)


async def chat_during(service: Service, number: signal.Signals) -> tuple[float, list[End]]:
    """Send the service a signal while many chat; when that was, and how each ended."""
    async with AsyncExitStack() as stack, asyncio.timeout(50):
        opened = [await stack.enter_async_context(open_at(service)) for _ in range(MANY)]
        chats = [asyncio.create_task(chat(ws)) for ws in opened]
        await asyncio.sleep(0)
        service.send_signal(number)
        return time.monotonic(), list(await asyncio.gather(*chats))


async def echoes(service: Service) -> bool:
    async with open_at(service) as ws:
        await ws.send("new")
        return await ws.recv() == "new"


@both_modes
def test_a_reload_closes_them_one_after_the_other(tmp_path: Path, mode: str) -> None:
    with echoing(tmp_path, mode, RELOAD_TIMEOUT) as service:
        began, ends = asyncio.run(chat_during(service, signal.SIGHUP))
        service.expect("generation 1 is retired")
        assert asyncio.run(echoes(service))
    assert [end.code for end in ends] == [1012] * MANY
    moments = [end.at - began for end in ends]
    assert min(moments) > RELOAD_TIMEOUT * 0.65
    assert max(moments) - min(moments) > RELOAD_TIMEOUT * 0.15
    # They were served all the while.
    assert min(end.echoes for end in ends) > 5


@both_modes
def test_a_stop_closes_them_soon(tmp_path: Path, mode: str) -> None:
    # After a reload they would go on for longer than the chat is waited for.
    with echoing(tmp_path, mode, reload_timeout=3600) as service:
        _, ends = asyncio.run(chat_during(service, signal.SIGTERM))
        assert [end.code for end in ends] == [1012] * MANY
        assert service.wait() == 0
